# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a node without changing it: disks, network cards, clock, release, tang.

Three processes at most (lsblk, wipefs, ip); everything else is read from files, so that one look
stays cheap on a slow node.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._errors import CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

SECTOR = 512
LUKS_BINARY_HEADER = 4096
LUKS_HEADER_LIMIT = 4 * 1024 * 1024
LSBLK = ("lsblk", "--json", "--bytes", "--paths", "--output", "NAME,KNAME,TYPE,SIZE,RO,MOUNTPOINTS")
ADDRESSES = ("ip", "-json", "address", "show")
TANG_KEYS = "/var/lib/tang"
WIPEFS = ("wipefs", "--no-act", "--json")
TCP_LISTEN = "0A"
CONTENT_LENGTH = re.compile(rb"^content-length: *(\d+)", re.I | re.M)


@dataclass(frozen=True)
class Luks:
    """What the header of a LUKS device says about itself; no key material. ``sector_size`` in bytes, of encryption."""

    version: int
    label: str
    uuid: str
    clevis: bool
    sector_size: int = SECTOR


def parse_luks(header: bytes) -> Luks:
    """Read a LUKS header.

    :param header: the first bytes of the device, as many as the header's own size field asks for.
    """
    version = int.from_bytes(header[6:8], "big")
    uuid = header[168:208].split(b"\0")[0].decode("ascii", "replace")
    if version != 2:
        return Luks(version, "", uuid, False)
    label = header[24:72].split(b"\0")[0].decode("utf-8", "replace")
    area = header[LUKS_BINARY_HEADER : int.from_bytes(header[8:16], "big")].split(b"\0")[0]
    try:
        about = json.loads(area)
        clevis = any(token.get("type") == "clevis" for token in about.get("tokens", {}).values())
        sizes = [int(segment.get("sector_size", SECTOR)) for segment in about.get("segments", {}).values()]
    except (AttributeError, TypeError, ValueError):
        return Luks(version, label, uuid, False)
    return Luks(version, label, uuid, clevis, max(sizes, default=SECTOR))


def read_luks(device: str) -> Luks:
    """Read the LUKS header of a block device or an image file that has one."""
    with open(device, "rb") as handle:
        start = handle.read(LUKS_BINARY_HEADER)
        size = min(int.from_bytes(start[8:16], "big"), LUKS_HEADER_LIMIT)
        return parse_luks(start + handle.read(max(0, size - len(start))))


def _block_size(device: str) -> int:
    """Return the smallest piece, in bytes, that a disk reads or writes; a partition does not tell."""
    return int(_text(f"/sys/class/block/{os.path.basename(device)}/queue/logical_block_size") or SECTOR)


