# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_info reads from real tools' output, real headers and real sockets."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.action.node_info import clock_offset
from ansible_collections.personal.cluster.plugins.module_utils._backends import node
from ansible_collections.personal.cluster.plugins.module_utils._errors import CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed, Runner

RECORDED = Path(__file__).parent / "recorded" / "node_info"
LSBLK_IMAGES = (RECORDED / "lsblk-bookworm-images.json").read_text()
WIPEFS_IMAGES = (RECORDED / "wipefs-bookworm-images.json").read_text()
IMAGES: dict[str, str] = json.loads((RECORDED / "images-bookworm.json").read_text())


def header(name: str) -> bytes:
    return gzip.decompress((RECORDED / f"{name}.header.gz").read_bytes())


def test_luks2_header() -> None:
    luks = node.parse_luks(header("luks2-bookworm"))
    assert luks == node.Luks(2, "other", "359f803c-b96e-4b4a-9004-153c1f86d128", False, 4096)


def test_luks1_header() -> None:
    luks = node.parse_luks(header("luks1-bookworm"))
    assert luks == node.Luks(1, "", "c3897a87-7ba4-4293-ac12-0e06f513ddd7", False)


def test_luks2_header_that_is_bound_to_tang() -> None:
    luks = node.parse_luks(header("luks2-clevis-trixie"))
    assert (luks.version, luks.label, luks.clevis, luks.sector_size) == (2, "luks-gv0", True, 512)
    bigger = header("luks2-clevis-trixie").replace(b'"sector_size":512', b'"sector_size":4096', 1)
    assert node.parse_luks(bigger).sector_size == 4096


def test_damaged_luks2_header_is_not_bound() -> None:
    damaged = bytearray(header("luks2-clevis-trixie"))
    damaged[4096] = ord("x")
    assert node.parse_luks(bytes(damaged)).clevis is False
    start = header("luks2-clevis-trixie")
    for about in (b'{"tokens":null}', b'{"segments":[]}', b'{"segments":{"0":{"sector_size":"x"}}}', b"[]"):
        assert node.parse_luks(start[:4096] + about + bytes(12288 - len(about))).sector_size == 512


def test_read_luks_takes_no_more_than_the_header(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(header("luks2-bookworm") + b"\xff" * 100000)
    assert node.read_luks(str(image)).label == "other"


def test_disks_of_debian_12() -> None:
    disks = node.parse_disks(LSBLK_IMAGES, node.parse_signatures(WIPEFS_IMAGES), IMAGES)
    assert {name: disk["signatures"] for name, disk in disks.items()} == {
        "blank": [],
        "xfs": ["xfs"],
        "ext4": ["ext4"],
        "gpt": ["PMBR", "gpt"],
        "lvm": ["LVM2_member"],
        "luks1": ["crypto_LUKS"],
        "luks2": ["crypto_LUKS"],
        "swap": ["swap"],
    }
    assert disks["xfs"]["size"] == 320 * 2**20
    assert disks["ext4"]["mounts"] != []
    assert disks["xfs"]["mounts"] == []


def test_everything_above_a_disk_is_a_holder_debian_13() -> None:
    text = (RECORDED / "lsblk-trixie-lvm.json").read_text()
    disks = node.parse_disks(text, [], {"lvm": "/dev/loop0", "root": "/dev/vda", "gone": "/dev/vdz"})
    assert "/dev/mapper/vg_t1-data" in disks["lvm"]["holders"]
    assert disks["root"]["mounts"] == ["/"]
    assert "gone" not in disks


def test_no_output_of_wipefs_is_no_signature() -> None:
    assert node.parse_signatures("") == []


def fake_run(answers: dict[str, str]) -> Callable[..., Completed]:
    def run(argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] == "lsblk":
            return Completed(0, LSBLK_IMAGES, "")
        if argv[0] == "ip":
            return Runner()(argv, **options)
        bad = [device for device in argv[3:] if device in answers]
        if bad:
            raise CommandFailed(answers[bad[0]])
        return Completed(0, WIPEFS_IMAGES if IMAGES["xfs"] in argv else "", "")

    return run


def test_volumes_without_tls(tmp_path: Path) -> None:
    assert node.plain_volumes(str(tmp_path)) == []
    (tmp_path / "vols" / "gv0").mkdir(parents=True)
    assert node.plain_volumes(str(tmp_path)) == ["gv0"]
    (tmp_path / "secure-access").touch()
    assert node.plain_volumes(str(tmp_path)) == []


def test_one_unreadable_disk_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    names = [IMAGES["blank"], IMAGES["xfs"]]
    looker = node.Node(names, [], 1.0, fake_run({IMAGES["blank"]: "Input/output error"}))
    disks = looker._read_disks()
    assert disks[IMAGES["blank"]]["unreadable"] == "Input/output error"
    assert disks[IMAGES["blank"]]["block_size"] in (512, 4096)
    assert disks[IMAGES["xfs"]]["signatures"] == ["xfs"]
    assert disks[IMAGES["xfs"]]["unreadable"] == ""


def test_os_release_debian_12() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
    assert node.parse_os_release(text) == {"id": "debian", "version_id": "12", "codename": "bookworm"}


def test_listening_ports() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 00000000:1D4C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
        "   1: 0100007F:0016 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n"
    )
    assert node.parse_listening(text) == {7500}


