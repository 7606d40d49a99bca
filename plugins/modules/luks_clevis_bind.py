#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: LUKS2 data disks that unlock by themselves while the network holds the tang keys."""

from __future__ import annotations

DOCUMENTATION = r"""
module: luks_clevis_bind
short_description: Encrypt data disks with LUKS2 and bind them to tang servers
version_added: 0.1.0
description:
  - Declares all encrypted data disks of a node. A blank disk is formatted as LUKS2 with the passphrase in
    its first keyslot; every disk gets exactly one clevis binding with the declared policy, a backup of its header,
    and its mapper.
  - Only a blank disk is ever formatted, one without any signature, partition, holder or mount. Everything else is
    refused by name, and nothing is changed on any disk then, unless O(devices[].force_wipe) names the disk. So is a
    blank one whose header may have been lost, see O(devices[].replaced).
  - A disk that is being reencrypted is refused, and so is one whose header is open on another disk. A keyslot that does
    not belong to the data, as C(cryptsetup luksAddKey --unbound) makes them, is left alone and counts as no key.
  - A change of policy adds the new binding, proves that it unlocks the disk, and only then removes the old one. The
    disk is never without a working binding. Clevis tokens whose keyslot is gone are removed, because they stop the
    agent that unlocks at boot.
  - Headers are formatted with room for two bindings to many servers. In one that something else has formatted a second
    one may find none; the binding that is there stays then, and the error says what to do.
  - The policy of the present binding is read from the header, without a secret. A binding that has the declared policy
    is tried, as at boot, in each run in which all that it asks answers, also in check mode. One that does not unlock
    its disk any more is made anew, whatever O(rotation) says, for example after registers of the TPM have changed. That
    needs O(passphrase), O(keyfile) or O(recovery_key). Where a new one would not unlock either, it stays, and the run
    warns.
  - A server that does not answer is a warning, and an error only where a new binding is needed; nothing was written to
    the disk then.
  - Before a disk is bound, something that is bound to its policy has to come back without a disk; where it does not,
    and where clevis itself cannot make the binding, the header keeps its bytes. A binding that was made, and does not
    unlock all the same, is taken away by cryptsetup; keyslots and tokens are as before then.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - cryptsetup, clevis and clevis-luks on the node; clevis-tpm2 for a policy that asks the TPM
options:
  devices:
    description: The data disks of the node.
    type: list
    elements: dict
    required: true
    suboptions:
      device:
        description: Path of the block device; a stable one, such as those in C(/dev/disk/by-id).
        type: path
        required: true
      name:
        description:
          - Name of the open device in C(/dev/mapper); also the label of the header and part of its backup's name.
        type: str
        required: true
      state:
        description:
          - V(present) encrypts and binds, and leaves the mapper as it is; V(opened) opens it too; V(closed) closes
            it, unless it is in use.
          - V(unbound) removes all bindings, unless none of the given keys opens the disk; its policy is ignored.
          - V(absent) closes the disk and leaves what is on it as it is, unless O(devices[].erase) names it.
        type: str
        choices: [present, opened, closed, unbound, absent]
        default: opened
      force_wipe:
        description:
          - Wipe what is on this disk, whatever it is, LUKS1 included, and format it. Everything on it is lost.
          - Never done to a disk with partitions, holders or mounts, or one that the kernel has given to somebody, and
            never to one with LUKS2, not even one whose header is damaged. That cryptsetup takes O(format) is tried on
            a file first. Take it out of the inventory afterwards.
        type: bool
        default: false
      replaced:
        description:
          - The disk is a new one in the place of the one that had its name. Without it a disk without a header is not
            formatted while O(header_backup_dir) has a backup of a header of this name, not even with
            O(devices[].force_wipe), because it may be the old disk, whose data that backup brings back.
        type: bool
        default: false
      erase:
        description:
          - UUID of the LUKS2 header that V(absent) erases with all its keyslots, and all copies of it in
            O(header_backup_dir). Everything on the disk is lost, what was written over a part of the header included.
            Refused when the disk carries another one, is in use, or when the header is on another disk; and when there
            are copies of the header, and the disk is not there, or holds something else.
          - Where cryptsetup cannot read the header any more, zeros are written wherever one may have keyslots, which
            is in the first 136 MiB.
        type: str
      policy:
        description: As O(policy), for this disk alone.
        type: dict
        suboptions: &policy
          pin:
            description:
              - V(tang) for one server, V(tpm2) for the TPM alone, V(sss) for a threshold over several pins. Chosen by
                the number of pins when not given.
            type: str
            choices: [tang, tpm2, sss]
          threshold: &threshold
            description: How many of the pins must answer to unlock.
            type: int
            default: 1
          tang: &tang
            description: The servers, each a pin.
            type: list
            elements: dict
            suboptions:
              url:
                description: Base URL of the server. The node itself is refused, by whatever name or address.
                type: str
                required: true
              thp:
                description:
                  - Thumbprint of a signing key, as C(tang-show-keys) prints it on the server. A binding is never made
                    without it, so that nobody on the network can pass for the server.
                type: str
              adv:
                description:
                  - What C(URL/adv) printed once, to bind while the server is away. It is used only when the server does
                    not answer; the others must be enough to unlock, or nothing could be proven.
                type: dict
          tpm2: &tpm2
            description:
              - The node's own TPM 2.0 as a pin; C({}) for the TPM whatever was booted. Needs the package clevis-tpm2.
              - A TPM alone does not stop the theft of the whole node. Ask a server too.
            type: dict
            suboptions:
              pcr_ids:
                description:
                  - Registers that must be as they are now. A change of what they measure locks the disk, until the
                    next run opens it with the passphrase and makes the binding anew.
                type: list
                elements: int
              pcr_bank:
                description: Bank of the registers; clevis' choice when not given, on Debian 12 V(sha1).
                type: str
                choices: [sha1, sha256, sha384, sha512]
          sss:
            description: Further thresholds, each a pin.
            type: list
            elements: dict
            suboptions:
              threshold: *threshold
              tang: *tang
              tpm2: *tpm2
              sss:
                description: Further thresholds in this one, each a pin.
                type: list
                elements: dict
                suboptions:
                  threshold: *threshold
                  tang: *tang
                  tpm2: *tpm2
      format:
        description: As O(format), for this disk alone.
        type: dict
        suboptions: &format
          cipher:
            description: Cipher as cryptsetup names it.
            type: str
          key_size:
            description: Size of the volume key in bits.
            type: int
          sector_size:
            description:
              - Size of an encryption sector in bytes; V(512) fits every filesystem that is moved between disks.
              - All copies of a Gluster volume need the same. What is written in smaller sectors than a disk has never
                gets there, and its copy is never healed. RV(devices.sector_size) tells what formatted disks have.
            type: int
            choices: [512, 1024, 2048, 4096]
            default: 512
          pbkdf:
            description: How a keyslot's key is derived from the passphrase; cryptsetup's choice when not given.
            type: str
            choices: [argon2id, argon2i, pbkdf2]
          pbkdf_memory:
            description: Memory of the argon2 variants in KiB. Opening a disk at boot needs as much again.
            type: int
          pbkdf_force_iterations:
            description:
              - Fixed number of iterations instead of a benchmark. For passphrases that are random, and for test
                clusters.
            type: int
      passphrase:
        description: As O(passphrase), for this disk alone.
        type: str
      keyfile:
        description: As O(keyfile), for this disk alone.
        type: path
      recovery_key:
        description: As O(recovery_key), for this disk alone.
        type: str
      remove_passphrase:
        description: As O(remove_passphrase), for this disk alone.
        type: bool
      allow_no_recovery:
        description: As O(allow_no_recovery), for this disk alone.
        type: bool
      header_backup_dir:
        description: As O(header_backup_dir), for this disk alone.
        type: path
      rotation:
        description: As O(rotation), for this disk alone.
        type: str
        choices: [rebind, report, ignore]
  policy:
    description: The one binding that every disk shall have. Bindings are left alone when it is not given.
    type: dict
    suboptions: *policy
  format:
    description: How blank disks are formatted. Changes of it do not touch formatted disks.
    type: dict
    suboptions: *format
  passphrase:
    description:
      - The passphrase of the first keyslot, one line. It formats blank disks, authorises new bindings, and opens.
        Without it, an existing binding that decrypts does the two latter.
    type: str
  keyfile:
    description:
      - A file on the node that is used instead of O(passphrase), as it is; it may be binary. It is needed to format,
        and may be removed from the node afterwards. A path with white space or any of C(* ? [ \) is refused, because
        clevis cannot take it.
    type: path
  recovery_key:
    description:
      - A passphrase of its own, one line, in a keyslot of its own. It is added when it opens no keyslot yet, and tried.
      - With it or O(remove_passphrase) every run tries keys, and each attempt takes as long as an unlock.
    type: str
  remove_passphrase:
    description:
      - Remove O(passphrase), or the key of O(keyfile), once a binding and O(recovery_key) are proven to open the disk.
      - Refused without O(recovery_key), since no other keyslot is known to open then, unless O(allow_no_recovery) is
        set.
    type: bool
    default: false
  allow_no_recovery:
    description:
      - Let O(remove_passphrase) leave a disk that nothing is known to open but its binding. Its data is lost with the
        keys of the servers.
    type: bool
    default: false
  header_backup_dir:
    description:
      - Directory of the header backups, on another disk, and not on a filesystem of the network. Each file
        C(NAME-UUID.img), mode 0400, is always the present header of its disk; an older one would bring removed keys
        back to life. What its keyslots hold is compared in each run, and a backup that differs is made anew.
      - A backup that is newer than the header of its disk, which was restored then, is kept as
        C(NAME-UUID-aside-DIGEST.raw). When its volume key is another one, the disk is refused.
      - An older one with another volume key is kept so too, as after C(cryptsetup reencrypt).
      - So is one kept with a keyslot that the disk has lost, by damage or by hand, unless O(remove_passphrase) is set.
        While there is such a file, each run tries the given keys, and warns when none opens the disk.
      - What is kept aside goes with the first backup after 30 days, unless the given keys do not replace it.
    type: path
    default: /var/backups/personal-cluster/luks-headers
  rotation:
    description:
      - What to do when a server no longer advertises the key of a binding, or is pinned to another key now. V(rebind)
        makes a new binding, V(report) warns, V(ignore) does nothing.
    type: str
    choices: [rebind, report, ignore]
    default: rebind
  tang_timeout:
    description: Seconds that one request to a server may take, whichever disk it is for; all disks share the answers.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Encrypt the data disks, bound to one tang server
  personal.cluster.luks_clevis_bind:
    devices:
      - device: /dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z
        name: luks-gv0
      - device: /dev/disk/by-id/ata-ST8000VN004_WKD0A1B2
        name: luks-gv1
    passphrase: "{{ cluster_recovery_passphrase }}"
    policy:
      tang:
        - url: http://10.10.0.10:7500
          thp: V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4

- name: Let any two of three servers unlock
  personal.cluster.luks_clevis_bind:
    devices:
      - device: /dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z
        name: luks-gv0
    passphrase: "{{ cluster_recovery_passphrase }}"
    policy:
      threshold: 2
      tang:
        - {url: "http://10.10.0.10:7500", thp: V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4}
        - {url: "http://10.10.0.12:7500", thp: 3ZyxKzoBdTrQhcCwhm8Cf1Vq9uAPyBOSvtTA3SE6mUw}
        - {url: "http://10.10.0.13:7500", thp: LKiPJnDaxt1F_hKq0GCUzpgGJ5D4QtlR_zFBS_gYz6M}

- name: Leave nothing but the binding and a recovery key that is kept elsewhere
  personal.cluster.luks_clevis_bind:
    devices:
      - device: /dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z
        name: luks-gv0
    keyfile: /run/bootstrap.key
    recovery_key: "{{ cluster_recovery_passphrase }}"
    remove_passphrase: true
    policy:
      tang:
        - {url: "http://10.10.0.10:7500", thp: V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4}

- name: Give a disk away, and nothing that was on it
  personal.cluster.luks_clevis_bind:
    devices:
      - device: /dev/disk/by-id/ata-ST8000VN004_WKD0A1B2
        name: luks-gv1
        state: absent
        erase: 6cd5edc1-a2d9-419a-92b6-6e4b15486770

- name: Unlock with the TPM and any of two servers
  personal.cluster.luks_clevis_bind:
    devices:
      - device: /dev/disk/by-id/nvme-WD_BLACK_SN770_1TB_22373Z
        name: luks-gv0
    passphrase: "{{ cluster_recovery_passphrase }}"
    policy:
      threshold: 2
      tpm2: {pcr_bank: sha256, pcr_ids: [7]}
      sss:
        - tang:
            - {url: "http://10.10.0.10:7500", thp: V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4}
            - {url: "http://10.10.0.12:7500", thp: 3ZyxKzoBdTrQhcCwhm8Cf1Vq9uAPyBOSvtTA3SE6mUw}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
devices:
  description: Each disk by its path.
  returned: always
  type: dict
  contains:
    kind:
      description: V(blank), V(foreign), V(luks1), V(luks2), V(damaged) with a copy of its header that is
        not whole, V(unfinished), V(missing), or V(unread) before cryptsetup is installed.
      type: str
      returned: always
    size:
      description: Size of the disk in bytes.
      type: int
      returned: always
    sector_size:
      description: Size of an encryption sector in bytes.
      type: int
      returned: always
    uuid:
      description: UUID of the LUKS header.
      type: str
      returned: always
    mapper:
      description: Name of the open mapper.
      type: str
      returned: always
    torn:
      description: Whether one copy of the header is not whole, or older than the other. A run mends it.
      type: bool
      returned: always
    keyslots:
      description: All keyslots in use.
      type: list
      elements: int
      returned: always
    keyslot:
      description: Keyslot of the binding.
      type: int
      returned: always
    token_id:
      description: Token of the binding.
      type: int
      returned: always
    policy:
      description: Policy of the binding in canonical form.
      type: dict
      returned: always
      contains: &binding
        tang:
          description: The one server that unlocks.
          type: dict
          returned: with one server
          contains:
            url:
              description: Its base URL.
              type: str
        tpm2:
          description: The TPM, when it unlocks alone.
          type: dict
          returned: with the TPM alone
          contains:
            pcr_bank:
              description: Bank of the registers.
              type: str
              returned: with registers
            pcr_ids:
              description: Registers that must be as they were, as V(0,7).
              type: str
              returned: with registers
        sss:
          description: A threshold over several pins.
          type: dict
          returned: with several pins
          contains:
            t:
              description: How many of the pins must answer.
              type: int
            pins:
              description: Each pin, as a policy of its own.
              type: list
              elements: dict
    policy_before:
      description: Policy of the binding before the run.
      type: dict
      returned: always
      contains: *binding
    recovery_keyslot:
      description: Keyslot that O(recovery_key) opens.
      type: int
      returned: always
    tang_keys:
      description: Server and key, for every server of the binding.
      type: list
      elements: dict
      returned: always
      contains:
        url:
          description: Base URL of the server.
          type: str
        kid:
          description: Thumbprint of its key that the binding was made with.
          type: str
        advertised:
          description: Whether it still advertises that key; null when it did not answer.
          type: bool
    rotated_keys:
      description: Keys of the binding that their server no longer advertises.
      type: list
      elements: str
      returned: always
    orphan_tokens:
      description: Clevis tokens whose keyslot is gone.
      type: list
      elements: int
      returned: always
    unreachable:
      description: Servers of the binding and of the declared policy that were asked and did not answer.
      type: list
      elements: str
      returned: always
    header_backup:
      description: The backup of the present header, null where there is none.
      type: dict
      returned: always
      contains:
        path:
          description: Its path.
          type: str
        sha256:
          description: Its SHA-256; null while it is not made yet.
          type: str
"""

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.binder import Clevis
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import Policy
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.devices import LuksDevices
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import Key, Wish
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