def _walk(device: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for child in device.get("children", []):
        yield child
        yield from _walk(child)


def _flat(devices: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for device in devices:
        yield device
        yield from _walk(device)


def parse_signatures(wipefs: str) -> list[Mapping[str, Any]]:
    """Return the signatures that ``wipefs --no-act --json`` printed; it prints nothing at all when there are none."""
    found: list[Mapping[str, Any]] = json.loads(wipefs)["signatures"] if wipefs.strip() else []
    return found


def parse_disks(
    lsblk: str, signatures: Collection[Mapping[str, Any]], kernel_names: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Describe the named disks from what ``lsblk`` printed and the signatures that ``wipefs`` found.

    :param kernel_names: the device as the inventory names it, and the kernel's name it leads to.
    :return: by inventory name: ``kernel_name``, ``type``, ``size`` (bytes), ``read_only``, ``signatures``,
        ``mounts`` and ``holders`` (everything above the disk, partitions included). Unknown disks are left out.
    """
    known = {device["kname"]: device for device in _flat(json.loads(lsblk)["blockdevices"])}
    disks: dict[str, dict[str, Any]] = {}
    for name, kernel_name in kernel_names.items():
        device = known.get(kernel_name)
        if device is None:
            continue
        above = list(_walk(device))
        disks[name] = {
            "kernel_name": kernel_name,
            "type": device["type"],
            "size": int(device["size"]),
            "read_only": bool(device["ro"]),
            "signatures": sorted({sig["type"] for sig in signatures if sig["device"] == os.path.basename(kernel_name)}),
            "mounts": sorted({mount for item in (device, *above) for mount in item["mountpoints"] if mount}),
            "holders": sorted({item["name"] for item in above}),
        }
    return disks


def parse_os_release(text: str) -> dict[str, str]:
    """Return ``id``, ``version_id`` and ``codename`` of /etc/os-release."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {
        "id": values.get("ID", "").strip('"'),
        "version_id": values.get("VERSION_ID", "").strip('"'),
        "codename": values.get("VERSION_CODENAME", "").strip('"'),
    }


def parse_listening(text: str) -> set[int]:
    """Return the local ports that /proc/net/tcp or tcp6 lists as listening."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {int(row[1].rsplit(":", 1)[1], 16) for row in rows if len(row) > 3 and row[3] == TCP_LISTEN}


def _complete(answer: bytes) -> bool:
    """Whether an HTTP answer is whole; tang keeps the connection open, so its end does not tell."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = CONTENT_LENGTH.search(head)
    return bool(end and length and len(body) >= int(length[1]))


def ask_tang(server: str, timeout: float) -> str:
    """Ask a tang server, ``ADDRESS:PORT``, for its advertisement; return an empty string, or what went wrong."""
    address, port = server.rsplit(":", 1)
    request = f"GET /adv HTTP/1.0\r\nHost: {address}\r\n\r\n".encode("ascii")
    answer = b""
    try:
        with socket.create_connection((address, int(port)), timeout) as connection:
            connection.sendall(request)
            while len(answer) < 65536 and not _complete(answer) and (part := connection.recv(65536)):
                answer += part
    except OSError as error:
        return str(error) or type(error).__name__
    status = answer.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if " 200 " in f"{status} " and b'"payload"' in answer:
        return ""
    return f"something answers there that is not tang ({status[:60] or 'silence'})"


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def read_interfaces(root: str = "/sys/class/net") -> dict[str, dict[str, Any]]:
    """Return MAC address and kind of each network interface; ``physical`` is one that a bus carries."""
    return {
        name: {
            "mac": _text(f"{root}/{name}/address").strip().lower(),
            "physical": os.path.exists(f"{root}/{name}/device"),
        }
        for name in sorted(os.listdir(root))
        if os.path.isdir(f"{root}/{name}")
    }


def parse_addresses(text: str) -> dict[str, list[str]]:
    """Return the addresses of each interface from ``ip``'s JSON, of a tunnel its own end's."""
    return {item["ifname"]: [about["local"] for about in item["addr_info"]] for item in json.loads(text)}


def plain_volumes(workdir: str = "/var/lib/glusterd") -> list[str]:
    """Return the volumes of a GlusterFS whose daemons talk to each other without TLS."""
    if os.path.exists(f"{workdir}/secure-access") or not os.path.isdir(f"{workdir}/vols"):
        return []
    return sorted(os.listdir(f"{workdir}/vols"))


def process_age() -> float:
    """Return for how many seconds this process has been running."""
    started = float(_text("/proc/self/stat").rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


class Node:
    """One look at the node this runs on."""

    def __init__(self, disks: Sequence[str], tang: Sequence[str], timeout: float, run: Run) -> None:
        self._disks = disks
        self._tang = tang
        self._timeout = timeout
        self._run = run

    def read(self) -> dict[str, Any]:
        """Return everything at once; the clock last, so that little time passes until the controller has it."""
        addresses = parse_addresses(self._run(ADDRESSES).stdout)
        interfaces = read_interfaces().items()
        memory = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines())
        node = {
            "hostname": socket.gethostname(),
            "release": parse_os_release(_text("/etc/os-release")),
            "root": os.geteuid() == 0,
            "memory_mib": int(memory["MemTotal"].split()[0]) // 1024,
            "kvm": os.path.exists("/dev/kvm"),
            "python_apt": find_spec("apt_pkg") is not None,
            "plain_volumes": plain_volumes(),
            "interfaces": {name: {**about, "addresses": addresses.get(name, [])} for name, about in interfaces},
            "disks": self._read_disks(),
            "tang_problems": {server: ask_tang(server, self._timeout) for server in self._tang},
            "tang_keys": any(Path(TANG_KEYS).glob("*.jwk")),
            "listening": sorted(parse_listening(_text("/proc/net/tcp")) | parse_listening(_text("/proc/net/tcp6"))),
        }
        return {**node, "process_age": round(process_age(), 3), "time": time.time()}

    def _read_disks(self) -> dict[str, dict[str, Any]]:
        present = {disk: os.path.realpath(disk) for disk in self._disks if os.path.exists(disk)}
        if not present:
            return {}
        signatures, unreadable = self._read_signatures(sorted(set(present.values())))
        disks = parse_disks(self._run(LSBLK).stdout, signatures, present)
        for disk in disks.values():
            disk["unreadable"] = unreadable.get(disk["kernel_name"], "")
            disk["block_size"] = _block_size(disk["kernel_name"])
            disk["luks"] = None
            if "crypto_LUKS" in disk["signatures"]:
                disk["luks"] = asdict(read_luks(disk["kernel_name"]))
        return disks

    def _read_signatures(self, devices: Iterable[str]) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
        """Read all disks with one process, or each with its own when one of them cannot be read."""
        try:
            return parse_signatures(self._run([*WIPEFS, *devices]).stdout), {}
        except CommandFailed:
            pass
        found: list[Mapping[str, Any]] = []
        unreadable: dict[str, str] = {}
        for device in devices:
            try:
                found += parse_signatures(self._run([*WIPEFS, device]).stdout)
            except CommandFailed as error:
                unreadable[device] = str(error)
        return found, unreadable
