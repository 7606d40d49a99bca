# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is switched on while tang does not answer, and tang comes back after ten minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from cluster import (
    HOMES,
    Lab,
    booted_well,
    bricks_online,
    guest_running,
    locked,
    longest_pause,
    mounted,
    running_guests,
    unlocked,
    wait_until,
    wait_until_whole,
)

pytestmark = pytest.mark.long

LATE = 600
# Takes each connection, and never says a word.
MUTE = "systemd-run --unit=mute socat -u TCP-LISTEN:7500,reuseaddr,fork,max-children=50 EXEC:'sleep 3600'"

# What is left to ask when that node does not answer.
LOCKED = (
    "cd /usr/local/lib/personal-cluster && python3 -c 'from personal_cluster_backup.capture import write_locked; "
    'print(write_locked("/srv/gv0/images/g2-vda.img"))\''
)


def cut(lab: Lab) -> Callable[[], object]:
    lab.link("tang1", "br0", up=False)
    return lambda: lab.link("tang1", "br0", up=True)


def mute(lab: Lab) -> Callable[[], object]:
    lab.out("tang1", f"systemctl stop tangd.socket && {MUTE}")
    return lambda: lab.out("tang1", "systemctl stop mute.service && systemctl start tangd.socket")


@pytest.fixture(params=[cut, mute])
def back(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Callable[[], object]]:
    """Silence tang; what is yielded brings it back, and it comes back in any case."""
    wait_until_whole(lab)
    assert running_guests(lab) == HOMES
    bring_back = request.param(lab)
    calls: list[object] = []

    def once() -> None:
        if not calls:
            calls.append(bring_back())

    yield once
    once()


def test_tang_is_silent_for_ten_minutes(lab: Lab, back: Callable[[], object]) -> None:
    with longest_pause(lab, "node1", "g1"):
        lab.kill("node3")
        lab.power_on("node3")
        began = time.monotonic()
        lab.wait_for_ssh("node3")
        print(f"  node3 answers on ssh {time.monotonic() - began:.0f} s after power-on, without tang", flush=True)
        # What waits for the disks waits; nothing else does.
        services = "glusterd chrony openvswitch-switch prometheus-node-exporter"
        wait_until("its other services run", lambda: lab.ok("node3", f"systemctl is-active {services}"), 480)
        while time.monotonic() - began < LATE:
            assert locked(lab, "node3")
            time.sleep(20)
        assert lab.ok("node1", "touch /srv/gv0/e2e-late && rm /srv/gv0/e2e-late")
        back()
        # At once: no retry that slows down, no curl that hangs. The disks follow each other.
        wait_until("node3 unlocks a disk", lambda: lab.ok("node3", "ls /dev/mapper/luks-*"), 120)
        wait_until("node3 unlocks its disks", partial(unlocked, lab, "node3"), 420)
        wait_until("node3 mounts everything", partial(mounted, lab, "node3"), 300)
        wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 420)
        guest = next(name for name, node in HOMES.items() if node == "node3")
        wait_until(f"{guest} runs", partial(guest_running, lab, "node3", guest), 420)
        assert booted_well(lab, "node3")
        wait_until_whole(lab)
    # A brick that was away has forgotten who holds which image; the others have not.
    lab.out(HOMES["g2"], "personal-cluster-backup run --vm g2", limit=600)
    refused = lab.run("node1", "personal-cluster-backup restore --vm g2", limit=300)
    assert refused.returncode == 1 and f"guest g2 is running on {HOMES['g2']}" in refused.stdout + refused.stderr
    assert lab.out("node1", LOCKED) == "True"
    assert guest_running(lab, HOMES["g2"], "g2")
