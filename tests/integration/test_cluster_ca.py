# SPDX-License-Identifier: GPL-3.0-or-later
"""cluster_ca as the role runs it: by Ansible, with the controller's own Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import TOP

NODES: list[dict[str, Any]] = [
    {"name": "node1", "addresses": ["10.10.0.11"]},
    {"name": "node2", "addresses": "10.10.0.12"},
]


def cluster_ca(directory: Path, nodes: list[dict[str, Any]], *, check: bool = False) -> tuple[dict[str, Any], str]:
    """Return the module's result, and everything that Ansible printed at its most talkative."""
    ansible = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert ansible
    params = {"directory": str(directory), "cluster": "lab", "nodes": nodes}
    argv = [ansible, "localhost", "-i", "localhost,", "-c", "local", "--diff", "-vvv", "--one-line"]
    argv += ["-m", "personal.cluster.cluster_ca", "-a", json.dumps(params)]
    argv += ["-e", f"ansible_python_interpreter={sys.executable}", *(["--check"] if check else [])]
    environ = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        argv, cwd=TOP, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    line = next(line for line in done.stdout.splitlines() if " => " in line)
    result: dict[str, Any] = json.loads(line.split(" => ", 1)[1])
    return result, done.stdout + done.stderr


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_check_run_second_run_and_refusal(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "tls"
    check, _output = cluster_ca(directory, NODES, check=True)
    assert not directory.exists()
    run, output = cluster_ca(directory, NODES)
    assert check["actions"] == run["actions"]
    assert len(run["actions"]) == 4
    for key in directory.rglob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
        assert not any(line in output for line in key.read_text().splitlines())
    before = content(directory)
    again, _output = cluster_ca(directory, NODES)
    assert (again["changed"], again["actions"]) == (False, [])
    (directory / "ca.key").rename(tmp_path / "ca.key")
    refused, _output = cluster_ca(directory, NODES)
    assert "its key ca.key is not; restore it from your backup" in refused["msg"]
    (tmp_path / "ca.key").rename(directory / "ca.key")
    assert content(directory) == before
