#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: live migration of guests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_migrate
short_description: Migrate running guests from this node to others without stopping them
version_added: 0.1.0
description:
  - Runs on the node that has the guests. The libvirt daemons talk over TLS with the cluster's certificates.
    No ssh keys are shared.
  - A guest's definition and its autostart mark move with it, so that it is defined on exactly one node.
  - Memory is sent over TLS to O(guests[].address), for one guest after the other. When that fails or takes longer than
    O(timeout), the guest stays where it was.
  - When one of them cannot migrate, none does.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.libvirt]
options:
  guests:
    description: The guests, and where each goes.
    type: list
    elements: dict
    required: true
    suboptions:
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
    description: Seconds after which the migration of a guest is given up.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Empty a node before maintenance
  personal.cluster.virt_migrate:
    guests:
      - {name: web, to: node2, address: 10.10.0.12}
      - {name: mail, to: node3, address: 10.10.0.13}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
guests:
  description: State of each guest on this node (C(here)) and on the other one (C(there)); C(absent) where it is not.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import OPTIONS
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.migration import Migration, Trip


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "guests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {key: {"type": "str", "required": True} for key in ("name", "to", "address")},
            },
            "shared": {"type": "list", "elements": "path", "default": ["/srv/gv0"]},
            "timeout": {"type": "int", "default": 600},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    trips = [Trip(**guest) for guest in given["guests"]]
    _engine.run(module, Migration(trips, given["shared"], given["timeout"], given["uri"]), alone=True)


if __name__ == "__main__":
    main()
