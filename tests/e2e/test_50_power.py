# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugs are pulled: one node's, then everybody's. Nobody lends a hand after that."""

from __future__ import annotations

import json
from functools import partial

from cluster import (
    ADDRESSES,
    NODES,
    Lab,
    bricks_online,
    everyone,
    guest_counter,
    guest_pings,
    guest_running,
    mounted,
    pending_heals,
    running_guests,
    unlocked,
    wait_until,
)

PROBE = "/srv/gv0/e2e-probe"


def firing(lab: Lab, node: str) -> set[tuple[str, str]]:
    """Return the firing alerts as (name, instance or node)."""
    address = {"node1": "10.10.0.11", "node2": "10.10.0.12"}[node]
    answer = lab.run(node, f"curl -sS -m 20 http://{address}:9090/api/v1/alerts", limit=60)
    if answer.returncode:
        return set()
    alerts = json.loads(answer.stdout)["data"]["alerts"]
    labels = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
    return {(label["alertname"], label.get("instance", "")) for label in labels}


def counter_above(lab: Lab, node: str, guest: str, count: int) -> bool:
    return guest_counter(lab, node, guest) > count


def test_a_mount_whose_client_died_is_there_again(lab: Lab) -> None:
    client = "pgrep -f '^/usr/sbin/glusterfs .*/srv/gv1$'"
    old = lab.out("node1", client)
    lab.out("node1", f"kill -SEGV {old}")
    wait_until("gv1 mounted again", lambda: lab.ok("node1", f"{client} && touch /srv/gv1/e2e-probe"), 60)
    assert lab.out("node1", client) != old
    lab.out("node1", "rm /srv/gv1/e2e-probe")
    assert lab.ok("node1", "systemctl is-active personal-cluster-mount-watch@gv1 personal-cluster-mount@gv1")


def test_one_node_loses_power_and_then_cannot_reach_tang(lab: Lab) -> None:
    lab.out("node1", f"echo before > {PROBE}")
    lab.kill("node3")
    # The others stall for the ping timeout, then go on.
    assert wait_until("gv0 writable without node3", lambda: lab.ok("node1", f"echo without > {PROBE}", 120), 120)
    count = guest_counter(lab, "node2", "g2")
    wait_until("g2 goes on writing without node3", partial(counter_above, lab, "node2", "g2", count), 120)
    wait_until("an alert about node3", lambda: [a for a in firing(lab, "node1") if a[0] == "NodeDown"], 420)

    lab.link("tang1", "br0", up=False)
    lab.power_on("node3")
    lab.wait_for_ssh("node3")
    wait_until("node3 up to ssh with systemd settled", lambda: lab.ok("node3", "systemctl is-active ssh.service"), 60)
    assert not unlocked(lab, "node3"), "a disk is open although tang cannot be reached"
    assert lab.ok("node2", f"echo locked-out > {PROBE}", 60), "the other two stopped serving"

    lab.link("tang1", "br0", up=True)
    wait_until("node3 unlocks its disks", partial(unlocked, lab, "node3"), 600)
    wait_until("node3 mounts everything", partial(mounted, lab, "node3"), 420)
    wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 420)
    wait_until("healed to zero", lambda: pending_heals(lab, "node1") == 0, 780)
    assert lab.out("node3", f"cat {PROBE}") == "locked-out"
    wait_until("the alert clears", lambda: not [a for a in firing(lab, "node1") if a[0] == "NodeDown"], 420)


def test_no_restore_swaps_a_disk_that_another_node_runs_on(lab: Lab) -> None:
    # A brick that was away has forgotten who holds which image; the others have not.
    refused = lab.run("node1", "personal-cluster-backup restore --vm g2", limit=300)
    assert refused.returncode == 1 and "open for writing" in refused.stdout + refused.stderr
    assert guest_running(lab, "node2", "g2")


def test_everybody_loses_power_at_once(lab: Lab) -> None:
    where = running_guests(lab)
    assert set(where) == set(ADDRESSES)
    counted = {guest: guest_counter(lab, "node1", guest) for guest in where}
    lab.out("node1", f"echo durable > {PROBE} && sync {PROBE}")
    lab.kill(*everyone())
    lab.power_on(*everyone())
    lab.wait_for_ssh(*everyone())
    for node in NODES:
        wait_until(f"{node} unlocks its disks", partial(unlocked, lab, node), 600)
        wait_until(f"{node} mounts everything", partial(mounted, lab, node), 600)
    wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 300)
    assert lab.out("node2", f"cat {PROBE}") == "durable"
    for node in NODES:
        assert {"br0", "wan0", "vlans"} <= set(lab.out(node, "ovs-vsctl list-br").split())
    for guest, node in where.items():
        wait_until(f"{guest} runs on {node}", partial(guest_running, lab, node, guest), 600)
        wait_until(f"{guest} writes on", partial(counter_above, lab, node, guest, counted[guest]), 300)
    wait_until("g1 reaches g2", partial(guest_pings, lab, where["g1"], "g1", ADDRESSES["g2"]), 120)
    for node in NODES:
        assert lab.out(node, "systemctl list-units --failed --no-legend --plain") == ""
