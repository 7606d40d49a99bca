# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk dies, a blank one takes its place, and a guest writes all the while."""

from __future__ import annotations

import re

import pytest
from cluster import HOMES, Lab, brick_contents, changed, longest_pause, running_guests, wait_until, wait_until_whole
from killing import die_at

pytestmark = pytest.mark.long

ASKED = ["-e", "host=node2", "-e", "disk=gv0"]
SNAPSHOT = "gluster --mode=script snapshot"
DEVICE = "/dev/disk/by-id/virtio-gv0"
MOMENTS = (
    ("Encrypt, bind and open the data disks", 6),
    ("Make and mount the filesystems of this node", 4),
    ("Provide the Gluster volumes", 4),
    ("Read the bricks", 2),
)


def flat(output: str) -> str:
    """Return the output as one line: Ansible breaks long messages."""
    return " ".join(output.split())


def test_a_blank_disk_takes_the_place_of_a_dead_one(lab: Lab) -> None:
    wait_until_whole(lab)
    lab.out("node1", f"{SNAPSHOT} create e2e-dead gv0 no-timestamp")
    with longest_pause(lab, "node3", "g1"):
        lab.kill("node2")
        disk = lab.disk("node2", "gv0")
        size = disk.stat().st_size
        disk.unlink()
        with disk.open("wb") as blank:
            blank.truncate(size)
        lab.power_on("node2")
        lab.wait_for_ssh("node2")
        others = "ls /dev/mapper/luks-gv1 /dev/mapper/luks-bmv0"
        wait_until("node2 unlocks the other disks", lambda: lab.ok("node2", others), 600)

        unknown = lab.playbook("replace_disk.yml", "-e", "host=node2", "-e", "disk=sdb")
        assert unknown.rc != 0 and "NAME one of gv0, gv1, bmv0" in " ".join(unknown.output.split())
        planned = lab.playbook("replace_disk.yml", *ASKED, "--check", "-v")
        assert planned.rc == 0 and set(changed(planned)) == {"node2"}
        assert "would put the bricks of gv0 back empty" in " ".join(planned.output.split())
        taken = lab.playbook("encryption.yml")
        assert taken.rc != 0 and f"{DEVICE} carries no LUKS2 header, and " in " ".join(taken.output.split())
        assert lab.out("node2", f"wipefs -n {DEVICE}") == "", "something was written to the disk"

        die_at("replace_disk.yml", ASKED, MOMENTS)
        done = lab.playbook("replace_disk.yml", *ASKED)
        assert done.rc == 0
        print(f"  the run that completed it took {done.seconds:.0f} s")
        alike = re.search(r"node2:/bricks/gv0/brick, node1:/bricks/gv0/brick: (\d+) paths are alike", flat(done.output))
        assert alike and int(alike[1]) > len(HOMES), "what the disk was filled with was not compared"

    wait_until("all guests run at home", lambda: running_guests(lab) == HOMES, 600)
    wait_until_whole(lab)
    found = brick_contents(lab)
    assert "./.shard/" in found["node1"] or "./images/" in found["node1"]
    assert found["node1"] == found["node2"] == found["node3"]
    lab.out("node1", f"{SNAPSHOT} delete e2e-dead")
    a_byte_of_one_copy_is_found(lab)
    again = lab.playbook("replace_disk.yml", *ASKED)
    assert again.rc == 0 and changed(again) == {}
    assert "paths are alike" not in again.output, "a disk that nobody replaced was read from end to end"
    layers = lab.playbook("site.yml", "--tags", "encryption,storage")
    assert layers.rc == 0 and changed(layers) == {}


def a_byte_of_one_copy_is_found(lab: Lab) -> None:
    """Change what lies on one brick behind gluster's back, and have it named."""
    lab.out("node1", "echo right > /srv/gv0/e2e-compared && sync /srv/gv0/e2e-compared")
    for text, found in (("wrong", True), ("right", False)):
        lab.out("node2", f"echo {text} > /bricks/gv0/brick/e2e-compared")
        compared = lab.playbook("compare_bricks.yml", *ASKED)
        assert (compared.rc != 0) is found and changed(compared) == {}
        assert (
            "e2e-compared on node2:/bricks/gv0/brick and on node1:/bricks/gv0/brick" in flat(compared.output)
        ) is found
    lab.out("node1", "rm /srv/gv0/e2e-compared")
