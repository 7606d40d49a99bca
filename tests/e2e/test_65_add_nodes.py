# SPDX-License-Identifier: GPL-3.0-or-later
"""Three nodes become six, with guests that write all the while: for a computer with KVM, in a lab of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cluster import HOMES, Lab, changed, running_guests, wait_until_whole
from clusterlab import machines
from clusterlab.settings import machine
from growing import grow_below_a_guest

pytestmark = [pytest.mark.long, pytest.mark.six]

SIX = ["-i", "inventories/lab-six"]
NEW = ("node4", "node5", "node6")
ANYWAY = [*SIX, "-e", "running=true"]
BRICKS = "gluster --mode=script volume info gv0 | grep -c '^Brick[0-9]*:'"
MOMENTS = (("Form the trusted pool", 5), ("Provide the Gluster volumes", 8), ("Provide the Gluster volumes", 20))


def test_three_nodes_become_six(lab: Lab) -> None:
    assert lab.playbook("site.yml").rc == 0
    wait_until_whole(lab)
    argv = [sys.executable, "-m", "clusterlab", "up"]
    subprocess.run(argv, stdin=subprocess.DEVNULL, env={**os.environ, "LAB_NODES": "6"}, check=True, timeout=1500)
    machines.wait_for_ssh(lab.where, [machine(name) for name in NEW])

    refused = lab.playbook("add_nodes.yml", *SIX)
    assert refused.rc != 0 and "These machines run: g1, g2, g3. Bricks are added to gv0, gv1" in " ".join(
        refused.output.split()
    )
    planned = lab.playbook("add_nodes.yml", *ANYWAY, "--check")
    assert planned.rc == 0 and set(NEW) <= set(changed(planned))
    assert lab.out("node1", BRICKS) == "3"
    grow_below_a_guest(lab, ANYWAY, MOMENTS)

    assert lab.out("node1", BRICKS) == "6" and running_guests(lab) == HOMES
    for node in NEW:
        assert lab.ok(node, "mountpoint -q /srv/gv0 && test -s /srv/gv0/images/g1-vda.img")
    # New files go to the new bricks too.
    lab.out("node4", "mkdir -p /srv/gv1/spread && for n in $(seq 40); do echo $n > /srv/gv1/spread/$n; done")
    assert all(int(lab.out(node, "ls /bricks/gv1/brick/spread | wc -l")) > 0 for node in ("node1", "node4"))
    again = lab.playbook("add_nodes.yml", *SIX)
    assert again.rc == 0 and changed(again) == {}
