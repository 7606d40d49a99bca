#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the gate before a node of a GlusterFS pool may go down."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_heal
short_description: Wait until a GlusterFS pool can lose a node
version_added: 0.1.0
description:
  - Waits until all peers are connected members, all bricks and self-heal daemons run, nothing waits to be healed, and
    no task is at work, in several looks in a row. Self-heal daemons are told each minute to look at what waits; by
    themselves they do so every ten minutes. One that has crashed is started when all bricks of its volume run, for
    glusterd does not do that. Changes nothing else.
  - Run it on one host, before a node is rebooted or changed, and again before the next one.
  - What a brick does not count is unknown, and unknown is not healed. Split-brain does not heal by itself; the
    failure says how to see it.
  - In check mode it looks once, and tells as a warning what a run would wait for.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  volumes:
    description: Names of the volumes that must be well; all that are started when empty.
    type: list
    elements: str
    default: []
  peers:
    description: How many members the pool must have, this host included. Those that it knows when V(0).
    type: int
    default: 0
  without:
    description:
      - Nodes that are lost, or whose bricks are. Whether they are there, and what waits to be healed on them, does not
        count. The bricks of the others must run, know what waits, and be free of split-brain; self-heal daemons, which
        a reset may crash and M(personal.cluster.gluster_volume) starts again, do not count.
    type: list
    elements: str
    default: []
  polls:
    description: How many looks in a row must find everything well.
    type: int
    default: 3
  interval:
    description: Seconds between two looks.
    type: int
    default: 10
  timeout:
    description: Seconds after which it fails and names what is not well.
    type: int
    default: 1800
seealso:
  - module: personal.cluster.gluster_volume_info
"""

EXAMPLES = r"""
- name: Wait until a node may go down
  personal.cluster.gluster_heal:
    peers: 3
    timeout: 3600
  run_once: true

- name: See that the others have everything that the lost node3 had
  personal.cluster.gluster_heal:
    peers: 3
    without: [node3]
  delegate_to: node1
  run_once: true
"""

RETURN = r"""
healthy:
  description: Whether the pool can lose a node; false only in check mode.
  returned: success
  type: bool
troubles:
  description: What stands in the way, a sentence each.
  returned: success
  type: list
  elements: str
looks:
  description: How often it looked.
  returned: success
  type: int
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, gate
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "str", "default": []},
            "peers": {"type": "int", "default": 0},
            "without": {"type": "list", "elements": "str", "default": []},
            "polls": {"type": "int", "default": 3},
            "interval": {"type": "int", "default": 10},
            "timeout": {"type": "int", "default": 1800},
            **cli.OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    asked = cli.from_params(Runner(), given)
    fields = (field.name for field in dataclasses.fields(gate.Gate))
    wanted = gate.Gate(**{name: given[name] for name in fields})

    def read() -> dict[str, Any]:
        seen = gate.look_once(asked, wanted) if module.check_mode else gate.pass_gate(asked, wanted)
        for trouble in seen.troubles:
            module.warn(f"would wait: {trouble}")
        return {"healthy": not seen.troubles, "troubles": seen.troubles, "looks": seen.looks}

    _engine.report(module, read)


if __name__ == "__main__":
    main()
