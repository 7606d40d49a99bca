#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: look at a node before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Look at a node, its disks, network cards and clock, before anything is changed
version_added: 0.1.0
description:
  - Reads in one execution what a cluster depends on. Changes nothing, in check mode and out of it.
  - An action plugin of the same name measures on the controller how far the two clocks are apart.
author: personal.cluster maintainers (@personal-cluster)
attributes:
  check_mode:
    description: The module only reads, so check mode and a run are the same.
    support: full
  diff_mode:
    description: Nothing is ever changed, so there is no difference to show.
    support: none
options:
  disks:
    description:
      - The disks to look at, as the inventory names them. Those that do not exist are left out of RV(node.disks).
    type: list
    elements: str
    default: []
  tang:
    description: The tang servers to ask for their advertisement, each as C(ADDRESS:PORT).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for a tang server to accept, and for each part of its answer.
    type: float
    default: 20.0
  keep_going:
    description:
      - A host that cannot be reached, or not be looked at, does not fail; RV(problem) says what happened.
      - This lets one report hold the findings of all hosts.
    type: bool
    default: false
  declared:
    description: Returned as it is, so that what was declared for a host and what was found there travel together.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Look at the node
  personal.cluster.node_info:
    disks: [/dev/disk/by-id/ata-ST4000-1]
    tang: ["10.10.0.10:7500"]
  register: looked
"""

RETURN = r"""
node:
  description: What was found.
  returned: when the node could be looked at
  type: dict
  contains:
    hostname:
      description: The node's own name.
      type: str
    release:
      description: C(id), C(version_id) and C(codename) of the distribution.
      type: dict
    root:
      description: Whether the module ran as root.
      type: bool
    memory_mib:
      description: Memory in MiB.
      type: int
    kvm:
      description: Whether C(/dev/kvm) exists.
      type: bool
    python_apt:
      description: Whether Python's apt bindings are installed.
      type: bool
    plain_volumes:
      description: The volumes of a GlusterFS that runs without TLS between its daemons.
      type: list
      elements: str
    interfaces:
      description: By name, C(mac), whether the interface is C(physical), and its C(addresses) without prefix lengths.
      type: dict
    disks:
      description:
        - By name as in O(disks), C(kernel_name), C(type), C(size) in bytes, C(read_only), C(unreadable) (the error,
          when it could not be read), C(signatures), C(mounts), C(holders), C(block_size) (its sectors, in bytes) and
          C(luks) (version, label, uuid, whether clevis is bound, and its sector_size; null without a LUKS header).
      type: dict
    tang_problems:
      description: For each of O(tang), what went wrong; an empty string when it answered.
      type: dict
    tang_keys:
      description: Whether it has keys of a tang server, advertised ones or old ones.
      type: bool
    listening:
      description: The TCP ports that something listens on.
      type: list
      elements: int
    time:
      description: The node's clock in seconds since the epoch.
      type: float
    process_age:
      description: Seconds that the module had been running when the clock was read.
      type: float
clock_offset:
  description:
    - How many seconds the node's clock is ahead of the controller's, as two bounds C(low) and C(high).
    - The true value lies between them. They are as far apart as the answer took to travel.
  returned: when the node could be looked at
  type: dict
problem:
  description: Why the node could not be looked at.
  returned: with O(keep_going), when it could not
  type: str
declared:
  description: What was given as O(declared).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.node import Node
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "str", "default": []},
            "tang": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 20.0},
            "keep_going": {"type": "bool", "default": False},
            "declared": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    node = Node(params["disks"], params["tang"], params["timeout"], Runner())
    _engine.report(module, lambda: {"node": node.read(), "declared": params["declared"]})


if __name__ == "__main__":
    main()
