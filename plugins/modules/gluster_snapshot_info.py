#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: which snapshots of GlusterFS volumes there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_snapshot_info
short_description: Tell which snapshots of GlusterFS volumes there are
version_added: 0.1.0
description:
  - Returns the snapshots of the pool, whoever made them, with one call of gluster. Changes nothing.
  - A host on which GlusterFS was never used has none. One without lvm2 cannot tell (GlusterFS 10.3), which is an error.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  volumes:
    description: Names of the volumes whose snapshots are told; all when empty.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
seealso:
  - module: personal.cluster.gluster_snapshot
"""

EXAMPLES = r"""
- name: Look at the snapshots of a volume
  personal.cluster.gluster_snapshot_info:
    volumes: [gv0]
  register: gluster

- name: Name the snapshots from before today
  ansible.builtin.debug:
    msg: >-
      {{ gluster.snapshots | dict2items | selectattr('value.created', 'lt', now(fmt='%F')) | map(attribute='key') }}
"""

RETURN = r"""
available:
  description: Whether glusterd answered; false where it was never used.
  returned: always
  type: bool
snapshots:
  description: Each snapshot by its name.
  returned: always
  type: dict
  contains:
    volume:
      description: The volume that it is of.
      type: str
    created:
      description: When it was made, as gluster writes it, C(2026-11-28 12:31:40 +0000).
      type: str
    description:
      description: The note that it was given.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, snapshots
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    _engine.report(module, lambda: snapshots.told(asked, given["volumes"]))


if __name__ == "__main__":
    main()
