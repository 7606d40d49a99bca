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
DISKS = [{"device": f"/dev/disk/by-id/none-{volume}", "volume": volume} for volume in ("gv0", "gv1", "bmv0")]
# What is declared is in order: it is judged before anybody is asked.
DECLARED = {
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "cluster_name": "silent",
    "cluster_state_dir": "/nonexistent/state",
    "cluster_network": "10.10.0.0/24",
    "cluster_nics": {"br0": "eno1", "wan0": "eno2", "vlans": "eno3"},
    "cluster_recovery_passphrase": "none that opens anything",
    "cluster_backup_passphrase": "none that reads anything",
}


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """An inventory of hosts at a port of this computer at which nobody listens."""
    hosts = {node: {"cluster_disks": DISKS, "cluster_address": f"10.10.0.{node[-1]}"} for node in NODES}
    groups = {"nodes": {"hosts": hosts}, "tang": {"hosts": {"tang1": {"cluster_address": "10.10.0.10"}}}}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": DECLARED, "children": groups}}))
    return path


def run(inventory: Path, *words: str) -> tuple[bool, str, set[str]]:
    """Run a playbook; return whether it went well, what it said, and who was asked in vain."""
    tool = str(Path(sys.executable).parent / "ansible-playbook")
    argv = [tool, "-i", str(inventory), f"playbooks/{words[0]}", *words[1:]]
    env = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        argv, cwd=TOP, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    output = " ".join(done.stdout.split()) + done.stderr
    silent_ones = {part.split("]")[0] for part in output.split("fatal: [")[1:] if "UNREACHABLE" in part[:60]}
    return done.returncode == 0, output, silent_ones


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (["reboot_nodes.yml"], {"node1"}, "The run ended at node1, for want of an answer. Nothing was done on node2"),
        (["encryption.yml"], {"tang1"}, "UNREACHABLE"),
        (["replace_disk.yml", "-e", "host=node2", "-e", "disk=gv0"], {"node1 -> node2"}, "UNREACHABLE"),
        (["add_nodes.yml"], {"node1"}, "UNREACHABLE"),
        (["restore_vm.yml", "-e", "vm=web", "--limit", "!node2"], {"node1"}, "Ask a node which of the others answer"),
        (
            ["migrate_vm.yml", "-e", "vm=web", "-e", "to=node2"],
            set(NODES),
            "No answer from node1, node2, node3, which may have guest web too.",
        ),
    ],
)
def test_nobody_is_asked_after_one_that_does_not_answer(
    silent: Path, words: list[str], asked: set[str], said: str
) -> None:
    well, output, silent_ones = run(silent, *words)
    assert not well and silent_ones == asked and said in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["replace_disk.yml", "-e", "wait=1h", "-e", "compare=flase"], "wait is 1h; give a whole number"),
        (["restore_vm.yml", "-e", "vm=web", "-e", "strat=false", "-e", "sett=1"], "sett, strat: no option of this"),
        (["restore_vm.yml", "-e", '{"vm": "web", "x_y": 1, "later": true}'], "'later: no option of this playbook."),
    ],
)
def test_nobody_is_asked_before_it_is_known_what_is_wanted(silent: Path, words: list[str], said: str) -> None:
    well, output, silent_ones = run(silent, *words)
    assert not well and silent_ones == set() and said in output


@pytest.mark.parametrize("layer", ["base", "network", "encryption", "storage", "hypervisor", "backup", "telemetry"])
def test_nobody_is_asked_while_what_is_declared_is_wrong(silent: Path, layer: str) -> None:
    wrong = ["-e", "cluster_recovery_passphrase=<replace_me>", "-e", '{"cluster_vlans": [{"name": "a", "tag": 5000}]}']
    well, output, silent_ones = run(silent, f"{layer}.yml", *wrong)
    assert not well and silent_ones == set()
    assert "cluster_recovery_passphrase: it still holds a placeholder" in output and "5000 is no VLAN tag" in output
