# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes become tang hosts for each other beside tang1; keys are rotated, and they unlock each other without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cluster import (
    HOMES,
    NODES,
    Lab,
    booted_well,
    changed,
    guest_counter,
    locked,
    lost_writes,
    mounted,
    unlocked,
    wait_until,
    wait_until_whole,
    writes_on,
)

pytestmark = pytest.mark.long

INVENTORY = """---
tang:
  hosts:
    node1:
    node2:
    node3:
"""
SERVERS = {"tang1": "10.10.0.10", "node1": "10.10.0.11", "node2": "10.10.0.12", "node3": "10.10.0.13"}
BINDING = "clevis luks list -d /dev/disk/by-id/virtio-{disk}"
THRESHOLD = ["-e", "encryption_tang_threshold=2"]
TOO_FEW = 120
ROTATION = ["-e", "rotation=peers"]
KEYS = "find /var/lib/tang -name '[!.]*.jwk' | sort"


@pytest.fixture
def peers(lab: Lab, tmp_path: Path) -> Iterator[list[str]]:
    """The options that make the nodes tang hosts; at the end the disks are bound to tang1 alone, as before."""
    wait_until_whole(lab)
    inventory = tmp_path / "peers.yml"
    inventory.write_text(INVENTORY)
    yield ["-i", str(inventory)]
    lab.link("tang1", "br0", up=True)
    lab.out("node2", "systemctl start tangd.socket")
    for node in NODES:
        wait_until(f"{node} is open", partial(unlocked, lab, node), 420)
    assert lab.playbook("encryption.yml").rc == 0
    for node in NODES:
        assert servers(lab, node, "gv0") == {"tang1"}
        lab.out(node, "systemctl disable --now tangd.socket && rm -r /var/lib/tang/*")


def servers(lab: Lab, node: str, disk: str) -> set[str]:
    """Return the hosts that a disk asks."""
    found = lab.out(node, BINDING.format(disk=disk))
    return {name for name, address in SERVERS.items() if f"http://{address}:7500" in found}


def test_nodes_unlock_each_other(lab: Lab, peers: list[str]) -> None:
    silent = lab.playbook("preflight.yml", *peers)
    assert silent.rc != 0 and "encryption_tang_threshold" in silent.output
    options = [*peers, *THRESHOLD]
    bound = lab.playbook("encryption.yml", *options)
    assert bound.rc == 0 and set(NODES) <= set(changed(bound))
    for node in NODES:
        for disk in ("gv0", "gv1", "bmv0"):
            assert servers(lab, node, disk) == set(SERVERS) - {node}
    again = lab.playbook("encryption.yml", *options)
    assert again.rc == 0 and changed(again) == {}

    old = {host: lab.out(host, KEYS) for host in SERVERS}
    rotated = lab.playbook("rotate_tang.yml", *options, *ROTATION)
    assert rotated.rc == 0 and set(SERVERS) <= set(changed(rotated))
    assert all(set(lab.out(host, KEYS).split()).isdisjoint(keys.split()) for host, keys in old.items())
    purged = lab.playbook("rotate_tang.yml", *options, *ROTATION, "-e", "purge=true")
    assert purged.rc == 0 and set(changed(purged)) == set(SERVERS)

    lab.link("tang1", "br0", up=False)
    lab.out("node2", "systemctl stop tangd.socket")
    lab.kill("node3")
    lab.power_on("node3")
    lab.wait_for_ssh("node3")
    closed_until = time.monotonic() + TOO_FEW
    while time.monotonic() < closed_until:
        assert locked(lab, "node3"), "one server of three opened a disk"
        time.sleep(10)
    lab.out("node2", "systemctl start tangd.socket")
    wait_until("node3 unlocks its disks without tang1", partial(unlocked, lab, "node3"), 420)
    wait_until("node3 mounts everything", partial(mounted, lab, "node3"), 300)
    wait_until_whole(lab)

    counted = {guest: guest_counter(lab, "node1", guest) for guest in HOMES}
    lab.kill(*NODES)
    lab.power_on(*NODES)
    lab.wait_for_ssh(*NODES)
    for node in NODES:
        wait_until(f"{node} unlocks its disks by the others", partial(unlocked, lab, node), 600)
        wait_until(f"{node} mounts everything", partial(mounted, lab, node), 600)
        assert booted_well(lab, node)
    wait_until_whole(lab)
    for guest, node in HOMES.items():
        wait_until(f"{guest} writes on", partial(writes_on, lab, node, guest, counted[guest]), 600)
        assert lost_writes(lab, node, guest) == []
