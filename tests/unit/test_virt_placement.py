# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node gets which guest."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.filter.placement import place_guests, spread_guests

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


POOLS = [{"name": "gv0", "path": "/srv/gv0/images"}, {"name": "bmv0", "path": "/srv/bmv0/images"}]
LOCAL = ["/srv/bmv0"]
GV0 = {"pool": "gv0", "name": "x.img"}
BMV0 = {"pool": "bmv0", "name": "x.img"}
IMAGE = "/srv/gv0/images/x.img"


def with_image(name: str, node: str, *disks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "node": node, "disks": list(disks), **more}


def has(path: str, device: str = "disk") -> dict[str, Any]:
    return {"other": {"state": "running", "disks": {"vda": {"file": path, "device": device}}}}


def test_a_shared_image_is_not_deleted_while_a_node_was_not_asked() -> None:
    gone = {**G1, "state": "absent", "delete_disks": [IMAGE, "/srv/bmv0/images/g1.img"]}
    with pytest.raises(
        AnsibleFilterError, match="guest g1: /srv/gv0/images/x.img is not deleted while node2"
    ) as caught:
        place_guests([gone], {"node1": RUNNING, "node2": None}, POOLS, LOCAL)
    assert "bmv0" not in str(caught.value)
    assert place_guests([gone], {"node1": RUNNING, "node2": {}}, POOLS, LOCAL)["node1"]


@pytest.mark.parametrize(
    ("found", "guests", "message"),
    [
        (
            {},
            [with_image("a", "node1", GV0), with_image("b", "node2", GV0)],
            f"{IMAGE} is an image of the guests a, b;",
        ),
        (
            {},
            [with_image("a", "node1", GV0), with_image("b", "node2", {"path": IMAGE})],
            f"{IMAGE} is an image of the guests a, b;",
        ),
        (
            {},
            [
                with_image("a", "node1", {"pool": "gv0"}),
                with_image("b", "node2", {"path": "/srv/gv0/images//a-vda.img"}),
            ],
            "a-vda.img is an image of the guests a, b;",
        ),
        ({}, [with_image("a", "node1", BMV0), with_image("b", "node1", BMV0)], "/srv/bmv0/images/x.img is an image of"),
        # What libvirt has counts too, declared or not.
        ({"node2": has(IMAGE)}, [with_image("a", "node1", GV0)], "guests a, other;"),
        ({"node1": RUNNING | has(IMAGE)}, [with_image("g1", "node2", GV0)], "guests g1, other;"),
        # Neither is an image deleted that another guest has or gets.
        (
            {"node1": {"a": {"state": "shutdown"}}},
            [with_image("a", "node1", state="absent", delete_disks=[IMAGE]), with_image("b", "node2", GV0)],
            "guests a, b;",
        ),
        (
            {"node1": {"a": {"state": "shutdown"}}, "node2": has(IMAGE)},
            [with_image("a", "node1", state="absent", delete_disks=[IMAGE])],
            "guests a, other;",
        ),
    ],
)
def test_an_image_belongs_to_one_guest(found: dict[str, Any], guests: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as caught:
        place_guests(guests, {"node1": {}, "node2": {}, **found}, POOLS, LOCAL)
    assert str(caught.value).count("hypervisor_local_dirs") == 1


def test_what_is_not_the_same_image_is_no_conflict() -> None:
    found = {"node1": {}, "node2": has("/srv/bmv0/images/x.img") | {"b": has(IMAGE)["other"]}}
    disc = {"path": "/srv/gv0/iso/debian.iso", "device": "cdrom"}
    guests = [
        with_image("a", "node1", BMV0, disc),
        with_image("b", "node2", GV0, disc),
        with_image("gone", "node1", GV0, state="absent"),
        with_image("c", "node1", {"pool": "gv0"}),
        with_image("d", "node1", {"pool": "gv0"}),
    ]
    assert len(place_guests(guests, found, POOLS, LOCAL)["node1"]) == 3
    same = {"node1": {"other": has(IMAGE)["other"]}, "node2": {"more": has(IMAGE)["other"]}}
    assert place_guests([with_image("a", "node1", BMV0)], same, POOLS, LOCAL)["node1"]


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


def test_guests_are_shared_out_in_turn() -> None:
    shared = spread_guests(["a", "b", "c"], ["node2", "node3"], {"node2": "10.10.0.12", "node3": "10.10.0.13"})
    assert [(guest["name"], guest["to"], guest["address"]) for guest in shared] == [
        ("a", "node2", "10.10.0.12"),
        ("b", "node3", "10.10.0.13"),
        ("c", "node2", "10.10.0.12"),
    ]
    assert spread_guests([], ["node2"], {}) == []
