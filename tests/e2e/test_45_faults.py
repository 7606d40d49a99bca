# SPDX-License-Identifier: GPL-3.0-or-later
"""What fails or restarts while a node runs: the process of a brick, the cable, glusterd."""

from __future__ import annotations

import time

import pytest
from cluster import (
    NODES,
    Lab,
    bricks_online,
    changed,
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


def test_glusterd_takes_a_new_configuration_and_no_brick_stops(lab: Lab) -> None:
    def processes(name: str) -> dict[str, str]:
        return {node: lab.out(node, f"pgrep -x {name} | sort") for node in NODES}

    wait_until_whole(lab)
    bricks, daemons = processes("glusterfsd"), processes("glusterd")
    for node in NODES:
        lab.out(node, "touch /etc/glusterfs/glusterd.vol")
    with longest_pause(lab, "node1", "g1"):
        outcome = lab.playbook("site.yml", "--tags", "storage")
    assert outcome.rc == 0 and set(changed(outcome)) == set(NODES)
    assert processes("glusterfsd") == bricks
    assert all(one != daemons[node] for node, one in processes("glusterd").items())


# Connected to the glusterd of some node, from where it hears of changes of its volume.
TOLD = "ss -Htnp state established dport = :24007 | grep -q pid=$(pgrep -f 'glusterfs .*/srv/gv1$'),"

WATCH = "personal-cluster-mount-watch@gv1"
ANEW = f"systemctl stop {WATCH} && umount /srv/gv1 && mount /srv/gv1 && systemctl start {WATCH}"


def test_a_client_hears_of_changes_again_when_its_glusterd_was_away(lab: Lab) -> None:
    # A client that has turned to another node before proves nothing: a new one begins with its own.
    wait_until("a new client", lambda: lab.ok("node2", ANEW), 120)
    wait_until("its own node tells it of changes", lambda: lab.ok("node2", TOLD), 60)
    lab.out("node2", "systemctl stop glusterd")
    try:
        wait_until("another node tells the client of changes", lambda: lab.ok("node2", TOLD), 120)
    finally:
        lab.out("node2", "systemctl start glusterd")
    wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 240)


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


# Takes gv1's disk away before anything has seen it in this boot, as if it were not plugged in.
UNPLUG = """[Unit]
DefaultDependencies=no
After=systemd-udevd.service
Before=systemd-udev-trigger.service
[Service]
Type=oneshot
WorkingDirectory=/sys/bus/virtio/drivers/virtio_blk
ExecStart=/bin/sh -c 'grep -lx gv1 virtio*/block/*/serial | cut -d/ -f1 | tee /run/unplugged >unbind'
[Install]
WantedBy=sysinit.target
"""
UNIT = "/etc/systemd/system/unplug.service"
WAITS = "systemctl list-jobs --no-legend | grep -e cryptsetup -e luks -e bricks-gv1.mount"


@pytest.mark.long
def test_a_disk_that_is_plugged_in_late_joins_its_volume(lab: Lab) -> None:
    wait_until_whole(lab)
    lab.out("node3", f"cat >{UNIT} <<'END'\n{UNPLUG}END\nsystemctl enable -q unplug && sync")
    lab.kill("node3")
    lab.power_on("node3")
    lab.wait_for_ssh("node3")
    lab.out("node3", f"systemctl disable -q unplug && rm {UNIT} && test -s /run/unplugged")
    wait_until("nothing waits for the disk any more", lambda: not lab.ok("node3", WAITS), 240)
    wait_until("the other bricks run", lambda: bricks_online(lab, "node1") == 5, 420)
    lab.out("node3", "cat /run/unplugged >/sys/bus/virtio/drivers/virtio_blk/bind")
    wait_until("it is open", lambda: lab.ok("node3", "test -e /dev/mapper/luks-gv1"), 180)
    wait_until("its brick runs", lambda: bricks_online(lab, "node1") == 6, 300)
    wait_until_whole(lab)
    assert lab.out("node3", "systemctl --failed --plain --no-legend") == ""
