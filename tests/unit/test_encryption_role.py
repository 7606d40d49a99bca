# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role encryption writes for disks that appear late."""

from __future__ import annotations

import jinja2
from plays import REPOSITORY, read

DISKS = [
    {"device": "/dev/disk/by-id/virtio-gv0", "name": "luks-gv0"},
    {"device": "/dev/disk/by-id/ata-ST4000_WD-1", "name": "luks-gv1-b"},
]
RULES = "/etc/udev/rules.d/90-personal-cluster-encryption.rules"


def rules_for(disks: list[dict[str, str]]) -> list[str]:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    text = (REPOSITORY / "roles/encryption/templates/encryption.rules.j2").read_text()
    lines = environment.from_string(text).render(__encryption_devices=disks).splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_a_declared_disk_is_unlocked_whenever_it_appears() -> None:
    links = ["disk/by-id/virtio-gv0", "disk/by-id/ata-ST4000_WD-1"]
    # Paths: systemd 252 takes the backslash out of the name of a unit, and later releases do not.
    opened = ["/dev/mapper/luks-gv0", "/dev/mapper/luks-gv1-b"]
    assert rules_for(DISKS) == [
        f'ACTION=="add", SUBSYSTEM=="block", SYMLINK=="{link}", ENV{{SYSTEMD_WANTS}}+="{path}"'
        for link, path in zip(links, opened, strict=True)
    ]


def test_a_disk_that_is_not_declared_any_more_is_not_unlocked() -> None:
    assert rules_for([]) == [] and len(rules_for(DISKS[:1])) == 1


def test_the_rules_come_after_the_links_and_before_systemd_reads_what_is_wanted() -> None:
    (task,) = [task for task in read("roles/encryption/tasks/main.yml") if "personal.cluster.config_files" in task]
    (file,) = [file for file in task["personal.cluster.config_files"]["files"] if "/udev/" in file["path"]]
    assert file["path"] == RULES and "'encryption.rules.j2'" in file["content"]
    assert "60-persistent-storage.rules" < RULES.rsplit("/", 1)[1] < "99-systemd.rules"