TPM2_OPTIONS: dict[str, Any] = {
    "pcr_ids": {"type": "list", "elements": "int"},
    "pcr_bank": {"type": "str", "choices": ["sha1", "sha256", "sha384", "sha512"]},
}
PIN_OPTIONS: dict[str, Any] = {
    "threshold": {"type": "int", "default": 1},
    "tang": {
        "type": "list",
        "elements": "dict",
        "options": {"url": {"type": "str", "required": True}, "thp": {"type": "str"}, "adv": {"type": "dict"}},
    },
    "tpm2": {"type": "dict", "options": TPM2_OPTIONS},
}
INNER_OPTIONS: dict[str, Any] = {**PIN_OPTIONS, "sss": {"type": "list", "elements": "dict", "options": PIN_OPTIONS}}
POLICY_OPTIONS: dict[str, Any] = {
    "pin": {"type": "str", "choices": ["tang", "tpm2", "sss"]},
    **PIN_OPTIONS,
    "sss": {"type": "list", "elements": "dict", "options": INNER_OPTIONS},
}
FORMAT_OPTIONS: dict[str, Any] = {
    "cipher": {"type": "str"},
    "key_size": {"type": "int", "no_log": False},
    "sector_size": {"type": "int", "choices": [512, 1024, 2048, 4096], "default": 512},
    "pbkdf": {"type": "str", "choices": ["argon2id", "argon2i", "pbkdf2"]},
    "pbkdf_memory": {"type": "int"},
    "pbkdf_force_iterations": {"type": "int"},
}
SHARED_OPTIONS: dict[str, Any] = {
    "policy": {"type": "dict", "options": POLICY_OPTIONS},
    "format": {"type": "dict", "options": FORMAT_OPTIONS},
}
SECRET_OPTIONS: dict[str, Any] = {
    "passphrase": {"type": "str", "no_log": True},
    "keyfile": {"type": "path", "no_log": False},
    "recovery_key": {"type": "str", "no_log": True},
}
ROTATIONS = ["rebind", "report", "ignore"]
DEVICE_OPTIONS: dict[str, Any] = {
    "device": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "opened", "closed", "unbound", "absent"], "default": "opened"},
    "force_wipe": {"type": "bool", "default": False},
    "replaced": {"type": "bool", "default": False},
    "erase": {"type": "str"},
    **SHARED_OPTIONS,
    **SECRET_OPTIONS,
    "remove_passphrase": {"type": "bool", "no_log": False},
    "allow_no_recovery": {"type": "bool"},
    "header_backup_dir": {"type": "path"},
    "rotation": {"type": "str", "choices": ROTATIONS},
}


