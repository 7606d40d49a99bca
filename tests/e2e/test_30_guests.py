# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests run, VLANs keep them apart, and a live migration loses nothing."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from cluster import (
    ADDRESSES,
    HOMES,
    NODES,
    Lab,
    changed,
    differences,
    guest_counter,
    guest_pings,
    guest_running,
    image,
    wait_until,
)
from clusterlab import machines


@pytest.mark.parametrize("guest", HOMES)
def test_a_guest_runs_where_it_was_declared_and_writes(lab: Lab, guest: str) -> None:
    node = HOMES[guest]
    assert guest_running(lab, node, guest)
    before = wait_until(f"{guest} writes", lambda: guest_counter(lab, node, guest), 240)
    assert wait_until(f"{guest} goes on", lambda: guest_counter(lab, node, guest) > before, 60)


def test_guests_of_a_vlan_reach_each_other_across_nodes(lab: Lab) -> None:
    wait_until("g1 reaches g2", partial(guest_pings, lab, "node1", "g1", ADDRESSES["g2"]), 120)


@contextmanager
def port(lab: Lab, node: str, tag: int, address: str) -> Iterator[None]:
    """Give a node a port of its own in a VLAN, as if a guest stood there."""
    lab.out(node, f"ovs-vsctl add-port vlans e2e tag={tag} -- set Interface e2e type=internal")
    try:
        lab.out(node, f"ip addr add {address}/24 dev e2e && ip link set e2e up")
        yield
    finally:
        lab.out(node, "ovs-vsctl --if-exists del-port vlans e2e")


def test_guests_of_different_vlans_do_not_reach_each_other(lab: Lab) -> None:
    # g3 answers in its own VLAN across nodes: its silence towards the others is the VLAN's doing.
    with port(lab, "node1", 102, "10.20.1.250"):
        wait_until(
            "g3 answers in VLAN green",
            lambda: lab.ok("node1", f"ping -c 3 -W 10 -I e2e {ADDRESSES['g3']}", limit=90),
            120,
        )
    assert not guest_pings(lab, "node1", "g1", ADDRESSES["g3"])
    assert not guest_pings(lab, "node3", "g3", ADDRESSES["g2"])


@contextmanager
def watched(lab: Lab, node: str, guest: str) -> Iterator[list[int]]:
    """Read the guest's counter once a second on ``node`` through the volume; the list is filled at the end."""
    seen: list[int] = []
    read = f"dd if={image(guest)} bs=512 count=1 iflag=direct status=none | tr -d '\\0'"
    loop = f"while sleep 1; do {read} | sed -n 's/.*counter=\\([0-9]*\\).*/\\1/p' || break; done"
    argv = machines.ssh_argv(lab.where, node, f"timeout 900 sh -c {shlex.quote(loop)}")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        try:
            yield seen
        finally:
            watcher.terminate()
            seen += [int(line) for line in watcher.stdout if line.strip()]


def test_a_live_migration_never_sets_the_counter_back(lab: Lab) -> None:
    with watched(lab, "node3", "g1") as seen:
        outcome = lab.playbook("migrate_vm.yml", "-e", "vm=g1", "-e", "to=node2")
        assert outcome.rc == 0
        assert guest_running(lab, "node2", "g1") and not guest_running(lab, "node1", "g1")
        arrived = guest_counter(lab, "node2", "g1")
        wait_until("g1 goes on after its migration", lambda: guest_counter(lab, "node2", "g1") > arrived + 2, 120)
    print("counter while it migrated:", seen[0], "to", seen[-1], "in", len(seen), "readings")
    assert len(seen) > 10 and seen == sorted(seen) and seen[-1] > seen[0]
    assert guest_pings(lab, "node2", "g1", ADDRESSES["g2"])


def test_a_second_run_changes_nothing_and_leaves_a_migrated_guest_where_it_is(lab: Lab) -> None:
    outcome = lab.playbook("site.yml", "--diff")
    print("module executions:", outcome.executions(), "layers:", outcome.layers())
    assert outcome.rc == 0 and changed(outcome) == {} and set(NODES) <= set(outcome.hosts)
    assert differences(outcome) == []
    assert guest_running(lab, "node2", "g1")
