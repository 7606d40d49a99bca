#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: headers of disks and secrets in one encrypted file on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: luks_escrow
short_description: Keep headers of disks and secrets in one encrypted file on the controller
version_added: 0.1.0
description:
  - Keeps a bundle, a tar archive that gpg encrypts with a passphrase. C(gpg -d FILE | tar x) opens it on any computer,
    without this collection; the file README in it tells what to do then.
  - Or takes one header out of it, with O(take).
  - Runs on the controller - delegate it to localhost. What is inside is never written there in plain text, apart from
    a header that is taken out.
  - Headers and secrets that are not declared stay in the bundle, unless O(purge) is set.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - gpg and gpg-agent on the controller
options:
  path:
    description: The bundle.
    type: path
    required: true
  passphrase:
    description: What encrypts it, one line.
    type: str
    required: true
  headers:
    description: The headers that shall be in it.
    type: list
    elements: dict
    suboptions: &header
      host:
        description: Host of the disk.
        type: str
        required: true
      name:
        description: Name of the disk.
        type: str
        required: true
      uuid:
        description: UUID of the header.
        type: str
        required: true
      size:
        description: Size of the disk in bytes.
        type: int
        required: true
      sha256:
        description: SHA-256 of the header's backup.
        type: str
        required: true
  incoming:
    description: Directory with the backups that are not in the bundle yet, each as C(SHA256.img).
    type: path
  secrets:
    description: Texts that shall be in it, by their names.
    type: dict
    default: {}
  purge:
    description:
      - Take headers and secrets that are not declared out of the bundle. Nothing brings them back; copies of the bundle
        that were made before still have them.
    type: bool
    default: false
  take:
    description: A header to take out.
    type: dict
    suboptions:
      host:
        description: Host of the disk.
        type: str
        required: true
      name:
        description: Name of the disk.
        type: str
        required: true
      dest:
        description: File to write, mode 0600.
        type: path
        required: true
"""

EXAMPLES = r"""
- name: Keep a header and a passphrase
  personal.cluster.luks_escrow:
    path: "{{ cluster_state_dir }}/escrow.tar.gpg"
    passphrase: "{{ cluster_escrow_passphrase }}"
    headers:
      - host: node1
        name: gv0
        uuid: 0a8d2bc5-3f0e-4a5c-9d0e-2f5d4d3b6a11
        size: 1000204886016
        sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    incoming: /run/user/1000/headers
    secrets:
      recovery-passphrase: "{{ cluster_recovery_passphrase }}"
  delegate_to: localhost
  run_once: true
  become: false

- name: Take a header out
  personal.cluster.luks_escrow:
    path: "{{ cluster_state_dir }}/escrow.tar.gpg"
    passphrase: "{{ cluster_escrow_passphrase }}"
    take: {host: node1, name: gv0, dest: /run/user/1000/gv0.img}
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
headers:
  description: All headers in the bundle, with host, name, uuid, size and sha256.
  returned: without O(take)
  type: list
  elements: dict
secrets:
  description: Names of the secrets in it.
  returned: without O(take)
  type: list
  elements: str
mode:
  description: Mode of the bundle.
  returned: without O(take)
  type: str
header:
  description: The header that was asked for, with host, name, uuid, size and sha256.
  returned: with O(take)
  type: dict
dest:
  description: Where it was written.
  returned: with O(take)
  type: str
"""

from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.escrow import Bundle, Gpg, Header, Taken

TEXT = {"type": "str", "required": True}
DISK: dict[str, Any] = {"host": TEXT, "name": TEXT}
HEADER: dict[str, Any] = {**DISK, "uuid": TEXT, "size": {"type": "int", "required": True}, "sha256": TEXT}


def main() -> None:
    """Run the module."""
    module = _engine.SecretModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "headers": {"type": "list", "elements": "dict", "options": HEADER},
            "incoming": {"type": "path"},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "purge": {"type": "bool", "default": False},
            "take": {"type": "dict", "options": {**DISK, "dest": {"type": "path", "required": True}}},
        },
        required_one_of=[("headers", "take")],
        mutually_exclusive=[("headers", "take")],
        supports_check_mode=True,
    )
    params = module.params
    gpg = Gpg(params["passphrase"])
    secrets = {name: str(text) for name, text in params["secrets"].items()}
    hidden = [params["passphrase"], *secrets.values()]
    if params["take"]:
        _engine.run(module, Taken(params["path"], gpg, **params["take"]), hidden)
    headers = [Header(**item) for item in params["headers"]]
    bundle = Bundle(params["path"], gpg, headers, secrets, incoming=params["incoming"], purge=params["purge"])
    _engine.run(module, bundle, hidden, alone=True)


if __name__ == "__main__":
    main()
