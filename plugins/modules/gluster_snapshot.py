#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: snapshots of GlusterFS volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_snapshot
short_description: Make, delete and restore snapshots of GlusterFS volumes
version_added: 0.1.0
description:
  - Declares snapshots by name. Each brick of the volume must lie alone on a thin LV; each host needs lvm2.
  - A snapshot is made only while all peers are connected, all bricks run, nothing waits to be healed, and no task is
    at work. Others than those that are named are left alone.
  - None is made while a thin pool below a brick of the volume is 80 % full or more, its data or its metadata. Pools of
    other hosts are not seen. Run it in check mode on each host that has bricks, before it is run on one of them.
  - While a volume has snapshots, M(personal.cluster.gluster_volume) does not change its bricks and does not delete it.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
seealso:
  - module: personal.cluster.gluster_snapshot_info
options:
  snapshots:
    description: The snapshots.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the snapshot, one for the whole pool.
        type: str
        required: true
      volume:
        description: The volume that it is of.
        type: str
        required: true
      state:
        description:
          - V(restored) gives the stopped volume the content of the snapshot back, and uses the snapshot up. Where it is
            not there any more, nothing is done, and a warning says so.
          - The bricks lie below C(/run/gluster/snaps) then, which is for no longer than it takes to bring them home;
            docs/gluster.md tells how. To get files back, activate the snapshot and mount it instead.
        type: str
        choices: [present, absent, restored]
        default: present
      description:
        description: A note that gluster keeps with a new snapshot.
        type: str
        default: ""
  allow:
    description: What would be refused otherwise. V(restore) permits to lose what was written since the snapshot.
    type: list
    elements: str
    choices: [restore]
    default: []
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Keep the state before an upgrade, and no longer the one before the last
  personal.cluster.gluster_snapshot:
    snapshots:
      - {name: gv0-before-13, volume: gv0, description: before Debian 13}
      - {name: gv0-before-12, volume: gv0, state: absent}
  run_once: true

- name: Go back, after the volume was stopped
  personal.cluster.gluster_snapshot:
    snapshots:
      - {name: gv0-before-13, volume: gv0, state: restored}
    allow: [restore]
  run_once: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
snapshots:
  description: All snapshots of the declared volumes by their names, with volume, created and description.
  returned: always
  type: dict
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, snapshots
from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm import thin
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

SNAPSHOT_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "volume": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent", "restored"], "default": "present"},
    "description": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "snapshots": {"type": "list", "elements": "dict", "required": True, "options": SNAPSHOT_OPTIONS},
            "allow": {"type": "list", "elements": "str", "choices": ["restore"], "default": []},
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked, pools = cli.from_params(Runner(), given), partial(thin.pools_below, Runner())
    _engine.run(module, snapshots.Snapshots(given["snapshots"], asked, given["allow"], pools), alone=True)


if __name__ == "__main__":
    main()
