# SPDX-License-Identifier: GPL-3.0-or-later
"""More disks and volumes make no run longer. Comes last: the lab is another one afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import playbook
import pytest
from cluster import NODES, Lab, changed, wait_until_whole

pytestmark = pytest.mark.long

LAYERS = ["--tags", "encryption,storage"]
VOLUMES = [f"gv{number}" for number in range(2, 8)]
# Twelve disks a node and eight volumes, with the three that the lab has.
LOOPS = dict(enumerate([(name, name) for name in VOLUMES] + [(name, f"{name}b") for name in VOLUMES[:3]]))
BY_ID = "/dev/disk/by-id/e2e-loop"
ONE = {
    "cluster_disks": [{"device": "/dev/disk/by-id/virtio-gv0", "volume": "gv0"}],
    "storage_volumes": [{"name": "gv0", "group": "virt"}],
    "preflight_local_volumes": [],
}


def attach(lab: Lab, node: str, numbers: Iterable[int]) -> None:
    """Give a node these loop devices for disks, those that it does not have yet, each with a name as disks have."""
    for number in numbers:
        file, device = f"/var/tmp/disk{number}", f"/dev/loop{number}"
        lab.out(node, f"losetup {device} || {{ truncate -s 640M {file} && losetup {device} {file}; }}")
        lab.out(node, f"ln -sfn {device} {BY_ID}{number}")


def grown(loops: Mapping[int, tuple[str, str]]) -> dict[str, object]:
    """Return what the inventory says when each node gives these loop devices too, each with its volume and brick."""
    disks = [{"device": f"/dev/disk/by-id/virtio-{name}", "volume": name} for name in ("gv0", "gv1", "bmv0")]
    disks += [{"device": f"{BY_ID}{n}", "volume": volume, "name": name} for n, (volume, name) in loops.items()]
    more = sorted({volume for volume, _ in loops.values()} - {"gv0", "gv1"})
    volumes = [{"name": name, "options": {"cluster.quorum-type": "auto"}} for name in more]
    return {
        "cluster_disks": disks,
        "storage_volumes": [{"name": "gv0", "group": "virt"}, {"name": "gv1"}, *volumes],
        "preflight_disk_min_bytes": 2**29,
    }


def no_change(lab: Lab, *options: str) -> playbook.Outcome:
    done = lab.playbook("site.yml", *LAYERS, *options)
    assert done.rc == 0 and changed(done) == {}
    return done


def test_a_run_without_a_change_costs_the_same_with_more_disks_and_volumes(lab: Lab, tmp_path: Path) -> None:
    wait_until_whole(lab)
    # In check mode: the others would be taken out of crypttab and fstab. A check executes the same modules.
    one = lab.playbook("site.yml", *LAYERS, "--check", "-e", json.dumps(ONE))
    assert one.rc == 0
    few = no_change(lab)
    for node in NODES:
        attach(lab, node, LOOPS)
    inventory = tmp_path / "grown.json"
    inventory.write_text(json.dumps(grown(LOOPS)))
    made = lab.playbook("site.yml", *LAYERS, "-e", f"@{inventory}", limit=2400)
    assert made.rc == 0
    many = no_change(lab, "-e", f"@{inventory}")
    for what, outcome in (
        ("1 disk, 1 volume, checked", one),
        ("3 disks, 2 volumes", few),
        ("12 disks, 8 volumes", many),
    ):
        print(f"  {what}: {outcome.executions()} modules, {outcome.seconds:.0f} s", flush=True)
    assert one.executions() == few.executions() == many.executions()
