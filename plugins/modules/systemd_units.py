#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all systemd units of a layer in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Enable, start and restart all systemd units of a layer in one execution
version_added: 0.1.0
description:
  - Declares which units are enabled and running. What is enabled is changed for all units at once, and systemd reads
    its unit files once after that. Native units only; links for another init are left alone.
  - A unit whose configuration is newer than its start is restarted when O(units[].restart_after) lists the files, so
    that a run that was killed between writing a file and restarting its unit converges on the next run.
    Handlers cannot do that.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
options:
  units:
    description: The units of this layer, in the order in which they are started.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Unit name with its suffix.
        type: str
        required: true
      enabled:
        description: Whether it starts at boot. Left alone when not given.
        type: bool
      masked:
        description: Whether it is masked. Left alone when not given.
        type: bool
      state:
        description: Whether it runs now. Left alone when not given.
        type: str
        choices: [started, stopped]
      restart_after:
        description: Paths; a running unit that was started before one of them was last changed is restarted.
        type: list
        elements: path
        default: []
      restart_when:
        description:
          - A command that must succeed before a running unit is restarted, each word an item. It is tried again for
            O(timeout) seconds; then the module fails, and the unit is not restarted.
        type: list
        elements: str
        default: []
  timeout:
    description: Seconds that one start, stop or restart may take, and the wait for one.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Run the exporter
  personal.cluster.systemd_units:
    units:
      - name: prometheus-node-exporter.service
        enabled: true
        state: started
        restart_after: [/etc/default/prometheus-node-exporter]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
units:
  description: Whether each unit is enabled, masked and active.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.systemd import Units
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool"},
                    "masked": {"type": "bool"},
                    "state": {"type": "str", "choices": ["started", "stopped"]},
                    "restart_after": {"type": "list", "elements": "path", "default": []},
                    "restart_when": {"type": "list", "elements": "str", "default": []},
                },
            },
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    _engine.run(module, Units(module.params["units"], Runner(), module.params["timeout"]))


if __name__ == "__main__":
    main()
