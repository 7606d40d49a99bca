# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is rebooted while its guest goes on elsewhere; the run dies in each of its steps."""

from __future__ import annotations

import pytest
from cluster import (
    HOMES,
    NODES,
    Lab,
    changed,
    guest_counter,
    guest_running,
    longest_pause,
    lost_writes,
    running_guests,
    wait_until,
    writes_on,
)
from killing import run_and_kill

pytestmark = pytest.mark.long

NODE2 = ["--limit", "node2"]
MEMORY = "/var/lib/personal-cluster/reboot.json"


def boot(lab: Lab) -> str:
    return lab.out("node2", "cat /proc/sys/kernel/random/boot_id")


def goes_on(lab: Lab, count: int) -> bool:
    """Tell whether g2 is on one node alone, and writes there."""
    there = [node for node in NODES if lab.ok(node, "virsh list --name | grep -qx g2")]
    return len(there) == 1 and guest_running(lab, there[0], "g2") and writes_on(lab, "node1", "g2", count)


def test_a_run_that_dies_is_completed_and_reboots_once(lab: Lab) -> None:
    assert set(running_guests(lab)) == set(HOMES)
    planned = lab.playbook("reboot_nodes.yml", *NODE2, "--check", "-v")
    assert planned.rc == 0 and set(changed(planned)) == {"node2"}
    assert "migrate guest g2 live" in planned.output and guest_running(lab, "node2", "g2")

    before, counted = boot(lab), guest_counter(lab, "node1", "g2")
    with longest_pause(lab, "node1", "g2"):
        assert run_and_kill("reboot_nodes.yml", NODE2, "Move the guests away", 4)
        wait_until("g2 goes on after a kill in its migration", lambda: goes_on(lab, counted), 300)
        assert boot(lab) == before and lost_writes(lab, "node1", "g2") == []
        assert run_and_kill("reboot_nodes.yml", NODE2, "Wait until its bricks are back and healed", 5)
        rebooted = boot(lab)
        assert rebooted != before and "g2" in lab.out("node2", f"cat {MEMORY}")
        assert not guest_running(lab, "node2", "g2")
        wait_until("g2 goes on elsewhere", lambda: goes_on(lab, counted), 240)

        assert run_and_kill("reboot_nodes.yml", NODE2, "Bring its guests home", 4)
        counted = guest_counter(lab, "node1", "g2")
        wait_until("g2 goes on after a kill on its way home", lambda: goes_on(lab, counted), 300)
        again = lab.playbook("reboot_nodes.yml", *NODE2)
    assert again.rc == 0 and boot(lab) == rebooted
    assert guest_running(lab, "node2", "g2") and lab.fails("node2", f"test -e {MEMORY}")
    # Neither way did it stop: it came as a running machine.
    assert lab.ok("node2", "pgrep -af '[g]uest=g2,' | grep -q -- -incoming")
    counted = guest_counter(lab, "node1", "g2")
    wait_until("g2 goes on at home", lambda: goes_on(lab, counted), 240)
    assert lost_writes(lab, "node1", "g2") == []
    layer = lab.playbook("site.yml", "--tags", "hypervisor")
    assert layer.rc == 0 and changed(layer) == {}
