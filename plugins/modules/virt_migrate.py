#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: live migration of one guest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_migrate
short_description: Migrate a running guest from this node to another without stopping it
version_added: 0.1.0
description:
  - Runs on the node that has the guest. Both libvirt daemons talk over TLS with the cluster's certificates.
    No ssh keys are shared.
  - The guest's definition and its autostart mark move with it, so that it is defined on exactly one node.
  - Memory is sent over TLS to O(address). When it fails or takes longer than O(timeout), the guest stays where it was.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.libvirt]
options:
  name:
    description: Name of the guest.
    type: str
    required: true
  to:
    description: Name of the other node, for messages.
    type: str
    required: true
  address:
    description: Address of the other node in the storage network; it must stand in that node's certificate.
    type: str
    required: true
  shared:
    description: Directories that all nodes share. A guest with a disk elsewhere is refused.
    type: list
    elements: path
    default: [/srv/gv0]
  timeout:
    description: Seconds after which the migration is given up.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Empty a node before maintenance
  personal.cluster.virt_migrate:
    name: web
    to: node2
    address: 10.10.0.12
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
here:
  description: State of the guest on this node.
  returned: always
  type: str
there:
  description: State of the guest on the other node.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import OPTIONS
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.migration import Migration


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "to": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "shared": {"type": "list", "elements": "path", "default": ["/srv/gv0"]},
            "timeout": {"type": "int", "default": 600},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    _engine.run(module, Migration(module.params))


if __name__ == "__main__":
    main()
