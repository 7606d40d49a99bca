# SPDX-License-Identifier: GPL-3.0-or-later
"""node_info on this computer: real lsblk, wipefs, cryptsetup, loop devices, sockets, as Ansible runs it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import needs, run_module

needs("cryptsetup", "losetup")


# Free-form arguments that are an empty mapping are no arguments to Ansible.
NOTHING: dict[str, Any] = {"disks": []}


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A blank disk, one with a filesystem, one with LUKS2: loop devices by what is on them."""
    loops: dict[str, str] = {}
    for name in ("blank", "ext4", "luks"):
        image = tmp_path / name
        with image.open("wb") as handle:
            handle.truncate(64 * 2**20)
        argv = ["losetup", "--find", "--show", str(image)]
        loops[name] = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["mkfs.ext4", "-q", loops["ext4"]], check=True)
    luks = ["cryptsetup", "luksFormat", "-q", "--type", "luks2", "--label", "luks-gv0", "--pbkdf", "pbkdf2"]
    luks += ["--pbkdf-force-iterations", "1000", loops["luks"], "-"]
    subprocess.run(luks, input="a passphrase", text=True, check=True)
    yield loops
    for device in loops.values():
        subprocess.run(["losetup", "--detach", device], check=True)


def test_real_disks_are_described_and_left_alone(disks: dict[str, str]) -> None:
    before = {name: Path(device).read_bytes() for name, device in disks.items()}
    result = run_module("node_info", {"disks": [*disks.values(), "/dev/disk/by-id/none"], "tang": ["127.0.0.1:9"]})
    found = result["node"]["disks"]
    assert result["changed"] is False
    assert set(found) == set(disks.values())
    assert {name: found[device]["signatures"] for name, device in disks.items()} == {
        "blank": [],
        "ext4": ["ext4"],
        "luks": ["crypto_LUKS"],
    }
    assert found[disks["luks"]]["luks"]["label"] == "luks-gv0"
    assert found[disks["blank"]]["size"] == 64 * 2**20
    assert "refused" in result["node"]["tang_problems"]["127.0.0.1:9"]
    assert {name: Path(device).read_bytes() for name, device in disks.items()} == before


def test_this_computers_clock_is_the_controllers() -> None:
    offset = run_module("node_info", NOTHING)["clock_offset"]
    assert offset["low"] <= 0.05
    assert offset["high"] >= -0.05


def test_check_mode_reads_the_same() -> None:
    check, run = run_module("node_info", NOTHING, check=True)["node"], run_module("node_info", NOTHING)["node"]
    for moving in ("time", "process_age", "listening"):
        check.pop(moving)
        run.pop(moving)
    assert check == run


@pytest.fixture
def tangd(tmp_path: Path) -> Iterator[str]:
    """A real tang server on loopback."""
    keys = tmp_path / "keys"
    keys.mkdir()
    subprocess.run(["/usr/libexec/tangd-keygen", str(keys)], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
    server = subprocess.Popen(["socat", listen, f"EXEC:/usr/libexec/tangd {keys}"], stderr=subprocess.DEVNULL)
    for _attempt in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


def test_real_tang_answers_at_once(tangd: str) -> None:
    started = time.monotonic()
    result = run_module("node_info", {"tang": [tangd], "timeout": 60})
    assert result["node"]["tang_problems"] == {tangd: ""}
    assert time.monotonic() - started < 50
