#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the UUID that a reinstalled node had in its GlusterFS pool."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_identity
short_description: Give a reinstalled node back its identity in a GlusterFS pool
version_added: 0.1.0
description:
  - A node that was installed anew under its old name has another UUID, and its pool rejects it. This writes the old
    UUID and the peers into the files of glusterd while it is stopped; after its start the node is a member again and
    has the volumes. No probe is needed, and a probe instead of this ends in a state that lasts.
  - Glusterd is then started once more, because it refuses to reset bricks of volumes that it has just fetched.
  - Run it on the reinstalled node. Its bricks are another matter, see C(docs/gluster.md) of the collection.
  - Refuses where glusterd belongs to a pool as somebody else.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  uuid:
    description: The UUID that the node had, as M(personal.cluster.gluster_peer_info) on another node tells it.
    type: str
    required: true
  peers:
    description: UUIDs of other nodes of the pool by their names; one is enough. The node itself among them is left out.
    type: dict
    required: true
  op_version:
    description: Operating version of the pool. Left as glusterd has it when V(0).
    type: int
    default: 0
  volumes:
    description:
      - Names of the volumes of the pool, as M(personal.cluster.gluster_volume_info) on another node tells them.
        Glusterd is waited for until it has fetched them, and then started once more.
    type: list
    elements: str
    default: []
  service:
    description: Unit of glusterd, stopped while its files are written, and running afterwards. Not touched when empty.
    type: str
    default: glusterd.service
  timeout:
    description: Seconds in which the peers must tell of the volumes.
    type: int
    default: 300
seealso:
  - module: personal.cluster.gluster_peer_info
  - module: personal.cluster.gluster_heal
"""

EXAMPLES = r"""
- name: Ask a node that was not reinstalled
  personal.cluster.gluster_peer_info:
  delegate_to: node1
  register: pool

- name: Ask it for the volumes too
  personal.cluster.gluster_volume_info:
    heal: false
  delegate_to: node1
  register: known

- name: Be node3 again
  personal.cluster.gluster_identity:
    uuid: "{{ pool.peers['node3'].uuid }}"
    peers:
      node1: "{{ pool.peers['localhost'].uuid }}"
    op_version: "{{ pool.op_version }}"
    volumes: "{{ known.volumes.keys() | list }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
uuid:
  description: UUID of this glusterd.
  returned: always
  type: str
peers:
  description: UUIDs of the peers that it knows, by their names.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, identity
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "uuid": {"type": "str", "required": True},
            "peers": {"type": "dict", "required": True},
            "op_version": {"type": "int", "default": 0},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "service": {"type": "str", "default": "glusterd.service"},
            "timeout": {"type": "int", "default": 300},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given, run = module.params, Runner()
    restored = identity.Restored(
        given["uuid"],
        given["peers"],
        given["op_version"],
        given["volumes"],
        given["service"],
        cli.from_params(run, given),
        run,
    )
    _engine.run(module, restored, alone=True)


if __name__ == "__main__":
    main()
