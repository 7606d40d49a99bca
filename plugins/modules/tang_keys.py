#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the keys of a tang server, their rotation and their end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tang_keys
short_description: Tell, rotate and purge the keys of a tang server
version_added: 0.1.0
description:
  - Returns every key of a tang host, and whether it is advertised. A hidden key makes no new bindings, but what was
    bound with it still unlocks.
  - A rotation makes new keys and then hides those that were advertised when it began, once for each name. There is an
    advertised key at every moment, and no key is lost; a run that was killed is completed by the next one with the
    same name.
  - Owner and mode of all keys become those that Debian's tang gives them.
  - A private key is never returned.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - tang and jose on the tang host
options:
  directory:
    description: Directory of the keys; the default is that of Debian 12 and 13.
    type: path
    default: /var/lib/tang
  rotation:
    description:
      - Name of the rotation that shall have been made, such as the month. One whose name was used before does nothing.
    type: str
  purge:
    description:
      - Delete all hidden keys. Bindings that were made with them unlock nothing from then on, those in old backups of
        headers too. Not in one run with O(rotation).
    type: bool
    default: false
  in_use:
    description:
      - Thumbprints of the keys that clients are bound with, needed for O(purge), which is refused while one of them
        is hidden.
    type: list
    elements: str
  backup_dir:
    description:
      - Where a rotation leaves a copy of each key that it hides, C(KID.jwk), mode 0400. A purge leaves the copies
        alone.
    type: path
    default: /var/backups/personal-cluster/tang
"""

EXAMPLES = r"""
- name: See the keys
  personal.cluster.tang_keys:

- name: Rotate them
  personal.cluster.tang_keys:
    rotation: 2026-12

- name: Delete the hidden ones, when every client has been bound again
  personal.cluster.tang_keys:
    purge: true
    in_use: [0vLdThm3bfAra05igPvEt_vYZjLhpT1ksmjOc9rBNqw]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
tang_keys:
  description: Every key; V(new) stands for the thumbprint of one that is yet to be made.
  returned: always
  type: list
  elements: dict
  contains:
    kid:
      description: SHA-256 thumbprint, by which bindings name the key.
      type: str
      returned: always
    thumbprints:
      description: By C(S256), and by C(S1), which clevis used before version 15.
      type: dict
      returned: always
    use:
      description: V(signing), V(exchange), or V(other), which tang has no use for.
      type: str
      returned: always
    advertised:
      description: Whether new bindings are made with it; otherwise it is hidden.
      type: bool
      returned: always
    file:
      description: Name of its file.
      type: str
      returned: always
    owner:
      description: User and group.
      type: str
      returned: always
    mode:
      description: Mode of its file.
      type: str
      returned: always
    backup:
      description: Path of its copy.
      type: str
      returned: always
rotations:
  description: The keys that each rotation retires, by the rotation's name.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.tang import TangKeys
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/var/lib/tang"},
            "rotation": {"type": "str"},
            "purge": {"type": "bool", "default": False},
            "in_use": {"type": "list", "elements": "str"},
            "backup_dir": {"type": "path", "default": "/var/backups/personal-cluster/tang"},
        },
        required_if=[("purge", True, ("in_use",))],
        supports_check_mode=True,
    )
    params = module.params
    keys = TangKeys(
        params["directory"],
        params["backup_dir"],
        Runner(),
        params["rotation"],
        params["purge"],
        params["in_use"] or (),
    )
    _engine.run(module, keys, alone=True)


if __name__ == "__main__":
    main()
