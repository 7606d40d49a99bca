# SPDX-License-Identifier: GPL-3.0-or-later
"""Each node gives one more disk to each volume, below guests that write. Comes last, like the one before."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from cluster import (
    HOMES,
    NODES,
    Lab,
    changed,
    guest_counter,
    longest_pause,
    lost_writes,
    running_guests,
    wait_until,
    wait_until_whole,
    writes_on,
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
    assert lab.fails("node1", "blkid /dev/loop9"), "check mode wrote to a disk"
    counted = {guest: guest_counter(lab, "node3", guest) for guest in HOMES}
    with longest_pause(lab, "node3", "g1"):
        die_at("add_nodes.yml", anyway, MOMENTS)
        done = lab.playbook("add_nodes.yml", *anyway, limit=3600)
        print(f"  the run that completed it took {done.seconds:.0f} s", flush=True)
        # Nodes that are busy to the last lose the open files of machines. That must be told, and no write be lost.
        reasons = {guest: lab.out(node, f"virsh domstate {guest} --reason") for guest, node in HOMES.items()}
        paused = [guest for guest, reason in reasons.items() if "I/O error" in reason]
        print(f"  machines that lost their open files: {paused}", flush=True)
        assert (done.rc == 0) is (paused == [])
        for guest in paused:
            assert f"virsh destroy {guest} && virsh start {guest}" in done.output
            lab.out(HOMES[guest], f"virsh destroy {guest} && virsh start {guest}")
        for guest in HOMES:
            wait_until(f"{guest} writes on", partial(writes_on, lab, "node3", guest, counted[guest]), 300)
            assert lost_writes(lab, "node3", guest) == []

    assert int(lab.out("node1", BRICKS)) == 2 * before and running_guests(lab) == HOMES
    # New files go to the new bricks too.
    lab.out("node3", "mkdir -p /srv/gv1/spread && for n in $(seq 40); do echo $n > /srv/gv1/spread/$n; done")
    for brick in ("gv1", "gv1b"):
        assert int(lab.out("node1", f"ls /bricks/{brick}/brick/spread | wc -l")) > 0
    if paused:
        assert lab.playbook("add_nodes.yml", *anyway).rc == 0
    again = lab.playbook("add_nodes.yml", *declared)
    assert again.rc == 0 and changed(again) == {}
