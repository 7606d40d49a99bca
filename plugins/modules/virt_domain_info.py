#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: which guests a node has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_domain_info
short_description: Tell which guests a node has, running or not
version_added: 0.1.0
description:
  - Returns every domain that libvirt knows on the node. Changes nothing.
  - In check mode a node on which libvirt was never used has no guests; otherwise that is an error.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.libvirt]
"""

EXAMPLES = r"""
- name: See where the guests are
  personal.cluster.virt_domain_info:
  register: found
"""

RETURN = r"""
available:
  description: Whether libvirt answered; false only in check mode.
  returned: always
  type: bool
domains:
  description: Each domain by its name, with uuid, state, autostart, memory, vcpus, disks and nics.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt import connection, reading


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=connection.OPTIONS, supports_check_mode=True)
    # A migration that a killed run has begun goes on, and its guests are on their way.
    _engine.report(module, lambda: reading.info(module.params["uri"], module.check_mode), beside="virt_migrate")


if __name__ == "__main__":
    main()
