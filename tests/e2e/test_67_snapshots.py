# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot of a volume on thin LVM is made, looked into, and given back; the bricks come home after that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import playbook
import pytest
from cluster import NODES, Lab, changed, longest_pause, wait_until, wait_until_whole
from killing import die_at

pytestmark = pytest.mark.long

KEPT = "/srv/gv1/e2e-kept"
GLUSTER = "gluster --mode=script"
HOME = "/bricks/gv1/brick"
MOMENTS = (
    ("Remove what it was before the restore", 2),
    ("Fill its place from the other nodes", 4),
    ("Remove the LV", 2),
)


def run_task(lab: Lab, folder: Path, node: str, task: Mapping[str, object], *options: str) -> playbook.Outcome:
    """Run one task on a node, by a playbook of its own."""
    play = {"name": "Try", "hosts": node, "become": True, "gather_facts": False, "tasks": [{"name": "Try", **task}]}
    file = folder / "play.json"
    file.write_text(json.dumps([play]))
    return lab.playbook(str(file), *options)


def snapshot(
    lab: Lab, folder: Path, state: str, *options: str, allow: tuple[str, ...] = (), node: str = "node1"
) -> playbook.Outcome:
    item = {"name": "e2e", "volume": "gv1", "description": "before the change", "state": state}
    task = {"personal.cluster.gluster_snapshot": {"snapshots": [item], "allow": list(allow)}}
    return run_task(lab, folder, node, task, *options)


def test_a_snapshot_is_made_and_looked_into(lab: Lab, tmp_path: Path) -> None:
    wait_until_whole(lab)
    lab.out("node2", f"echo before > {KEPT} && sync {KEPT}")
    planned = snapshot(lab, tmp_path, "present", "--check")
    assert planned.rc == 0 and set(changed(planned)) == {"node1"}
    assert "e2e" not in lab.out("node1", f"{GLUSTER} snapshot list gv1")
    made = snapshot(lab, tmp_path, "present")
    assert made.rc == 0 and set(changed(made)) == {"node1"}
    again = snapshot(lab, tmp_path, "present")
    assert again.rc == 0 and changed(again) == {}
    lab.out("node2", f"echo after > {KEPT} && sync {KEPT}")

    shape = lab.out("node1", f"{GLUSTER} volume info gv1")
    bricks = [{"host": node, "path": path} for path in (HOME, "/bricks/gv1/another") for node in NODES]
    grown = {"volumes": [{"name": "gv1", "replica": len(NODES), "bricks": bricks}]}
    refused = run_task(lab, tmp_path, "node1", {"personal.cluster.gluster_volume": grown})
    assert refused.rc != 0 and "it has 1 snapshot" in refused.output
    assert lab.out("node1", f"{GLUSTER} volume info gv1") == shape

    layer = lab.playbook("site.yml", "--tags", "storage")
    assert layer.rc == 0 and changed(layer) == {}
    lab.out("node1", f"{GLUSTER} snapshot activate e2e")
    look = "mkdir -p /mnt/e2e && mount -t glusterfs localhost:/snaps/e2e/gv1 /mnt/e2e && cat /mnt/e2e/e2e-kept"
    assert lab.out("node3", f"{look}; umount /mnt/e2e") == "before"
    lab.out("node1", f"{GLUSTER} snapshot deactivate e2e")
    assert lab.out("node3", f"cat {KEPT}") == "after"


def test_a_snapshot_is_given_back_and_the_bricks_come_home(lab: Lab, tmp_path: Path) -> None:
    refused = snapshot(lab, tmp_path, "restored", allow=("restore",))
    assert refused.rc != 0 and "volume gv1 is started; end what uses it and stop it" in " ".join(refused.output.split())
    assert lab.out("node3", f"cat {KEPT}") == "after"

    lab.out("node1", f"{GLUSTER} volume stop gv1")
    restored = snapshot(lab, tmp_path, "restored", allow=("restore",))
    assert restored.rc == 0 and set(changed(restored)) == {"node1"}
    lab.out("node1", f"{GLUSTER} volume start gv1")
    for node in NODES:
        wait_until(f"{node} sees what was", partial(lab.ok, node, f"grep -qx before {KEPT}"), 180)

    layer = lab.playbook("site.yml", "--tags", "storage")
    assert layer.rc != 0 and lab.out("node3", f"cat {KEPT}") == "before"
    come_home = ("bring_bricks_home.yml", "-e", "volume=gv1", "-e", "wait=780")
    planned = lab.playbook(*come_home, "--check")
    assert planned.rc == 0 and set(changed(planned)) == set(NODES)
    assert lab.ok("node1", f"grep -qx after {HOME}/e2e-kept"), "check mode removed a brick"
    with longest_pause(lab, "node2", "g1"):
        die_at(come_home[0], list(come_home[1:]), MOMENTS)
        done = lab.playbook(*come_home, limit=3600)
    print(f"  all bricks at home after {done.seconds:.0f} s", flush=True)
    assert done.rc == 0 and set(changed(done)) >= {"node2", "node3"}
    again = lab.playbook(*come_home)
    assert again.rc == 0 and changed(again) == {}
    for node in NODES:
        assert lab.fails(node, "findmnt -rno TARGET | grep /gluster/snaps/"), "an LV of the snapshot is left"
    layer = lab.playbook("site.yml", "--tags", "storage")
    assert layer.rc == 0 and changed(layer) == {}
    assert {lab.out(node, f"cat {KEPT}") for node in NODES} == {"before"}
    assert {lab.out(node, f"cat {HOME}/e2e-kept") for node in NODES} == {"before"}
