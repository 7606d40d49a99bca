# SPDX-License-Identifier: GPL-3.0-or-later
"""From bare nodes to a converged cluster: check, refuse, converge."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cluster import NODES, Lab

pytestmark = pytest.mark.usefixtures("bare")


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_check_mode_fails_nowhere_on_bare_nodes(lab: Lab) -> None:
    outcome = lab.playbook("site.yml", "--check")
    assert outcome.rc == 0 and set(NODES) <= set(outcome.hosts)
    assert lab.fails("node1", "test -e /etc/ssl/personal-cluster"), "check mode wrote to the node"


def test_a_disk_that_holds_a_filesystem_is_refused_and_keeps_its_bytes(lab: Lab) -> None:
    disk = lab.disk("node2", "gv1")
    lab.out("node2", "mkfs.xfs -q /dev/disk/by-id/virtio-gv1 && sync")
    before = digest(disk)
    # Everything that is wrong comes in one report: the disk of one node and the secret of all.
    report = lab.playbook("preflight.yml", "-e", json.dumps({"cluster_backup_passphrase": ""}))
    assert report.rc != 0 and "xfs" in report.output and "cluster_backup_passphrase" in report.output
    assert "node2" in report.output and "cluster_disks" in report.output
    # The module itself refuses too, whoever calls it.
    layer = lab.playbook("encryption.yml", "--limit", "node2,tang1")
    assert layer.rc != 0 and "xfs" in layer.output
    assert digest(disk) == before
    lab.out("node2", "wipefs -qa /dev/disk/by-id/virtio-gv1")


def test_site_converges(lab: Lab) -> None:
    outcome = lab.playbook("site.yml")
    print("seconds per layer:", {layer: round(seconds) for layer, seconds in outcome.layers().items()})
    assert outcome.rc == 0
