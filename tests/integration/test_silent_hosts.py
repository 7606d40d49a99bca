# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks end at the first host that does not answer: Ansible alone goes on with the next host, and the next play."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness import TOP

NODES = ("node1", "node2", "node3")
DISKS = [{"device": "/dev/disk/by-id/none", "volume": "gv0"}]


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """An inventory of hosts at a port of this computer at which nobody listens."""
    hosts = {node: {"cluster_disks": DISKS, "cluster_address": f"10.10.0.{node[-1]}"} for node in NODES}
    known = {"ansible_host": "127.0.0.1", "ansible_port": 1, "cluster_recovery_passphrase": "none that opens anything"}
    groups = {"nodes": {"hosts": hosts}, "tang": {"hosts": {"tang1": {}}}}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": known, "children": groups}}))
    return path


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (["reboot_nodes.yml"], {"node1"}, "The run ended at node1, for want of an answer. Nothing was done on node2"),
        (["encryption.yml"], {"tang1"}, "UNREACHABLE"),
        (["replace_disk.yml", "-e", "host=node2", "-e", "disk=gv0"], {"node1 -> node2"}, "UNREACHABLE"),
        (["add_nodes.yml"], {"node1"}, "UNREACHABLE"),
    ],
)
def test_nobody_is_asked_after_one_that_does_not_answer(
    silent: Path, words: list[str], asked: set[str], said: str
) -> None:
    tool = str(Path(sys.executable).parent / "ansible-playbook")
    argv = [tool, "-i", str(silent), f"playbooks/{words[0]}", *words[1:]]
    env = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        argv, cwd=TOP, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    output = " ".join(done.stdout.split()) + done.stderr
    silent_ones = {part.split("]")[0] for part in output.split("fatal: [")[1:] if "UNREACHABLE" in part[:60]}
    assert done.returncode != 0 and silent_ones == asked and said in output
