#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Have Debian packages installed, and ask apt only when one is missing
version_added: 0.1.0
description:
  - Reads dpkg's own list of what is installed. When every package is there, that is all; opening apt's index of all of
    Debian, only to learn the same, would take much longer in every layer of every run.
  - What is missing is installed by M(ansible.builtin.apt), without recommended packages, after updating an index that
    is older than a day. What is installed is never upgraded.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
options:
  names:
    description: Names of packages.
    type: list
    elements: str
    required: true
  fresh_index:
    description: Update the index whatever its age, for example because a repository was just added.
    type: bool
    default: false
seealso:
  - module: ansible.builtin.apt
"""

EXAMPLES = r"""
- name: Install Open vSwitch
  personal.cluster.packages:
    names: [openvswitch-switch, iputils-ping]
"""

RETURN = r"""
missing:
  description: Names of the packages that were not installed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends import dpkg


def main() -> None:
    """Run the part of the module that looks; the action plugin of the same name installs."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "fresh_index": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    _engine.report(module, lambda: {"missing": dpkg.missing(module.params["names"])})


if __name__ == "__main__":
    main()
