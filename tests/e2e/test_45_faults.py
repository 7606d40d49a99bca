# SPDX-License-Identifier: GPL-3.0-or-later
"""What fails while a node runs: the process of a brick, and the cable."""

from __future__ import annotations

import time

import pytest
from cluster import (
    Lab,
    bricks_online,
    guest_counter,
    longest_pause,
    pending_heals,
    wait_until,
    wait_until_whole,
    writes_on,
)

PROCESS = "pgrep -f 'glusterfsd.*--brick-name /bricks/gv0/brick'"
# The process that serves the mount, and the mount itself.
CLIENT = "pgrep -f 'glusterfs .*/srv/gv0$'; awk '$5 == \"/srv/gv0\" {print $1}' /proc/self/mountinfo"
AWAY = 300


def test_a_brick_whose_process_crashed_runs_again(lab: Lab) -> None:
    before = lab.out("node3", PROCESS)
    with longest_pause(lab, "node2", "g2"):
        lab.out("node3", f"kill -SEGV {before}")
        wait_until("the other nodes miss a brick", lambda: bricks_online(lab, "node1") == 5, 120)
        wait_until("it runs again", lambda: bricks_online(lab, "node1") == 6, 420)
    wait_until("healed to zero", lambda: pending_heals(lab, "node1") == 0, 600)
    assert lab.out("node3", PROCESS) != before


@pytest.mark.long
def test_a_client_outlives_the_loss_of_its_quorum(lab: Lab) -> None:
    wait_until_whole(lab)
    before = lab.out("node3", CLIENT)
    assert len(before.split()) == 2
    counted = guest_counter(lab, "node1", "g3")
    with longest_pause(lab, "node1", "g1"):
        lab.link("node3", "br0", up=False)
        time.sleep(AWAY)
        lab.link("node3", "br0", up=True)
    wait_until_whole(lab)
    assert lab.out("node3", CLIENT) == before, "one that is used was unmounted"
    assert "has died" not in lab.out("node3", "journalctl -qb -u personal-cluster-mount-watch@gv0 -o cat")
    lab.out("node3", "virsh resume g3 || true")
    wait_until("g3 writes on", lambda: writes_on(lab, "node1", "g3", counted), 300)
