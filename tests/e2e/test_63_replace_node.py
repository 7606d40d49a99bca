# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is lost with all its disks, another one takes its name and place, and the guests of the others write on."""

from __future__ import annotations

import shutil

import pytest
from cluster import (
    HOMES,
    Lab,
    brick_contents,
    changed,
    guest_counter,
    longest_pause,
    running_guests,
    wait_until,
    wait_until_whole,
)
from killing import die_at

pytestmark = pytest.mark.long

ASKED = ["-e", "host=node3"]
MOMENTS = (
    ("Give the node its identity back", 3),
    ("Give the node its identity back", 20),
    ("Provide the Gluster volumes", 8),
    ("Run the guests that belong here", 5),
)


def test_a_node_that_was_installed_anew_takes_its_place_again(lab: Lab) -> None:
    wait_until_whole(lab)
    counted = guest_counter(lab, "node1", "g3")
    with longest_pause(lab, "node2", "g1"):
        lab.kill("node3")
        shutil.rmtree(lab.where.disks / "node3")
        lab.power_on("node3")
        lab.wait_for_ssh("node3")

        unknown = lab.playbook("replace_node.yml", "-e", "host=node9")
        assert unknown.rc != 0 and "with NODE one of node1, node2, node3" in " ".join(unknown.output.split())
        planned = lab.playbook("replace_node.yml", *ASKED, "--check")
        assert planned.rc == 0 and set(changed(planned)) == {"node3"}
        assert lab.fails("node3", "test -e /etc/ssl/personal-cluster/node.pem")

        die_at("replace_node.yml", ASKED, MOMENTS)
        done = lab.playbook("replace_node.yml", *ASKED)
        assert done.rc == 0
        print(f"  the run that completed it took {done.seconds:.0f} s")

    wait_until("all guests run at home", lambda: running_guests(lab) == HOMES, 600)
    wait_until("g3 goes on where it was", lambda: guest_counter(lab, "node1", "g3") > counted, 300)
    wait_until_whole(lab)
    found = brick_contents(lab)
    assert "./images/g3-vda.img" in found["node3"] or "./.shard/" in found["node3"]
    assert found["node1"] == found["node2"] == found["node3"]
    again = lab.playbook("replace_node.yml", *ASKED)
    assert again.rc == 0 and changed(again) == {}