def test_interfaces(tmp_path: Path) -> None:
    for name, mac in (("eno1", "AA:BB:CC:00:00:01\n"), ("br0", "aa:bb:cc:00:00:01\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text(mac)
    (tmp_path / "eno1" / "device").mkdir()
    (tmp_path / "bonding_masters").write_text("")
    assert node.read_interfaces(str(tmp_path)) == {
        "br0": {"mac": "aa:bb:cc:00:00:01", "physical": False},
        "eno1": {"mac": "aa:bb:cc:00:00:01", "physical": True},
    }


def test_the_address_of_a_tunnel_is_that_of_this_end() -> None:
    found = node.parse_addresses((RECORDED / "ip-bookworm.json").read_text())
    assert found["lo"] == ["127.0.0.1", "::1"]
    assert (found["card"][0], found["other"]) == ("10.10.0.11", ["10.9.9.1"])


@pytest.fixture
def server() -> Iterator[Callable[[bytes | None], str]]:
    """A server on loopback that gives one answer, or none at all, to its first client."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    finished = threading.Event()

    def serve(answer: bytes | None) -> str:
        def once() -> None:
            client, _peer = listener.accept()
            with client:
                if answer is None:
                    finished.wait(5)
                    return
                client.recv(4096)
                client.sendall(answer)
                if b"Content-Length" in answer:  # like tang: answer, then wait for the next request
                    finished.wait(5)

        threads.append(threading.Thread(target=once))
        threads[0].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    finished.set()
    for thread in threads:
        thread.join(5)
    listener.close()


def test_tang_answers(server: Callable[[bytes | None], str]) -> None:
    body = b'{"payload":"eyJrZXlzIjpbXX0","signatures":[]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/jose+json\r\n"
    assert node.ask_tang(server(head + b"\r\n" + body), 2) == ""


def test_tang_keeps_the_connection_open(server: Callable[[bytes | None], str]) -> None:
    body = b'{"payload":"eyJrZXlzIjpbXX0","signatures":[]}'
    assert node.ask_tang(server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)), 1) == ""


def test_something_else_answers(server: Callable[[bytes | None], str]) -> None:
    assert "not tang (HTTP/1.1 404 Not Found)" in node.ask_tang(server(b"HTTP/1.1 404 Not Found\r\n\r\n"), 2)


def test_tang_hangs(server: Callable[[bytes | None], str]) -> None:
    assert "timed out" in node.ask_tang(server(None), 0.1)


def test_tang_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "refused" in node.ask_tang(f"127.0.0.1:{port}", 1)


@pytest.mark.parametrize("key", ["a.jwk", ".a.jwk", "personal-cluster.rotations"])
def test_keys_of_tang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str) -> None:
    (tmp_path / key).touch()
    monkeypatch.setattr(node, "TANG_KEYS", str(tmp_path))
    assert node.Node([], [], 1.0, fake_run({})).read()["tang_keys"] is key.endswith(".jwk")


def test_this_machine_as_a_whole() -> None:
    found = node.Node([], [], 1.0, fake_run({})).read()
    assert found["memory_mib"] > 100
    assert found["interfaces"]["lo"]["physical"] is False
    assert "127.0.0.1" in found["interfaces"]["lo"]["addresses"]
    assert 0 < found["process_age"] < 3600
    assert found["disks"] == {}


# The node is asked at 1000 by the controller's clock, its process is 2 s old when it reads its own clock, and the
# answer arrives at 1003: the controller's clock showed something between 1002 and 1003 at that moment.
@pytest.mark.parametrize(
    ("node_time", "expected"),
    [
        (1002.5, {"low": -0.5, "high": 0.5}),
        (1012.0, {"low": 9.0, "high": 10.0}),
        (902.0, {"low": -101.0, "high": -100.0}),
    ],
)
def test_clock_offset(node_time: float, expected: dict[str, float]) -> None:
    assert clock_offset(node_time, 2.0, 1000.0, 1003.0) == expected
