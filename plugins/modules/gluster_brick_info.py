#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what the bricks of a host hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_brick_info
short_description: Tell what the bricks of a GlusterFS node hold, with checksums
version_added: 0.1.0
description:
  - Reads all files of bricks, so that two that are copies of one another can be compared. Changes nothing.
  - It takes as long as reading the disks does, and gives way to all else that the node does. It reads what is on the
    disks, not what the node still has in its memory.
  - P(personal.cluster.brick_verdict#filter) compares what two nodes tell; C(playbooks/compare_bricks.yml) does it all.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine]
options:
  bricks:
    description: Directories of the bricks.
    type: list
    elements: path
    required: true
  only:
    description: Paths in the bricks, as RV(bricks) has them. The others are not read. Without this, all are.
    type: list
    elements: str
seealso:
  - module: personal.cluster.gluster_volume_info
"""

EXAMPLES = r"""
- name: Read a brick
  personal.cluster.gluster_brick_info:
    bricks: [/bricks/gv0/brick]
  register: looked

- name: Say how much is on it
  ansible.builtin.debug:
    msg: "{{ looked.bricks['/bricks/gv0/brick'].values() | map(attribute='size') | sum }} bytes"
"""

RETURN = r"""
bricks:
  description:
    - For each brick what is on it, by its path there; the brick itself is V(.).
    - Without what is another on each brick, C(.glusterfs) and C(.trashcan).
    - Bytes of a path that are not UTF-8 are shown as C(\xNN).
  returned: always
  type: dict
  contains:
    PATH:
      description: What is there, by its path.
      type: dict
      contains:
        kind:
          description: V(file), V(directory), V(link) or V(other).
          type: str
        mode:
          description: Permissions, as V(0644).
          type: str
        owner:
          description: Number of the owner.
          type: int
        group:
          description: Number of the group.
          type: int
        size:
          description: Bytes of a file.
          type: int
        mtime:
          description: When it was last written, in nanoseconds since 1970.
          type: int
        gfid:
          description: Gluster's name of it, the same on all bricks. Null where there is none.
          type: str
        attributes:
          description: SHA-256 of the extended attributes that copies have alike, as ACLs. Null where there are none.
          type: str
        content:
          description: SHA-256 of a file, or where a link leads. Null for what is neither.
          type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.contents import read_brick


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "bricks": {"type": "list", "elements": "path", "required": True},
            "only": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    only = module.params["only"]
    names = None if only is None else frozenset(only)
    os.nice(19)
    _engine.report(module, lambda: {"bricks": {brick: read_brick(brick, names) for brick in module.params["bricks"]}})


if __name__ == "__main__":
    main()
