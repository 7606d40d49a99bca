# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugs are pulled: one node's, then everybody's, and tang comes last. Nobody lends a hand after that."""

from __future__ import annotations

import json
from functools import partial

from cluster import (
    ADDRESSES,
    NODES,
    Lab,
    booted_well,
    bricks_online,
    everyone,
    guest_counter,
    guest_pings,
    guest_running,
    locked,
    longest_pause,
    lost_writes,
    mounted,
    pending_heals,
    running_guests,
    unlocked,
    wait_until,
    writes_on,
)

PROBE = "/srv/gv0/e2e-probe"


def node_down(lab: Lab) -> bool | None:
    """Tell whether node1 knows of a firing alert about a node that is gone; None when it cannot be asked."""
    answer = lab.run("node1", "curl -sS -m 20 http://10.10.0.11:9090/api/v1/alerts", limit=60)
    if answer.returncode:
        return None
    alerts = json.loads(answer.stdout)["data"]["alerts"]
    return any(alert["state"] == "firing" and alert["labels"]["alertname"] == "NodeDown" for alert in alerts)


def test_a_mount_whose_client_died_is_there_again(lab: Lab) -> None:
    client = "pgrep -f '^/usr/sbin/glusterfs .*/srv/gv1$'"
    old = lab.out("node1", client)
    lab.out("node1", f"kill -SEGV {old}")
    wait_until("gv1 mounted again", lambda: lab.ok("node1", f"{client} && touch /srv/gv1/e2e-probe"), 60)
    assert lab.out("node1", client) != old
    lab.out("node1", "rm /srv/gv1/e2e-probe")
    assert lab.ok("node1", "systemctl is-active personal-cluster-mount-watch@gv1 personal-cluster-mount@gv1")


def test_one_node_loses_power_and_then_everybody_without_tang(lab: Lab) -> None:
    where = running_guests(lab)
    assert set(where) == set(ADDRESSES)
    counted = {guest: guest_counter(lab, "node1", guest) for guest in where}
    with longest_pause(lab, "node1", "g2"):
        lab.kill("node3")
        # The others stall for the ping timeout, then go on.
        assert wait_until("gv0 writable without node3", lambda: lab.ok("node1", f"echo without > {PROBE}", 120), 120)
        count = guest_counter(lab, "node2", "g2")
        wait_until("g2 goes on writing without node3", partial(writes_on, lab, "node2", "g2", count), 120)
    wait_until("an alert about node3", lambda: node_down(lab), 420)
    lab.out("node1", f"echo durable > {PROBE} && sync {PROBE}")

    lab.kill(*(name for name in everyone() if name != "node3"))
    lab.power_on(*everyone())
    lab.link("tang1", "br0", up=False)
    lab.wait_for_ssh(*everyone())
    for node in NODES:
        wait_until(f"ssh of {node} settled", partial(lab.ok, node, "systemctl is-active ssh.service"), 60)
        assert locked(lab, node), f"a disk of {node} is open although tang cannot be reached"

    lab.link("tang1", "br0", up=True)
    for node in NODES:
        wait_until(f"{node} unlocks its disks", partial(unlocked, lab, node), 600)
        wait_until(f"{node} mounts everything", partial(mounted, lab, node), 600)
    wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 420)
    wait_until("healed to zero", lambda: pending_heals(lab, "node1") == 0, 780)
    assert lab.out("node3", f"cat {PROBE}") == "durable"
    for node in NODES:
        assert {"br0", "wan0", "vlans"} <= set(lab.out(node, "ovs-vsctl list-br").split())
    for guest, node in where.items():
        wait_until(f"{guest} runs on {node}", partial(guest_running, lab, node, guest), 600)
        wait_until(f"{guest} writes on", partial(writes_on, lab, node, guest, counted[guest]), 300)
        assert lost_writes(lab, node, guest) == []
    wait_until("g1 reaches g2", partial(guest_pings, lab, where["g1"], "g1", ADDRESSES["g2"]), 120)
    wait_until("no alert about a node", lambda: node_down(lab) is False, 420)
    for node in NODES:
        assert booted_well(lab, node)
