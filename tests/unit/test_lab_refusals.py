# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab says when it cannot go on: a sentence that names the thing and the remedy, and nothing half done."""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from clusterlab import __main__ as lab
from clusterlab import machines
from clusterlab.settings import LabError, machine, paths


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Short, for the sockets in it; and made here, since it is removed at the end.
    made = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    where = made / "lab"
    monkeypatch.setenv("LAB_DIR", str(where))
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    yield where
    shutil.rmtree(made)


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a verb that is refused and return what it said."""
    monkeypatch.setattr(sys, "argv", ["clusterlab", *words])
    assert lab.main() == 1
    return capsys.readouterr().err


def test_a_missing_tool(top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "vde_switch" else f"/usr/bin/{tool}")
    assert said(monkeypatch, capsys, "up") == "lab: missing tools; install them: apt-get install vde2\n"
    assert not top.exists()


def test_a_user_has_no_sbin_in_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    which = shutil.which
    monkeypatch.setenv("LAB_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda tool: which(tool) if tool == "mke2fs" else f"/usr/bin/{tool}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 0))
    assert "MiB free" in said(monkeypatch, capsys, "up")


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


def test_a_full_disk(top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 << 30, 95 << 30, 5 << 30))
    assert said(monkeypatch, capsys, "up") == (
        f"lab: {top} has 5120 MiB free, the lab needs {lab.FREE_MIB}; make room or set LAB_DIR elsewhere\n"
    )
    assert list(top.iterdir()) == []


def test_another_release_than_the_disks_have(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths().disks.mkdir(parents=True)
    paths().release_file.write_text("trixie")
    monkeypatch.setattr(lab, "_make_keys", lambda _where: None)
    assert "runs trixie, not bookworm; 'make lab-destroy' first" in said(
        monkeypatch, capsys, "up", "--release", "bookworm"
    )
    assert paths().release_file.read_text() == "trixie"


@pytest.mark.parametrize("words", [("up", "--plain"), ("up", "--plain", "--release", "trixie")])
def test_a_plain_lab_is_not_the_one_with_packages(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    paths().disks.mkdir(parents=True)
    paths().release_file.write_text("trixie")
    monkeypatch.setattr(lab, "_make_keys", lambda _where: None)
    assert "runs trixie, not trixie-plain" in said(monkeypatch, capsys, *words)


def test_a_port_in_use(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("LAB_PORT_BASE", str(port - machine("node1").number))
        with pytest.raises(LabError, match=rf"port {port} for node1 is in use; .* or set LAB_PORT_BASE"):
            machines.start(paths(), machine("node1"), paths().image("trixie"), "tcg")
    assert not paths().disks.exists()


@pytest.mark.parametrize("given", ["", "ssh", "-1", "22", "70000"])
def test_what_is_no_port(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    monkeypatch.setenv("LAB_PORT_BASE", given)
    assert f"LAB_PORT_BASE is {given!r}; use a port from 1024" in said(monkeypatch, capsys, "up", "--image-only")


def test_no_lab_yet(top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(monkeypatch, capsys, "start") == "lab: there is no lab yet; 'make lab' builds one\n"


def test_an_unknown_machine(top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no machine is called 'node7'; there are tang1, node1" in said(monkeypatch, capsys, "kill", "node7")


def test_a_directory_too_deep_for_a_socket(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_DIR", str(top / ("deep" * 20)))
    assert "set LAB_DIR to a shorter one" in said(monkeypatch, capsys, "status")


def test_only_what_is_the_labs_is_removed(top: Path) -> None:
    where = paths()
    for directory in (where.disks, where.run, where.saved, where.state, where.images, where.ssh, where.secrets):
        directory.mkdir(parents=True)
    mine = top / "thesis.odt"
    mine.write_text("years of work")
    lab.destroy(argparse.Namespace(everything=False), where)
    assert {item.name for item in top.iterdir()} == {"image", "ssh", "secrets", "thesis.odt"}
    lab.destroy(argparse.Namespace(everything=True), where)
    assert [item.name for item in top.iterdir()] == ["thesis.odt"]
    mine.unlink()
    lab.destroy(argparse.Namespace(everything=True), where)
    assert not top.exists()


def test_disks_are_made_whole_or_not_at_all(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        (paths().disks / "node1" / "new").write_text("half")
        raise KeyboardInterrupt

    node = machine("node1")
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machines.make_disks(paths(), node, paths().image("trixie"))
    (paths().disks / "node1" / "root.qcow2").write_text("made")
    machines.make_disks(paths(), node, paths().image("trixie"))
    sizes = {item.name: item.stat().st_size >> 20 for item in (paths().disks / "node1").glob("*.raw")}
    assert sizes == {f"{disk.serial}.raw": disk.size_mib for disk in node.disks}


def test_a_number_of_nodes_that_the_lab_does_not_have(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_NODES", "5")
    assert said(monkeypatch, capsys, "up") == "lab: LAB_NODES is '5'; use 6, or leave it out for 3\n"
    assert not top.exists()