def wish(item: Mapping[str, Any], params: Mapping[str, Any]) -> Wish[Policy]:
    """Return one declared device, completed by what is declared for all of them."""
    policy: Optional[dict[str, Any]] = item["policy"] or params["policy"]
    own = item if item["passphrase"] or item["keyfile"] else params
    options = item["format"] or params["format"] or {"sector_size": 512}
    return Wish(
        device=item["device"],
        name=item["name"],
        state=item["state"],
        policy=Policy.of(policy) if policy else None,
        format={name.replace("_", "-"): value for name, value in options.items()},
        key=Key(own["passphrase"] or "", own["keyfile"] or ""),
        force_wipe=item["force_wipe"],
        replaced=item["replaced"],
        erase=(item["erase"] or "").lower(),
        header_backup_dir=item["header_backup_dir"] or "",
        recovery=Key(item["recovery_key"] or params["recovery_key"] or ""),
        **{
            name: params[name] if item[name] is None else item[name]
            for name in ("remove_passphrase", "allow_no_recovery", "rotation")
        },
    )


def main() -> None:
    """Run the module."""
    module = _engine.SecretModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": DEVICE_OPTIONS,
            },
            **SHARED_OPTIONS,
            **SECRET_OPTIONS,
            "remove_passphrase": {"type": "bool", "default": False, "no_log": False},
            "allow_no_recovery": {"type": "bool", "default": False},
            "header_backup_dir": {"type": "path", "default": "/var/backups/personal-cluster/luks-headers"},
            "rotation": {"type": "str", "choices": ROTATIONS, "default": "rebind"},
            "tang_timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params
    wishes = [wish(item, params) for item in params["devices"]]
    secrets = [key.text for wanted in wishes for key in wanted.keys if key.text]
    run = Runner(secrets, heirs=True)
    binder = Clevis(run, params["tang_timeout"])
    reader = Reader(run, binder.parse, params["header_backup_dir"])
    resource = LuksDevices(wishes, binder, run, reader)
    _engine.run(module, resource, secrets, alone=True)


if __name__ == "__main__":
    main()
