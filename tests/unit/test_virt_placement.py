# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node gets which guest."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.filter.placement import place_guests

G1 = {"name": "g1", "node": "node1", "memory": "1G"}
RUNNING = {"g1": {"state": "running"}}


def places(found: dict[str, Any], *guests: dict[str, Any]) -> dict[str, list[str]]:
    return {node: [it["name"] for it in items] for node, items in place_guests(guests or (G1,), found).items()}


def test_a_new_guest_goes_to_its_preferred_node_without_the_preference() -> None:
    assert place_guests([G1], {"node1": {}, "node2": {}}) == {"node1": [{"name": "g1", "memory": "1G"}], "node2": []}


def test_a_guest_stays_where_it_is() -> None:
    assert places({"node1": {}, "node2": RUNNING}) == {"node1": [], "node2": ["g1"]}


def test_a_guest_is_not_started_while_a_node_was_not_asked() -> None:
    assert places({"node1": {}, "node2": None}) == {"node1": [], "node2": []}
    assert places({"node1": RUNNING, "node2": None}) == {"node1": ["g1"], "node2": []}


def test_an_absent_guest_is_removed_where_it_is_and_made_nowhere() -> None:
    gone = {**G1, "state": "absent"}
    assert places({"node1": {}, "node2": RUNNING}, gone) == {"node1": [], "node2": ["g1"]}
    assert places({"node1": {}, "node2": {}}, gone) == {"node1": [], "node2": []}


def test_disks_to_delete_of_a_guest_that_is_nowhere_are_not_passed_over() -> None:
    # virt_domain warns of those that are there.
    gone = {**G1, "state": "absent", "delete_disks": ["/srv/gv0/images/g1-vda.img"]}
    assert places({"node1": {}, "node2": {}}, gone) == {"node1": ["g1"], "node2": []}
    assert places({"node1": {}, "node2": RUNNING}, gone) == {"node1": [], "node2": ["g1"]}
    assert places({"node1": {}, "node2": None}, gone) == {"node1": [], "node2": []}


@pytest.mark.parametrize(
    ("found", "guests", "message"),
    [
        ({"node1": RUNNING, "node2": {"g1": {"state": "shutdown"}}}, [G1], r"node1 \(running\), node2 \(shutdown\)"),
        ({"node1": {}}, [{**G1, "node": "node9"}], "its node node9 is none of node1"),
        ({"node1": {}}, [G1, G1], "declared twice"),
    ],
)
def test_what_cannot_be_placed_fails(found: dict[str, Any], guests: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        place_guests(guests, found)
