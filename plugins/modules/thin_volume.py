#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all thin volumes of a node, from the disk to the mount, in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: thin_volume
short_description: Turn disks into mounted XFS filesystems on thin LVM
version_added: 0.1.0
description:
  - For each disk one volume group, one thin pool, one thin volume, an XFS filesystem, an immutable bare mountpoint, a
    line in fstab, and the mount. What exists is left as it is; what is missing is made.
  - The thin volume is smaller than its pool, so that snapshots have room, and the pool is smaller than its group, so
    that LVM can extend it.
  - Nothing is ever wiped. A device with a signature, of another volume group, or of another filesystem is refused, and
    so is a volume that is not new and on which no filesystem can be read, for a damaged one looks like a blank one.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
options:
  volumes:
    description: The volumes of this node.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name; the volume group is named after it.
        type: str
        required: true
      device:
        description: The block device, an open LUKS mapping for example.
        type: path
        required: true
      mountpoint:
        description: Where the filesystem is mounted; no blanks. Nothing can be written there while it is not.
        type: path
        required: true
      mount_options:
        description: Options in fstab; V(defaults) when the list is empty.
        type: list
        elements: str
        default: [noatime, inode64, nouuid, nofail]
      volume_group:
        description: Name of the volume group; V(vg_) and O(volumes[].name) when not given.
        type: str
      pool:
        description: Name of the thin pool.
        type: str
        default: pool
      volume:
        description: Name of the thin volume.
        type: str
        default: data
      chunk_kib:
        description: Size of the pool's chunks in KiB, a multiple of 64. Fixed when the pool is made.
        type: int
        default: 256
      zero:
        description:
          - Whether the pool zeroes a new chunk before its volume gets it. Without that writing is faster, and what the
            chunk held before can be read where nothing was written. A pool that does otherwise is changed.
        type: bool
        default: true
      pool_percent:
        description: Share of the group, 1 to 100, for a new pool; the rest is for extending data and metadata.
        type: int
        default: 90
      volume_percent:
        description:
          - Share of the pool, 1 to 100, that the thin volume gets when it is made; the rest is for snapshots. Refused
            where this and O(volumes[].pool_percent) are 100, and the volume is not made yet.
        type: int
        default: 85
      profile:
        description:
          - LVM metadata profile of the pool, a file in C(/etc/lvm/profile) without its suffix, that arms the automatic
            extension for example. Left alone when empty.
        type: str
        default: ""
      replaced:
        description:
          - Whether the disk is a new one. Check mode then plans what a device needs that is not open yet; otherwise it
            is an error when fstab knows the volume.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Mount the bricks
  personal.cluster.thin_volume:
    volumes:
      - name: gv0
        device: /dev/mapper/luks-gv0
        mountpoint: /bricks/gv0
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
volumes:
  description: What exists of each volume, by its name.
  returned: always
  type: dict
  contains:
    volume_group:
      description: Whether there is a volume group.
      type: bool
    pool:
      description: The thin pool, null where there is none.
      type: dict
      contains:
        chunk_kib:
          description: Size of its chunks in KiB.
          type: int
        zero:
          description: Whether it zeroes new chunks.
          type: bool
        profile:
          description: Its LVM profile, empty for none.
          type: str
    thin_volume:
      description: Whether there is a thin volume.
      type: bool
    filesystem:
      description: What is on it, as V(xfs).
      type: str
    fstab:
      description: Its line in fstab.
      type: str
    mounted:
      description: Whether it is mounted.
      type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm.thin import ThinVolumes
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

VOLUME_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "device": {"type": "path", "required": True},
    "mountpoint": {"type": "path", "required": True},
    "mount_options": {"type": "list", "elements": "str", "default": ["noatime", "inode64", "nouuid", "nofail"]},
    "volume_group": {"type": "str"},
    "pool": {"type": "str", "default": "pool"},
    "volume": {"type": "str", "default": "data"},
    "chunk_kib": {"type": "int", "default": 256},
    "zero": {"type": "bool", "default": True},
    "pool_percent": {"type": "int", "default": 90},
    "volume_percent": {"type": "int", "default": 85},
    "profile": {"type": "str", "default": ""},
    "replaced": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "dict", "required": True, "options": VOLUME_OPTIONS},
        },
        supports_check_mode=True,
    )
    _engine.run(module, ThinVolumes(module.params["volumes"], Runner()), alone=True)


if __name__ == "__main__":
    main()
