#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all volumes of a GlusterFS pool in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_volume
short_description: Declare all volumes of a GlusterFS pool in one execution
version_added: 0.1.0
description:
  - Creates volumes, sets their options, starts, stops and deletes them, and adds bricks. Run it once, on one host.
  - Reads the pool and all volumes with three calls, and sets all options of a volume with one. Options are compared by
    meaning (V(enable) is V(on), V(64MB) is V(67108864)), hosts by their identity, whatever name they go by.
  - Refuses what endangers data before it changes anything; see O(volumes[].allow). It never passes C(force) to gluster.
  - While a peer is disconnected, a brick is offline, entries wait to be healed, a task is in progress, or snapshots
    exist, no bricks are added. TLS is not toggled on a started volume, sharding not on one that may hold data.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  volumes:
    description: The volumes.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the volume.
        type: str
        required: true
      state:
        description: V(present) leaves alone whether the volume runs; V(absent) leaves the data on the bricks.
        type: str
        choices: [present, started, stopped, absent]
        default: started
      replica:
        description: Copies of each file, an arbiter counted as one. Three unless O(volumes[].disperse) is given.
        type: int
      arbiter:
        description: How many bricks of a set hold names and no data (the last of the set).
        type: int
        choices: [0, 1]
        default: 0
      disperse:
        description: Bricks of one dispersed set.
        type: int
      redundancy:
        description: Bricks of a dispersed set that may be lost.
        type: int
      bricks:
        description: The bricks; each run of as many as a set has forms one set, which must not use a host twice.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Name of the host in the pool.
            type: str
            required: true
          path:
            description: Directory, inside a mounted filesystem of its own. Made by gluster; its parent must exist.
            type: path
            required: true
      group:
        description: Option group shipped with GlusterFS, as V(virt), that is applied beneath O(volumes[].options).
        type: str
      options:
        description: Options by their full names. Others that are set on the volume are left alone.
        type: dict
        default: {}
      allow:
        description:
          - What would be refused otherwise. V(delete) permits O(volumes[].state=absent); V(replica_change) permits
            fewer than three copies, and raising their number.
        type: list
        elements: str
        choices: [delete, replica_change]
        default: []
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Provide a volume for disks of virtual machines
  personal.cluster.gluster_volume:
    volumes:
      - name: gv0
        group: virt
        bricks:
          - {host: node1, path: /bricks/gv0/brick}
          - {host: node2, path: /bricks/gv0/brick}
          - {host: node3, path: /bricks/gv0/brick}
        options:
          storage.owner-uid: 64055
          storage.owner-gid: 64055
  run_once: true

- name: Delete a volume, leaving the data on its bricks
  personal.cluster.gluster_volume:
    volumes:
      - name: scratch
        state: absent
        allow: [delete]
  run_once: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
volumes:
  description: State, layout, bricks and options of each declared volume.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, volumes
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

BRICK_OPTIONS: dict[str, Any] = {
    "host": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
}
VOLUME_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "started", "stopped", "absent"], "default": "started"},
    "replica": {"type": "int"},
    "arbiter": {"type": "int", "choices": [0, 1], "default": 0},
    "disperse": {"type": "int"},
    "redundancy": {"type": "int"},
    "bricks": {"type": "list", "elements": "dict", "default": [], "options": BRICK_OPTIONS},
    "group": {"type": "str"},
    "options": {"type": "dict", "default": {}},
    "allow": {"type": "list", "elements": "str", "choices": ["delete", "replica_change"], "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": VOLUME_OPTIONS,
                "mutually_exclusive": [("replica", "disperse")],
                "required_together": [("disperse", "redundancy")],
            },
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    _engine.run(module, volumes.Volumes(given["volumes"], asked, given["local_host"]))


if __name__ == "__main__":
    main()
