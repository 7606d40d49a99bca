# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that stand for disks, and a tang of our own: what the tests of encryption share."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSPHRASE = "correct horse battery staple"
RECOVERY = "a recovery key that is kept elsewhere"
# Where the second copy of a LUKS2 header begins, and where in each copy its checksum is.
SECOND_COPY = 64 * 2**10
CHECKSUM = 0x1C0
CHEAP = {"sector_size": 512, "pbkdf": "pbkdf2", "pbkdf_force_iterations": 1000}


@dataclass
class Tang:
    """A tang server of our own on loopback."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, home: Path) -> Tang:
        """Return a server on a free port, with new keys in a new directory; it does not run yet."""
        home.mkdir()
        subprocess.run(["/usr/libexec/tangd-keygen", home], capture_output=True, check=True)
        return cls(home, free_port())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def thp(self) -> str:
        done = subprocess.run(["tang-show-keys", str(self.port)], capture_output=True, text=True, check=True)
        return done.stdout.split()[0]

    def entry(self) -> dict[str, str]:
        return {"url": self.url, "thp": self.thp}

    def start(self) -> None:
        listen = f"TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr"
        argv = ["socat", listen, f"EXEC:/usr/libexec/tangd {self.home}"]
        self.process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"tang does not listen on {self.port}")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def rotate(self) -> None:
        for key in self.home.glob("*.jwk"):
            key.rename(key.with_name(f".{key.name}"))
        subprocess.run(["/usr/libexec/tangd-keygen", self.home], capture_output=True, check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def blank_disk(path: Path) -> Path:
    """Make a blank file that stands for a disk."""
    with path.open("wb") as stream:
        stream.truncate(20 * 2**20)
    return path


def overwrite(path: Path, start: int, length: int) -> None:
    """Overwrite a part of a disk with zeros."""
    with path.open("r+b") as stream:
        stream.seek(start)
        stream.write(bytes(length))


def partition_table(path: Path) -> None:
    """Write a partition table over the beginning of a disk, and a filesystem into its one partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\xff\xff\xff", 2048, path.stat().st_size // 512 - 2048)
    with path.open("r+b") as stream:
        stream.write((bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(4096, b"\0"))
    argv = ["mke2fs", "-q", "-F", "-E", f"offset={2**20}", str(path), "8m"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def params(disks: list[Path], servers: list[dict[str, str]] | None, **more: Any) -> dict[str, Any]:
    threshold = more.pop("threshold", 1)
    policy = {"policy": {"tang": servers, "threshold": threshold}} if servers else {}
    return {
        "devices": [{"device": str(disk), "name": f"luks-{disk.stem}", "state": "present"} for disk in disks],
        "passphrase": PASSPHRASE,
        "format": CHEAP,
        "header_backup_dir": str(disks[0].parent / "headers"),
        "tang_timeout": 2,
        **policy,
        **more,
    }


def metadata(disk: Path) -> dict[str, Any]:
    text = subprocess.run(
        ["cryptsetup", "luksDump", "--dump-json-metadata", disk], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(text)
    return found


def unlocks(disk: Path, slot: int) -> bool:
    argv = ["clevis", "luks", "pass", "-d", str(disk), "-s", str(slot)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def opens(disk: Path, key: str = PASSPHRASE) -> bool:
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", str(disk)]
    return subprocess.run(argv, input=key.encode(), capture_output=True, check=False).returncode == 0
