#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the trusted pool of GlusterFS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_peer
short_description: Bring hosts into the trusted pool of GlusterFS, or remove them
version_added: 0.1.0
description:
  - Declares which hosts form the trusted pool. Run it on one of them, once for the cluster.
  - Each new host is awaited until it is a connected member, so that volumes can be made right after.
  - Hosts in the pool that are not declared are reported and left there.
  - With O(state=absent) the named hosts are removed, and no others. A host that holds bricks is not removed.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  peers:
    description:
      - Names of all hosts of the pool, the one the module runs on included. They must resolve the same way on each.
      - With O(state=absent), the names of those that are to go.
    type: list
    elements: str
    required: true
  state:
    description: Whether the hosts are members of the pool.
    type: str
    choices: [present, absent]
    default: present
  allow:
    description: What would be refused otherwise. V(disconnected) permits to remove a host that is not there.
    type: list
    elements: str
    choices: [disconnected]
    default: []
  timeout:
    description: Seconds to wait for one host to join, and for another transaction to finish.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Form the pool
  personal.cluster.gluster_peer:
    peers: [node1, node2, node3]
  run_once: true

- name: Remove a host that is gone for good, after its bricks were replaced
  personal.cluster.gluster_peer:
    peers: [node4]
    state: absent
    allow: [disconnected]
  run_once: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
peers:
  description: With O(state=present) each member of the pool, with O(state=absent) each host of O(peers), by its name.
  returned: always
  type: dict
  contains:
    member:
      description: Whether it is a member.
      type: bool
    connected:
      description: Whether it is connected.
      type: bool
      returned: with O(state=present)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, departure, membership
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "peers": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allow": {"type": "list", "elements": "str", "choices": ["disconnected"], "default": []},
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    if given["state"] == "absent":
        _engine.run(module, departure.Leavers(given["peers"], asked, given["local_host"], given["allow"]))
    _engine.run(module, membership.Peers(given["peers"], asked, given["local_host"]))


if __name__ == "__main__":
    main()
