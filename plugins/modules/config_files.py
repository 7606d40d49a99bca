#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all configuration files of a layer in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Write all configuration files of a layer in one execution
version_added: 0.1.0
description:
  - Declares files, managed blocks inside files that belong to someone else, directories and symbolic links.
  - One execution reads everything, then writes only what differs; each file is replaced atomically.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
options:
  files:
    description: The files of this layer, in the order in which they are written.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      state:
        description:
          - V(file) has O(files[].content). V(block) keeps O(files[].content) between two marker lines of a file that
            others edit too. V(directory) and V(link) are what they say.
          - V(absent) removes files and links, never a directory.
        type: str
        choices: [file, block, directory, link, absent]
        default: file
      content:
        description: The text. V(file) and V(block) need this or O(files[].secret_content).
        type: str
      target:
        description: Where a V(link) points.
        type: str
      block:
        description: The name in the marker lines of a V(block).
        type: str
        default: personal.cluster
      owner:
        description: User name.
        type: str
        default: root
      group:
        description: Group name.
        type: str
        default: root
      mode:
        description:
          - Octal mode. V(0644) for files and V(0755) for directories when it is not given.
          - A V(block) keeps the mode of a file that exists.
        type: str
      secret_content:
        description: Text that is a secret, instead of O(files[].content). A digest stands for it in diffs and results.
        type: str
      validate:
        description:
          - A command, as a list, that must accept the new file before it replaces the old one.
          - V(%s) stands for the path of the new file.
        type: list
        elements: str
"""

EXAMPLES = r"""
- name: Configure the exporter
  personal.cluster.config_files:
    files:
      - path: /etc/default/prometheus-node-exporter
        content: |
          ARGS="--collector.systemd"
      - path: /etc/hosts
        state: block
        content: |
          10.10.0.11 node1
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
files:
  description: State, owner, group, mode and content of each path.
  returned: always
  type: dict
written:
  description: The paths that changed.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.files import Files
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

FILE_OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "block", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "target": {"type": "str"},
    "block": {"type": "str", "default": "personal.cluster"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "secret_content": {"type": "str", "no_log": True},
    "validate": {"type": "list", "elements": "str"},
}


def main() -> None:
    """Run the module."""
    module = _engine.SecretModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": FILE_OPTIONS,
                "mutually_exclusive": [("content", "secret_content")],
                "required_if": [
                    ("state", "file", ["content", "secret_content"], True),
                    ("state", "block", ["content", "secret_content"], True),
                    ("state", "link", ["target"]),
                ],
            }
        },
        supports_check_mode=True,
    )
    secrets = [item["secret_content"] for item in module.params["files"] if item["secret_content"]]
    _engine.run(module, Files(module.params["files"], Runner(secrets)), secrets)


if __name__ == "__main__":
    main()
