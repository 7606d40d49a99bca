#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: how disks are encrypted and what unlocks them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: luks_clevis_info
short_description: Tell how disks are encrypted and what unlocks them
version_added: 0.1.0
description:
  - Returns what M(personal.cluster.luks_clevis_bind) would find, from the headers alone, and asks the servers of the
    bindings which keys they advertise. Needs no secret unless O(passphrase) is to be tried, and changes nothing.
  - With O(prove) it waits for a run of M(personal.cluster.luks_clevis_bind) that is at work on the host.
  - A disk that is not there is returned with the kind V(missing). Before cryptsetup is installed, check mode returns
    V(unread) for a disk with a header; otherwise that is an error.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - cryptsetup and curl on the node
options:
  devices:
    description: Paths of the block devices.
    type: list
    elements: path
    required: true
  prove:
    description:
      - Let the bindings of each disk yield a passphrase, and return as C(unlocks) whether the disk accepts it. As at
        boot, that is the first one that any of them yields, in the order of their keyslots, though another one may be
        right. The passphrase goes nowhere.
    type: bool
    default: false
  passphrase:
    description: Try it on each disk, and return as C(opens) whether it opens one of its keyslots.
    type: str
  header_backup_dir:
    description: Where backups of the headers are looked for.
    type: path
    default: /var/backups/personal-cluster/luks-headers
  tang_timeout:
    description: Seconds that one request to a server may take.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: See what unlocks the data disks
  personal.cluster.luks_clevis_info:
    devices: [/dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z]
  register: found

- name: Refuse to hide a key that a disk still needs
  ansible.builtin.assert:
    that: found.devices.values() | map(attribute='rotated_keys') | flatten | length == 0
"""

RETURN = r"""
devices:
  description:
    - Each disk by its path, as M(personal.cluster.luks_clevis_bind) returns it, without C(policy_before)
      and C(recovery_keyslot). What C(policy), C(tang_keys) and C(header_backup) contain is said there.
  returned: always
  type: dict
  contains:
    kind:
      description: V(blank), V(foreign), V(luks1), V(luks2), V(damaged), V(unfinished), V(missing) or V(unread).
      type: str
    size:
      description: Size of the disk in bytes.
      type: int
    sector_size:
      description: Size of an encryption sector in bytes.
      type: int
    uuid:
      description: UUID of the LUKS header.
      type: str
    mapper:
      description: Name of the open mapper.
      type: str
    torn:
      description: Whether one copy of the header is not whole, or older than the other.
      type: bool
    keyslots:
      description: All keyslots in use.
      type: list
      elements: int
    keyslot:
      description: Keyslot of the binding.
      type: int
    token_id:
      description: Token of the binding.
      type: int
    policy:
      description: Policy of the binding in canonical form.
      type: dict
    tang_keys:
      description: Server and key, for every server of the binding.
      type: list
      elements: dict
    rotated_keys:
      description: Keys of the binding that their server no longer advertises.
      type: list
      elements: str
    orphan_tokens:
      description: Clevis tokens whose keyslot is gone.
      type: list
      elements: int
    unreachable:
      description: Servers of the binding that did not answer.
      type: list
      elements: str
    header_backup:
      description: The backup of the present header, null where there is none.
      type: dict
    unlocks:
      description: Whether the disk accepts what its bindings yield, as at boot.
      type: bool
      returned: with O(prove)
    opens:
      description: Whether the passphrase opens one of its keyslots.
      type: bool
      returned: with O(passphrase)
"""

from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.binder import Clevis
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import Key
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.showing import info
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = _engine.SecretModule(
        argument_spec={
            "devices": {"type": "list", "elements": "path", "required": True},
            "prove": {"type": "bool", "default": False},
            "passphrase": {"type": "str", "no_log": True},
            "header_backup_dir": {"type": "path", "default": "/var/backups/personal-cluster/luks-headers"},
            "tang_timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    given = module.params
    run = Runner()
    binder = Clevis(run, given["tang_timeout"])
    reader = Reader(run, binder.parse, given["header_backup_dir"])
    _engine.report(
        module,
        lambda: info(
            reader,
            binder,
            given["devices"],
            prove=given["prove"],
            key=Key(given["passphrase"] or ""),
            check=module.check_mode,
        ),
        # clevis works in a place of which a run at work clears away what killed ones left.
        beside="luks_clevis_bind" if given["prove"] else "",
    )


if __name__ == "__main__":
    main()
