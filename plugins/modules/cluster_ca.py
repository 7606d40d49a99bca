#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the cluster's certificate authority and its nodes' certificates, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_ca
short_description: Keep the cluster's certificate authority and its nodes' certificates, on the controller
version_added: 0.1.0
description:
  - Makes what is missing in one execution - the authority, and a key and a certificate for each node.
  - Runs on the controller - delegate it to localhost.
  - Keys are P-256, made once and never replaced. A certificate is issued again, with the same key, when the names or
    addresses of its node have changed, and when it ends within O(renew_days).
  - Keys are never returned.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - cryptography >= 42 on the controller (ansible-core brings it)
options:
  directory:
    description:
      - Where everything is kept, mode 0700 - C(ca.key), C(ca.pem), and C(nodes/NAME.key) and C(nodes/NAME.pem).
      - Whoever holds this directory can act as any node. Back it up.
    type: path
    required: true
  cluster:
    description: Name of the cluster; part of the authority's name.
    type: str
    required: true
  nodes:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Common name, and the first of the certificate's host names.
        type: str
        required: true
      names:
        description: Further host names.
        type: list
        elements: str
        default: []
      addresses:
        description: IP addresses.
        type: list
        elements: str
        default: []
  ca_years:
    description: For how many years a new authority is valid.
    type: int
    default: 20
  node_years:
    description: For how many years a new certificate is valid.
    type: int
    default: 5
  renew_days:
    description:
      - Certificates of nodes that end within so many days are issued again. V(0) renews none before its end.
      - The authority is never renewed.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Keep the certificates
  personal.cluster.cluster_ca:
    directory: "{{ cluster_state_dir }}/tls"
    cluster: home
    nodes:
      - name: node1
        addresses: [10.10.0.11]
  delegate_to: localhost
  run_once: true
  become: false
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
directory_mode:
  description: Mode of the directory.
  returned: always
  type: str
authority:
  description: Serial number, last day and mode of the key.
  returned: always
  type: dict
certificates:
  description: By node, serial number, last day, names, addresses and mode of the key.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.x509 import Authority, Wanted


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "cluster": {"type": "str", "required": True},
            "nodes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "names": {"type": "list", "elements": "str", "default": []},
                    "addresses": {"type": "list", "elements": "str", "default": []},
                },
            },
            "ca_years": {"type": "int", "default": 20},
            "node_years": {"type": "int", "default": 5},
            "renew_days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = [
        Wanted(node["name"], tuple(sorted({node["name"], *node["names"]})), tuple(sorted(set(node["addresses"]))))
        for node in params["nodes"]
    ]
    lasting = params["ca_years"], params["node_years"], params["renew_days"]
    authority = Authority(params["directory"], params["cluster"], wanted, *lasting)
    _engine.run(module, authority)


if __name__ == "__main__":
    main()
