# SPDX-License-Identifier: GPL-3.0-or-later
"""New keys for tang while guests write, a purge, and a disk that lost its header."""

from __future__ import annotations

from functools import partial

import pytest
from cluster import (
    HOMES,
    NODES,
    Lab,
    changed,
    guest_counter,
    mounted,
    running_guests,
    unlocked,
    wait_until,
    wait_until_whole,
)
from killing import die_at, run_and_kill

pytestmark = pytest.mark.long

KEYS = "/var/lib/tang"
ROTATION = ["-e", "rotation=2026-12"]
PURGE = [*ROTATION, "-e", "purge=true"]
HEADER = 16 * 2**20
# A disk that is being bound again has two bindings, and one is enough.
PROOF = """
for device in /dev/disk/by-id/virtio-gv0 /dev/disk/by-id/virtio-gv1 /dev/disk/by-id/virtio-bmv0; do
    for slot in $(clevis luks list -d $device | cut -d: -f1); do
        clevis luks pass -d $device -s $slot > /dev/null && continue 2
    done
    exit 1
done
"""
BMV0 = "/dev/disk/by-id/virtio-bmv0"


@pytest.fixture(autouse=True)
def whole(lab: Lab) -> None:
    """Each scenario begins with everything up, whatever the one before did."""
    wait_until_whole(lab)


def keys(lab: Lab, hidden: bool) -> set[str]:
    pattern = ".*.jwk" if hidden else "[!.]*.jwk"
    found = lab.out("tang1", f"find {KEYS} -name '{pattern}' -printf '%f\\n'").replace(".jwk", "").split()
    return {name.removeprefix(".") for name in found}


def counters(lab: Lab) -> dict[str, int]:
    return {guest: guest_counter(lab, "node1", guest) for guest in HOMES}


def went_on(lab: Lab, before: dict[str, int]) -> bool:
    return all(count > before[guest] for guest, count in counters(lab).items())


def proven(lab: Lab, node: str) -> bool:
    """Tell whether the bindings of a node unlock its disks, all three of them."""
    return lab.ok(node, PROOF, limit=240)


def test_a_rotation_is_killed_and_completed_while_guests_write(lab: Lab) -> None:
    assert set(running_guests(lab)) == set(HOMES)
    first, counted = keys(lab, hidden=False), counters(lab)
    planned = lab.playbook("rotate_tang.yml", *ROTATION, "--check")
    assert planned.rc == 0 and set(changed(planned)) == {"tang1", *NODES}
    assert keys(lab, hidden=False) == first, "check mode made keys"

    for task, delay in (("Make new keys and hide the old ones", 1), ("Encrypt, bind and open the data disks", 12)):
        assert run_and_kill("rotate_tang.yml", ROTATION, task, delay), f"never came to the task {task!r}"
        assert keys(lab, hidden=False), "tang has no key to advertise"
        assert all(proven(lab, node) for node in NODES), f"a disk is locked out after a kill in {task!r}"
    assert lab.playbook("rotate_tang.yml", *ROTATION).rc == 0
    assert keys(lab, hidden=True) == first and len(keys(lab, hidden=False)) == 2
    assert set(lab.out("tang1", "ls /var/backups/personal-cluster/tang").replace(".jwk", "").split()) == first
    assert all(proven(lab, node) for node in NODES)

    again = lab.playbook("rotate_tang.yml", *ROTATION)
    assert again.rc == 0 and changed(again) == {}
    layer = lab.playbook("site.yml", "--tags", "encryption")
    assert layer.rc == 0 and changed(layer) == {}
    assert keys(lab, hidden=True) == first
    wait_until("all guests went on writing", lambda: went_on(lab, counted), 240)


def test_a_purge_is_refused_while_a_node_is_off(lab: Lab) -> None:
    hidden = keys(lab, hidden=True)
    lab.kill("node3")
    refused = lab.playbook("rotate_tang.yml", *PURGE)
    assert refused.rc != 0 and "No answer from node3" in " ".join(refused.output.split())
    left_out = lab.playbook("rotate_tang.yml", *PURGE, "--limit", "!node3")
    assert left_out.rc != 0 and "without --limit: node3" in " ".join(left_out.output.split())
    assert keys(lab, hidden=True) == hidden and hidden
    lab.power_on("node3")
    lab.wait_for_ssh("node3")


def test_after_a_purge_a_node_unlocks_with_the_new_keys_alone(lab: Lab) -> None:
    purged = lab.playbook("rotate_tang.yml", *PURGE)
    assert purged.rc == 0 and changed(purged) == {"tang1": 1}
    assert keys(lab, hidden=True) == set() and len(keys(lab, hidden=False)) == 2
    again = lab.playbook("rotate_tang.yml", *PURGE)
    assert again.rc == 0 and changed(again) == {}
    lab.kill("node2")
    lab.power_on("node2")
    lab.wait_for_ssh("node2")
    wait_until("node2 unlocks its disks", partial(unlocked, lab, "node2"), 600)


def test_a_disk_gets_its_damaged_header_back(lab: Lab) -> None:
    die_at("escrow.yml", [], (("Fetch the headers", 2), ("Write the bundle", 2)))
    assert lab.playbook("escrow.yml").rc == 0
    again = lab.playbook("escrow.yml")
    assert again.rc == 0 and changed(again) == {}
    lab.out("node3", "echo precious > /srv/bmv0/e2e-precious && sync /srv/bmv0/e2e-precious")

    lab.kill("node3")
    with lab.disk("node3", "bmv0").open("r+b") as disk:
        disk.write(bytes(HEADER))
    lab.power_on("node3")
    lab.wait_for_ssh("node3")
    wait_until("node3 unlocks the others", lambda: lab.ok("node3", "ls /dev/mapper/luks-gv0 /dev/mapper/luks-gv1"), 600)
    assert lab.fails("node3", "test -e /dev/mapper/luks-bmv0")

    taken = lab.playbook("encryption.yml")
    assert taken.rc != 0 and "is a backup of the one that luks-bmv0 had" in " ".join(taken.output.split())
    asked = ["-e", "host=node3", "-e", "disk=bmv0"]
    wrong = lab.playbook("restore_header.yml", "-e", "host=node3", "-e", "disk=gv0")
    assert wrong.rc == 0 and changed(wrong) == {}, "an intact header was touched"
    planned = lab.playbook("restore_header.yml", *asked, "--check")
    assert planned.rc == 0 and changed(planned) == {"node3": 1}
    assert lab.fails("node3", f"cryptsetup isLuks {BMV0}"), "check mode wrote to the disk"
    die_at("restore_header.yml", asked, (("Bring it to the node", 2), ("Restore it", 2)))
    # The module goes on alone when its run is killed.
    done = lab.playbook("restore_header.yml", *asked)
    assert done.rc == 0 and set(changed(done)) <= {"node3"}
    again = lab.playbook("restore_header.yml", *asked)
    assert again.rc == 0 and changed(again) == {}
    assert lab.playbook("site.yml", "--tags", "encryption,storage").rc == 0
    wait_until("node3 mounts everything", partial(mounted, lab, "node3"), 600)
    assert lab.out("node3", "cat /srv/bmv0/e2e-precious") == "precious"
    assert not lab.run("node3", "ls /run/personal-cluster-*.header").stdout
