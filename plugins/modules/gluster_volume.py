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
  - Creates volumes, sets their options, starts, stops and deletes them, adds, replaces, resets and takes out bricks.
    Run it once, on one host.
  - Reads the pool and all volumes with three calls, and sets all options of a volume with one. Options are compared by
    meaning (V(enable) is V(on), V(64MB) is V(67108864)), hosts by their identity, whatever name they go by.
  - Refuses what endangers data before it changes anything; see O(volumes[].allow). It never passes C(force) to gluster
    where gluster's own checks would be skipped, unless it has made them itself.
  - While a peer is disconnected, a brick is offline, entries wait to be healed (or their number is unknown), a task is
    in progress, or snapshots exist, bricks are not changed; a dead brick may be replaced or reset nevertheless. Nor are
    those of a volume that was stopped, of which gluster counts nothing; a run before starts it.
  - TLS is not toggled on a started volume, sharding not on one that may hold data. Bricks on the root filesystem, on a
    bare mount point, or with the id of another volume are not taken.
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
        description: Options by their full names.
        type: dict
        default: {}
      options_purge:
        description:
          - Reset options that are set on the volume and not declared. Those of the whole cluster, those that glusterd
            sets at creation or with commands of their own (quota, bitrot), and C(user.*) are left alone.
        type: bool
        default: false
      bricks_purge:
        description:
          - Take bricks that are not declared out of the volume, in whole sets, when their data has moved to the others.
            Needs V(shrink) in O(volumes[].allow). Refused on a sharded volume that was ever started.
        type: bool
        default: false
      replace:
        description:
          - Bricks that others take the place of; O(volumes[].bricks) has the new ones. May stay when it is done.
          - Run it on the host of the new brick, where its filesystem is looked at; gluster does not look by itself.
          - A brick that runs is replaced only while nothing waits to be healed. For a dead one the others of its set
            must run, without split-brain.
          - Of a set with an arbiter, and of a dispersed one, a dead brick is not given up while too few of the others
            list an entry to heal, since those that do not list it may lack it themselves. Two more calls tell. Of two
            copies nothing tells, and V(stale_source) in O(volumes[].allow) is always asked for.
        type: list
        elements: dict
        default: []
        suboptions:
          from:
            description: The brick that goes.
            type: dict
            required: true
            suboptions: &place
              host:
                description: Name of the host in the pool.
                type: str
                required: true
              path:
                description: Directory of the brick.
                type: path
                required: true
          to:
            description: The brick that comes.
            type: dict
            required: true
            suboptions: *place
      reset:
        description:
          - Bricks whose filesystem was made anew, and that are to be filled in their old place. Those that run are left
            alone, so it may stay declared. Run it on their host.
          - One that still carries the id of the volume has not lost its data, and is refused; it needs to be started.
        type: list
        elements: dict
        default: []
        suboptions: *place
      rebalance:
        description:
          - What follows when bricks were added. V(fix-layout) lets new files go to them, V(full) moves files there too,
            and is refused on a sharded volume that was ever started. A mark on the volume, the option
            C(user.personal-cluster.balance), tells a later run what was not done yet.
        type: str
        choices: [none, fix-layout, full]
        default: none
      wait:
        description:
          - Wait for the end of a rebalance. Bricks are taken out only by a run that waits; without it their data only
            begins to move.
        type: bool
        default: true
      timeout:
        description: Seconds to wait for data to move, and for a new brick to run.
        type: int
        default: 3600
      allow:
        description:
          - What would be refused otherwise. V(delete) permits O(volumes[].state=absent); V(replica_change) permits
            fewer than three copies, and raising their number; V(shrink) permits O(volumes[].bricks_purge); V(grow)
            permits adding bricks to a sharded volume that was ever started. Shut its guests down before that.
            V(stale_source) permits giving up a dead brick of a set with an arbiter, of a dispersed set or of two
            copies, and with it what the other bricks lack; see O(volumes[].replace).
        type: list
        elements: str
        choices: [delete, grow, replica_change, shrink, stale_source]
        default: []
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
  config_backup_dir:
    description:
      - Where glusterd's configuration is kept, in an archive, before the first change of bricks in a run, and before a
        volume is deleted. The newest twenty archives stay.
    type: path
    default: /var/backups/personal-cluster/glusterd
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

- name: Fill a brick whose disk was replaced, on its host
  personal.cluster.gluster_volume:
    volumes:
      - name: gv0
        group: virt
        bricks:
          - {host: node1, path: /bricks/gv0/brick}
          - {host: node2, path: /bricks/gv0/brick}
          - {host: node3, path: /bricks/gv0/brick}
        reset:
          - {host: node3, path: /bricks/gv0/brick}

- name: Move the brick of a host to another disk, on that host
  personal.cluster.gluster_volume:
    volumes:
      - name: gv1
        bricks:
          - {host: node1, path: /bricks/gv1/brick}
          - {host: node2, path: /bricks/gv1/brick}
          - {host: node3, path: /bricks/new/brick}
        replace:
          - from: {host: node3, path: /bricks/gv1/brick}
            to: {host: node3, path: /bricks/new/brick}

- name: Keep one set of bricks, and only the options that are declared
  personal.cluster.gluster_volume:
    volumes:
      - name: gv1
        bricks:
          - {host: node1, path: /bricks/gv1/brick}
          - {host: node2, path: /bricks/gv1/brick}
          - {host: node3, path: /bricks/gv1/brick}
        bricks_purge: true
        options_purge: true
        allow: [shrink]
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
  description: Each declared volume by its name.
  returned: always
  type: dict
  contains:
    state:
      description: V(created), V(started), V(stopped) or V(absent).
      type: str
    layout:
      description: How the bricks form sets, as V(replica 3).
      type: str
      returned: unless absent
    bricks:
      description: Each brick in order, as V(node1:/bricks/gv0/brick).
      type: list
      elements: str
      returned: unless absent
    options:
      description: The options that are set.
      type: dict
      returned: unless absent
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
REPLACE_OPTIONS: dict[str, Any] = {
    "from": {"type": "dict", "required": True, "options": BRICK_OPTIONS},
    "to": {"type": "dict", "required": True, "options": BRICK_OPTIONS},
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
    "allow": {
        "type": "list",
        "elements": "str",
        "choices": ["delete", "grow", "replica_change", "shrink", "stale_source"],
        "default": [],
    },
    "options_purge": {"type": "bool", "default": False},
    "bricks_purge": {"type": "bool", "default": False},
    "replace": {"type": "list", "elements": "dict", "default": [], "options": REPLACE_OPTIONS},
    "reset": {"type": "list", "elements": "dict", "default": [], "options": BRICK_OPTIONS},
    "rebalance": {"type": "str", "choices": ["none", "fix-layout", "full"], "default": "none"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 3600},
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
            "config_backup_dir": {"type": "path", "default": "/var/backups/personal-cluster/glusterd"},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    wanted = volumes.Volumes(given["volumes"], asked, given["local_host"], given["config_backup_dir"])
    _engine.run(module, wanted, alone=True)


if __name__ == "__main__":
    main()
