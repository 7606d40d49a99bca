# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is rebooted while its guest goes on elsewhere, and the run may die on the way."""

from __future__ import annotations

import pytest
from cluster import HOMES, Lab, changed, guest_counter, guest_running, running_guests, wait_until
from killing import run_and_kill

pytestmark = pytest.mark.long

NODE2 = ["--limit", "node2"]
MEMORY = "/var/lib/personal-cluster/reboot.json"


def boot(lab: Lab) -> str:
    return lab.out("node2", "cat /proc/sys/kernel/random/boot_id")


def test_a_run_that_dies_after_the_reboot_is_completed_without_another_one(lab: Lab) -> None:
    assert set(running_guests(lab)) == set(HOMES)
    planned = lab.playbook("reboot_nodes.yml", *NODE2, "--check", "-v")
    assert planned.rc == 0 and set(changed(planned)) == {"node2"}
    assert "migrate guest g2 live" in planned.output and guest_running(lab, "node2", "g2")

    before, counted = boot(lab), guest_counter(lab, "node1", "g2")
    assert run_and_kill("reboot_nodes.yml", NODE2, "Wait until its bricks are back and healed", 5)
    rebooted = boot(lab)
    assert rebooted != before and "g2" in lab.out("node2", f"cat {MEMORY}")
    assert not guest_running(lab, "node2", "g2")
    wait_until("g2 goes on elsewhere", lambda: guest_counter(lab, "node1", "g2") > counted, 240)

    again = lab.playbook("reboot_nodes.yml", *NODE2)
    assert again.rc == 0 and boot(lab) == rebooted
    assert guest_running(lab, "node2", "g2") and not lab.ok("node2", f"test -e {MEMORY}")
    # Neither way did it stop: it came as a running machine.
    assert lab.ok("node2", "pgrep -af 'guest=g2,' | grep -q -- -incoming")
    counted = guest_counter(lab, "node1", "g2")
    wait_until("g2 goes on at home", lambda: guest_counter(lab, "node1", "g2") > counted, 240)
    layer = lab.playbook("site.yml", "--tags", "hypervisor")
    assert layer.rc == 0 and changed(layer) == {}
