#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: libvirt's networks and storage pools of a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_host
short_description: Keep libvirt's networks and storage pools of a node the same as on every other node
version_added: 0.1.0
description:
  - Declares networks on Open vSwitch bridges, with a portgroup per VLAN, and directory pools.
    All of them are active and start with libvirtd.
  - A new VLAN is added to a running network without touching its guests. Portgroups that are not declared stay.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.libvirt]
options:
  cluster:
    description: Name of the cluster, from which the UUIDs are derived, the same on every node.
    type: str
    required: true
  networks:
    description: Networks, one for each bridge.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the network.
        type: str
        required: true
      bridge:
        description: Open vSwitch bridge.
        type: str
        required: true
      portgroups:
        description: Names that guests use for VLANs.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the portgroup.
            type: str
            required: true
          tag:
            description:
              - VLAN of its ports, untagged towards the guest. Without it, the port is a trunk of all VLANs (a router).
            type: int
  pools:
    description: Directory pools.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the pool.
        type: str
        required: true
      path:
        description: Directory of the images; created with mode 0711 when it is missing.
        type: path
        required: true
      mount:
        description: A mount point that must be mounted before the pool is made, so that no image lands below it.
        type: path
"""

EXAMPLES = r"""
- name: Give the node the cluster's networks and pools
  personal.cluster.virt_host:
    cluster: home
    networks:
      - name: br0
        bridge: br0
      - name: vlans
        bridge: vlans
        portgroups:
          - {name: blue, tag: 101}
          - {name: trunk}
    pools:
      - {name: gv0, path: /srv/gv0/images, mount: /srv/gv0}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
networks:
  description: The declared networks with their bridge and portgroups.
  returned: always
  type: dict
pools:
  description: The declared pools with their directory.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import OPTIONS
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.hosting import Hosting

NETWORK: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "bridge": {"type": "str", "required": True},
    "portgroups": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "tag": {"type": "int"}},
    },
}
POOL: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "mount": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "networks": {"type": "list", "elements": "dict", "default": [], "options": NETWORK},
            "pools": {"type": "list", "elements": "dict", "default": [], "options": POOL},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    _engine.run(module, Hosting(given["networks"], given["pools"], given["cluster"], given["uri"]))


if __name__ == "__main__":
    main()
