# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests run, VLANs keep them apart, and a live migration loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from cluster import Lab, guest_counter, guest_running, wait_until

pytestmark = pytest.mark.long

HOME = {"g1": "node1", "g2": "node2"}
ADDRESS = {"g1": "10.20.1.1", "g2": "10.20.1.2"}


@pytest.fixture(scope="module", autouse=True)
def started(lab: Lab) -> None:
    """Start both guests side by side: each takes minutes until it is up."""
    for guest, node in HOME.items():
        if not guest_running(lab, node, guest):
            lab.out(node, f"virsh start {guest}")


@pytest.mark.parametrize("guest", sorted(HOME))
def test_a_guest_runs_where_it_was_declared_and_writes(lab: Lab, guest: str) -> None:
    node = HOME[guest]
    before = wait_until(f"{guest} writes", lambda: guest_counter(lab, node, guest), 1500)
    assert wait_until(f"{guest} goes on", lambda: guest_counter(lab, node, guest) > before, 120)


@contextmanager
def port(lab: Lab, node: str, tag: int, address: str) -> Iterator[None]:
    """Give a node a port of its own in a VLAN, as if a guest stood there."""
    lab.out(node, f"ovs-vsctl add-port vlans e2e tag={tag} -- set Interface e2e type=internal")
    try:
        lab.out(node, f"ip addr add {address}/24 dev e2e && ip link set e2e up")
        yield
    finally:
        lab.out(node, "ovs-vsctl --if-exists del-port vlans e2e")


def reached(lab: Lab, node: str, address: str) -> bool:
    return lab.ok(node, f"ping -c 3 -W 10 -I e2e {address}", limit=90)


def test_guests_of_a_vlan_answer_across_nodes(lab: Lab) -> None:
    # node3 holds neither guest: both answers cross the physical switch with their tag.
    with port(lab, "node3", 101, "10.20.1.250"):
        for guest, address in ADDRESS.items():
            wait_until(f"{guest} answers in its VLAN", partial(reached, lab, "node3", address), 180)


def test_another_vlan_of_the_same_switch_does_not_reach_them(lab: Lab) -> None:
    with port(lab, "node1", 102, "10.20.1.251"), port(lab, "node3", 102, "10.20.1.250"):
        wait_until("the VLAN itself works between nodes", partial(reached, lab, "node3", "10.20.1.251"), 60)
        for guest, address in ADDRESS.items():
            assert not reached(lab, "node3", address), f"{guest} answers in a VLAN that is not its own"


def test_a_live_migration_never_sets_the_counter_back(lab: Lab) -> None:
    before = guest_counter(lab, "node1", "g1")
    outcome = lab.playbook("migrate_vm.yml", "-e", "vm=g1", "-e", "to=node2")
    assert outcome.rc == 0
    assert guest_running(lab, "node2", "g1") and not guest_running(lab, "node1", "g1")
    after = guest_counter(lab, "node2", "g1")
    assert after >= before
    assert wait_until("g1 goes on after its migration", lambda: guest_counter(lab, "node2", "g1") > after, 180)
    # It stays where it is: the layer's own playbook does not drag it back, and finds nothing to change.
    assert lab.playbook("migrate_vm.yml", "-e", "vm=g1", "-e", "to=node1").rc == 0
    assert guest_running(lab, "node1", "g1") and guest_counter(lab, "node1", "g1") >= after
