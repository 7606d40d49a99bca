# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's collector against real things: a FUSE mount that hangs, libvirt's test driver, openssl.

Needs the Debian packages python3-libvirt, libvirt0 and openssl, and root for the mount.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import needs

PROGRAM = Path(__file__).resolve().parents[2] / "roles/telemetry/files/personal_cluster_collect.py"
PYTHON = "/usr/bin/python3"
MNT_DETACH = 2


def collect(tmp_path: Path, **settings: Any) -> tuple[list[str], str]:
    """Run the collector as its unit does; return the lines of its file and what it said."""
    config = {
        "output": str(tmp_path / "out.prom"),
        "state_dir": str(tmp_path / "state"),
        "timeout": 10,
        "collectors": [],
        "volumes": [],
        "mounts": [],
        "devices": {},
        "header_backups": {},
        "tang_servers": [],
        "libvirt_uri": "test:///default",
        "certificates": [],
    }
    (tmp_path / "collect.json").write_text(json.dumps(config | settings))
    done = subprocess.run(
        [PYTHON, PROGRAM, tmp_path / "collect.json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.prom").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")], done.stderr


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system whose server never answers, as a Gluster client does that lost its bricks."""
    needs()
    path = tmp_path / "hung"
    path.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hung", str(path).encode(), b"fuse", 0, options) != 0:
        os.close(server)
        raise OSError(ctypes.get_errno(), "cannot mount a FUSE file system")
    try:
        yield path
    finally:
        libc.umount2(str(path).encode(), MNT_DETACH)
        os.close(server)


def test_hung_mount_is_reported_in_time_and_costs_nothing_else(tmp_path: Path, hung_mount: Path) -> None:
    started = time.monotonic()
    lines, said = collect(tmp_path, collectors=["mounts", "disks"], mounts=[str(hung_mount), "/dev"], timeout=2)
    assert time.monotonic() - started < 10
    assert f'personal_cluster_storage_mount_ok{{mount="{hung_mount}"}} 0' in lines
    assert 'personal_cluster_storage_mount_ok{mount="/dev"} 1' in lines
    assert 'personal_cluster_telemetry_collect_success{collector="disks"} 1' in lines
    assert "not finished after 2 s, killed" in said


def test_guests(tmp_path: Path) -> None:
    lines, _ = collect(tmp_path, collectors=["guests"])
    assert 'personal_cluster_hypervisor_guest_running{vm="test"} 1' in lines
    assert 'personal_cluster_hypervisor_guest_autostart{vm="test"} 0' in lines
    assert 'personal_cluster_hypervisor_guest_paused_io_error{vm="test"} 0' in lines


def test_certificate(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    subject = ["-subj", "/CN=node1", "-keyout", str(tmp_path / "key.pem"), "-out", str(path), "-days", "10"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], check=True, capture_output=True
    )
    lines, _ = collect(tmp_path, collectors=["certificates"], certificates=[str(path)])
    prefix = f'personal_cluster_telemetry_certificate_expiry_timestamp_seconds{{path="{path}"}} '
    ends = next(float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix))
    assert abs(ends - time.time() - 10 * 86400) < 120


def test_missing_layers_are_failed_jobs_not_a_failed_run(tmp_path: Path) -> None:
    lines, said = collect(
        tmp_path,
        collectors=["gluster", "guests", "certificates"],
        libvirt_uri="qemu+unix:///system?socket=/does/not/exist",
        certificates=["/does/not/exist"],
    )
    for job in ("guests", "certificates"):
        assert f'personal_cluster_telemetry_collect_success{{collector="{job}"}} 0' in lines
        assert f"{job}: " in said
    assert any(line.startswith("personal_cluster_telemetry_collect_timestamp_seconds ") for line in lines)


def test_output_is_what_prometheus_accepts(tmp_path: Path) -> None:
    collect(tmp_path, collectors=["guests", "mounts", "disks"], mounts=["/dev"], devices={"gv0": "/dev/mapper/x"})
    with open(tmp_path / "out.prom") as text:
        done = subprocess.run(["promtool", "check", "metrics"], stdin=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
