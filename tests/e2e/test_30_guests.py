# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests run, VLANs keep them apart, and a live migration loses nothing."""

from __future__ import annotations

from functools import partial

import pytest
from cluster import Lab, guest_counter, guest_running, wait_until

HOME = {"g1": "node1", "g2": "node2", "g3": "node3"}
ADDRESS = {"g1": "10.20.1.1", "g2": "10.20.1.2", "g3": "10.20.1.3"}


@pytest.mark.parametrize("guest", sorted(HOME))
def test_a_guest_runs_where_it_was_declared_and_writes(lab: Lab, guest: str) -> None:
    node = HOME[guest]
    assert guest_running(lab, node, guest)
    before = wait_until(f"{guest} writes", lambda: guest_counter(lab, node, guest), 900)
    assert wait_until(f"{guest} goes on", lambda: guest_counter(lab, node, guest) > before, 120)


def reached(lab: Lab, node: str, guest: str) -> bool:
    """Tell whether a guest answers a host that stands on its node in the VLAN given by the port ``e2e``."""
    return lab.ok(node, f"ping -c 3 -W 10 -I e2e {ADDRESS[guest]}", limit=90)


@pytest.mark.parametrize(("tag", "answering", "silent"), [(101, ("g1", "g2"), "g3"), (102, ("g3",), "g1")])
def test_vlans_reach_across_nodes_and_not_across_each_other(
    lab: Lab, tag: int, answering: tuple[str, ...], silent: str
) -> None:
    # A port of its own on node1: its frames cross the physical switch to the other nodes' guests.
    lab.out("node1", f"ovs-vsctl add-port vlans e2e tag={tag} -- set Interface e2e type=internal")
    try:
        lab.out("node1", "ip addr add 10.20.1.250/24 dev e2e && ip link set e2e up")
        for guest in answering:
            assert wait_until(f"{guest} answers in VLAN {tag}", partial(reached, lab, "node1", guest), 180)
        assert not reached(lab, "node1", silent), f"{silent} answers in VLAN {tag}, which is not its own"
    finally:
        lab.out("node1", "ovs-vsctl --if-exists del-port vlans e2e")


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
