#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the trusted pool of GlusterFS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_peer
short_description: Bring hosts into the trusted pool of GlusterFS
version_added: 0.1.0
description:
  - Declares which hosts form the trusted pool. Run it on one of them, once for the cluster.
  - Each new host is awaited until it is a connected member, so that volumes can be made right after.
  - Hosts in the pool that are not declared are reported and left there.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  peers:
    description:
      - Names of all hosts of the pool, the one the module runs on included. They must resolve the same way on each.
    type: list
    elements: str
    required: true
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
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
peers:
  description: Whether each host is a member, and connected.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, membership
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "peers": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    _engine.run(module, membership.Peers(given["peers"], asked, given["local_host"]))


if __name__ == "__main__":
    main()
