# SPDX-License-Identifier: GPL-3.0-or-later
"""Each node gives one more disk to each volume, below guests that write. Comes last, like the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster import (
    HOMES,
    NODES,
    Lab,
    changed,
    guest_counter,
    longest_pause,
    running_guests,
    wait_until,
    wait_until_whole,
)
from killing import die_at
from test_70_size import LOOPS, attach, grown

pytestmark = pytest.mark.long

NEW = {9: ("gv0", "gv0b"), 10: ("gv1", "gv1b")}
BRICKS = "gluster --mode=script volume info gv0 | grep -c '^Brick[0-9]*:'"
MOMENTS = (
    ("Encrypt, bind and open the data disks", 8),
    ("Provide the Gluster volumes", 8),
    ("Provide the Gluster volumes", 30),
)


def test_each_node_gives_one_more_disk(lab: Lab, tmp_path: Path) -> None:
    wait_until_whole(lab)
    inventory = tmp_path / "grown.json"
    # The scenario before leaves its disks and volumes; without it there are those of the lab alone.
    loops = {**(LOOPS if lab.ok("node1", "losetup /dev/loop0") else {}), **NEW}
    inventory.write_text(json.dumps(grown(loops)))
    declared = ["-e", f"@{inventory}"]
    anyway = [*declared, "-e", "running=true"]
    for node in NODES:
        attach(lab, node, loops)
    before = int(lab.out("node1", BRICKS))

    refused = lab.playbook("add_nodes.yml", *declared)
    said = " ".join(refused.output.split())
    assert refused.rc != 0 and "These machines run: g1, g2, g3. Bricks are added to gv0, gv1" in said
    planned = lab.playbook("add_nodes.yml", *anyway, "--check")
    assert planned.rc == 0 and set(NODES) <= set(changed(planned))
    assert int(lab.out("node1", BRICKS)) == before == len(NODES)
    assert not lab.ok("node1", "blkid /dev/loop9"), "check mode wrote to a disk"
    with longest_pause(lab, "node3", "g1"):
        die_at("add_nodes.yml", anyway, MOMENTS)
        done = lab.playbook("add_nodes.yml", *anyway, limit=3600)
        assert done.rc == 0
        print(f"  the run that completed it took {done.seconds:.0f} s", flush=True)
        counted = guest_counter(lab, "node3", "g1")
        wait_until("g1 writes on", lambda: guest_counter(lab, "node3", "g1") > counted, 120)

    assert int(lab.out("node1", BRICKS)) == 2 * before and running_guests(lab) == HOMES
    # New files go to the new bricks too.
    lab.out("node3", "mkdir -p /srv/gv1/spread && for n in $(seq 40); do echo $n > /srv/gv1/spread/$n; done")
    for brick in ("gv1", "gv1b"):
        assert int(lab.out("node1", f"ls /bricks/{brick}/brick/spread | wc -l")) > 0
    again = lab.playbook("add_nodes.yml", *declared)
    assert again.rc == 0 and changed(again) == {}
