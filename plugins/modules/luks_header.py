#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the LUKS2 header of one disk, restored from a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: luks_header
short_description: Restore the LUKS2 header of one disk
version_added: 0.1.0
description:
  - Restores a header that is damaged. A disk that has the header already is left alone.
  - Refused for a disk of another size, and for one that carries, or has remains of, a header with another UUID.
    Refused, unless the disk is named in O(replace), while the header that is there is intact and differs, and while
    there are signatures of something else, and while O(backup_dir) has a backup of a later state of the header, made
    after keys were changed. Always refused for a disk with partitions, holders or mounts, or one that the kernel has
    given to somebody; the open mapper of this very header is none of them.
  - What stood in the place of the header is kept as C(NAME-UUID-before-restore-DIGEST.raw). C(erase) of
    M(personal.cluster.luks_clevis_bind) deletes it, and so does the first backup of the header after 30 days.
  - An older header brings keys back that were removed since, and lacks those that were added. Run the role encryption
    after it.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - cryptsetup on the node
options:
  device:
    description: Path of the block device; a stable one, such as those in C(/dev/disk/by-id).
    type: path
    required: true
  name:
    description: Name of the disk.
    type: str
    required: true
  uuid:
    description: UUID of the header.
    type: str
    required: true
  size:
    description: Size in bytes of the disk that the header belongs to.
    type: int
    required: true
  sha256:
    description: SHA-256 of O(source).
    type: str
    required: true
  source:
    description: The backup of the header, on the node.
    type: path
    required: true
  replace:
    description: Name of the disk, when its header, or what else is on it, may be replaced although it is intact.
    type: str
  backup_dir:
    description: Where what is there first is kept.
    type: path
    default: /var/backups/personal-cluster/luks-headers
"""

EXAMPLES = r"""
- name: Restore a header
  personal.cluster.luks_header:
    device: /dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z
    name: gv0
    uuid: 0a8d2bc5-3f0e-4a5c-9d0e-2f5d4d3b6a11
    size: 1000204886016
    sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    source: /run/gv0.img
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
size:
  description: Size of the disk in bytes.
  returned: always
  type: int
sha256:
  description: SHA-256 of what stands in the place of the header.
  returned: always
  type: str
uuids:
  description: UUIDs of all remains of headers.
  returned: always
  type: list
  elements: str
intact:
  description: Whether one of the two copies of a header is whole.
  returned: always
  type: bool
signatures:
  description: What lies on the disk beside a header.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.restoring import DiskHeader, Wanted
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "uuid": {"type": "str", "required": True},
            "size": {"type": "int", "required": True},
            "sha256": {"type": "str", "required": True},
            "source": {"type": "path", "required": True},
            "replace": {"type": "str"},
            "backup_dir": {"type": "path", "default": "/var/backups/personal-cluster/luks-headers"},
        },
        supports_check_mode=True,
    )
    params = module.params
    header = DiskHeader(
        params["device"],
        params["name"],
        Wanted(params["uuid"], params["size"], params["sha256"]),
        Runner(),
        source=params["source"],
        replaces=params["replace"],
        backup_dir=params["backup_dir"],
    )
    _engine.run(module, header, alone=True)


if __name__ == "__main__":
    main()
