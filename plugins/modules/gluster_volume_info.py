#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: how the volumes of a GlusterFS pool are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_volume_info
short_description: Tell how the volumes of a GlusterFS pool are
version_added: 0.1.0
description:
  - Returns state, bricks, options, tasks and what waits to be healed. Changes nothing.
  - Takes three calls of gluster, and one more for each volume with copies; none of those without O(heal).
  - What a brick does not count is unknown, and a volume with such a brick is not healed.
  - In check mode a host on which GlusterFS was never used has no volumes; otherwise that is an error.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  volumes:
    description: Names of the volumes; all when empty.
    type: list
    elements: str
    default: []
  heal:
    description: Ask what waits to be healed.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
seealso:
  - module: personal.cluster.gluster_heal
"""

EXAMPLES = r"""
- name: Look at all volumes
  personal.cluster.gluster_volume_info:
  register: gluster

- name: Name the volumes that are not healed
  ansible.builtin.debug:
    msg: "{{ gluster.volumes | dict2items | rejectattr('value.healed') | map(attribute='key') }}"
"""

RETURN = r"""
available:
  description: Whether glusterd answered; false only in check mode.
  returned: always
  type: bool
volumes:
  description: Each volume by its name.
  returned: when available
  type: dict
  contains:
    state:
      description: V(created), V(started) or V(stopped).
      type: str
    layout:
      description: How the bricks form sets, as V(replica 3).
      type: str
    bricks:
      description: Each brick in order.
      type: list
      elements: dict
      contains:
        host:
          description: Its host.
          type: str
        path:
          description: Its path there.
          type: str
        uuid:
          description: UUID of the host.
          type: str
        set:
          description: Number of its set, from 0.
          type: int
        online:
          description: Whether its process runs.
          type: bool
        entries:
          description: How many entries wait to be healed, null where that is not known.
          type: int
        split_brain:
          description: How many of them are in split-brain, null where that is not known.
          type: int
    options:
      description: The options that are set.
      type: dict
    snapshots:
      description: How many snapshots there are.
      type: int
    tasks:
      description: Each task that glusterd remembers.
      type: list
      elements: dict
      contains:
        kind:
          description: Its kind in the words of gluster, as V(Rebalance).
          type: str
        status:
          description: Its status, as V(in progress).
          type: str
    healed:
      description: Whether it is started and nothing waits to be healed. False when that is not known.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, info
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "str", "default": []},
            "heal": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    _engine.report(
        module, lambda: info.unless_new(lambda: info.volumes(asked, given["volumes"], given["heal"]), module.check_mode)
    )


if __name__ == "__main__":
    main()
