# SPDX-License-Identifier: GPL-3.0-or-later
"""Three nodes become six while the guests are shut down, as add_nodes.yml asks for: in a lab of its own, with KVM."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
from cluster import (
    HOMES,
    Lab,
    changed,
    guest_counter,
    lost_writes,
    running_guests,
    wait_until,
    wait_until_whole,
    writes_on,
)
from clusterlab import machines
from clusterlab.settings import machine
from killing import die_at

pytestmark = [pytest.mark.long, pytest.mark.six]

SIX = ["-i", "inventories/lab-six"]
NEW = ("node4", "node5", "node6")
BRICKS = "gluster --mode=script volume info gv0 | grep -c '^Brick[0-9]*:'"
LAYOUT = "gluster --mode=script volume info gv0 | grep -E '^Brick[0-9]|balance'"
# The run on node1 dies too; without its controller alone, it would add the bricks and end well.
END = "kill -9 $(cat /run/personal-cluster-gluster_volume.lock)"


@pytest.fixture
def built(lab: Lab) -> None:
    """The lab may have been booted for this scenario alone."""
    if not lab.ok("node1", "test -e /etc/ssl/personal-cluster"):
        assert lab.playbook("site.yml").rc == 0


@pytest.mark.usefixtures("built")
def test_three_nodes_become_six(lab: Lab) -> None:
    wait_until_whole(lab)
    argv = [sys.executable, "-m", "clusterlab", "up"]
    subprocess.run(argv, stdin=subprocess.DEVNULL, env={**os.environ, "LAB_NODES": "6"}, check=True, timeout=1500)
    machines.wait_for_ssh(lab.where, [machine(name) for name in NEW])

    refused = lab.playbook("add_nodes.yml", *SIX)
    assert refused.rc != 0 and "These machines run: g1, g2, g3. Bricks are added to gv0, gv1" in " ".join(
        refused.output.split()
    )
    for guest, node in HOMES.items():
        lab.out(node, f"virsh shutdown {guest}")
    wait_until("the guests are shut down", lambda: running_guests(lab) == {}, 180)
    counted = {guest: guest_counter(lab, "node1", guest) for guest in HOMES}
    planned = lab.playbook("add_nodes.yml", *SIX, "--check")
    assert planned.rc == 0 and set(NEW) <= set(changed(planned))
    assert lab.out("node1", BRICKS) == "3"
    die_at("add_nodes.yml", SIX, [("Form the trusted pool", 5)])
    for delay in (8, 20):
        die_at("add_nodes.yml", SIX, [("Provide the Gluster volumes", delay)])
        print(lab.run("node1", f"{END}; {LAYOUT}").stdout, flush=True)
    done = lab.playbook("add_nodes.yml", *SIX, limit=3600)
    assert done.rc == 0
    print(f"  the run that completed it took {done.seconds:.0f} s", flush=True)

    assert lab.out("node1", BRICKS) == "6" and running_guests(lab) == HOMES
    for guest in HOMES:
        wait_until(f"{guest} writes on", partial(writes_on, lab, "node4", guest, counted[guest]), 300)
        assert lost_writes(lab, "node4", guest) == []
    # New files go to the new bricks too.
    lab.out("node4", "mkdir -p /srv/gv1/spread && for n in $(seq 40); do echo $n > /srv/gv1/spread/$n; done")
    assert all(int(lab.out(node, "ls /bricks/gv1/brick/spread | wc -l")) > 0 for node in ("node1", "node4"))
    again = lab.playbook("add_nodes.yml", *SIX)
    assert again.rc == 0 and changed(again) == {}
