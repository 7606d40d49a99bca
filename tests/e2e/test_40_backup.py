# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest is backed up while it writes, loses its disk, and comes back from the backup."""

from __future__ import annotations

from cluster import Lab, guest_counter, guest_running, image, lost_writes, wait_until

IMAGE = image("g2")
MARKER = "precious-and-not-made-twice"


def test_a_destroyed_guest_comes_back_with_its_marker(lab: Lab) -> None:
    # A record that the guest itself never writes: it can only come back from the backup.
    put = f"dd of={IMAGE} bs=512 seek=100 conv=notrunc,fsync status=none"
    lab.out("node2", f"printf '%-512s' {MARKER} | {put}")
    before = guest_counter(lab, "node2", "g2")
    said = lab.out("node2", "personal-cluster-backup run --vm g2", limit=600)
    assert "g2: captured live, frozen" in said
    wait_until("g2 goes on after its backup", lambda: guest_counter(lab, "node2", "g2") > before, 60)

    lab.out("node2", "virsh destroy g2")
    lab.out("node2", f"rm {IMAGE}")
    outcome = lab.playbook("restore_vm.yml", "-e", "vm=g2")
    assert outcome.rc == 0
    assert MARKER in lab.out("node2", f"dd if={IMAGE} bs=512 skip=100 count=1 status=none")
    assert guest_running(lab, "node2", "g2")
    first = wait_until("g2 writes again", lambda: guest_counter(lab, "node2", "g2"), 240)
    assert first >= before
    assert wait_until("g2 goes on", lambda: guest_counter(lab, "node2", "g2") > first, 60)
    assert lost_writes(lab, "node2", "g2") == []


def test_restoring_over_a_running_guest_is_refused(lab: Lab) -> None:
    outcome = lab.playbook("restore_vm.yml", "-e", "vm=g2")
    assert outcome.rc != 0 and "shut it down first" in outcome.output
    assert guest_running(lab, "node2", "g2")


def test_a_node_that_is_up_is_not_left_out(lab: Lab) -> None:
    outcome = lab.playbook("restore_vm.yml", "-e", "vm=g2", "--limit", "!node2")
    assert outcome.rc != 0 and "node2 is left out of this run and up" in " ".join(outcome.output.split())
    assert guest_running(lab, "node2", "g2") and lab.fails("node1", "virsh dominfo g2")
