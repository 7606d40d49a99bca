#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: Borg repositories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: borg_repo
short_description: Create and keep Borg repositories
version_added: 0.1.0
description:
  - Declares Borg 1.2 and 1.4 repositories, local or over ssh.
  - A repository is created only when borg itself says that there is none. One that cannot be reached, is locked,
    was replaced, was moved, or has another passphrase is a failure, never a reason to create.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
requirements:
  - borg 1.2 or 1.4 on the managed host (Debian package borgbackup)
options:
  repositories:
    description: The repositories.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: An absolute path, or C(ssh://user@host:port/path).
        type: str
        required: true
      state:
        description:
          - V(present) creates it when it does not exist.
          - V(unlocked) breaks a lock that somebody holds; be sure that this process is dead.
          - V(absent) deletes it with all its archives and needs O(repositories[].expected_id).
        type: str
        choices: [present, absent, unlocked]
        default: present
      encryption:
        description: The encryption mode. A repository with another mode is refused; borg cannot change it.
        type: str
        choices:
          - none
          - authenticated
          - authenticated-blake2
          - repokey
          - repokey-blake2
          - keyfile
          - keyfile-blake2
        default: repokey-blake2
      allow_unencrypted:
        description: Must be true for V(none).
        type: bool
        default: false
      passphrase:
        description: The passphrase. It reaches borg by environment, never on a command line.
        type: str
      passphrase_file:
        description: A file on the managed host that holds the passphrase.
        type: path
      passcommand:
        description: A command on the managed host that prints the passphrase.
        type: str
      new_passphrase:
        description: The passphrase that holds afterwards. It is tried first, so the task may stay after the change.
        type: str
      expected_id:
        description: The repository's id; another id is refused.
        type: str
      relocated_ok:
        description: Accept that the repository moved, provided that its id is O(repositories[].expected_id).
        type: bool
        default: false
      require_mount:
        description: Fail unless the path is on a filesystem of this type, V(fuse.glusterfs) for example.
        type: str
      append_only:
        description: Whether borg on this host only appends. Left alone when not given; local repositories only.
        type: bool
      storage_quota:
        description: Largest size, V(500G) for example, V(0) is none. Kept when not given; local repositories only.
        type: str
      additional_free_space:
        description: Space to keep free, V(2G) for example. Left alone when not given; local repositories only.
        type: str
      key_export_dest:
        description:
          - File (mode 0600) that holds a copy of the key, on another volume than the repository.
          - Its directory is made, for root alone, when it is missing.
        type: path
      base_dir:
        description: Directory for borg's cache, configuration and notes on repositories it saw; on a local disk.
        type: path
      host_id:
        description: What this host calls itself in locks; give each host one that never changes.
        type: str
      remote_path:
        description: The borg program on the remote host.
        type: str
      rsh:
        description: The command used instead of ssh.
        type: str
      lock_wait:
        description: Seconds to wait for a lock.
        type: int
        default: 10
      timeout:
        description: Seconds that one call of borg may take.
        type: int
        default: 300
"""

EXAMPLES = r"""
- name: Keep the backup repository on the mounted volume
  personal.cluster.borg_repo:
    repositories:
      - path: /srv/gv1/borg
        require_mount: fuse.glusterfs
        passphrase_file: /etc/personal-cluster/backup.passphrase
        base_dir: /var/lib/personal-cluster/borg
        key_export_dest: /var/lib/personal-cluster/borg-key.txt

- name: Delete an old repository
  personal.cluster.borg_repo:
    repositories:
      - path: /srv/old/borg
        state: absent
        passphrase: "{{ vault_old_passphrase }}"
        expected_id: fbad754caa463c73221eaabf622e86a0f6df253f5e2206fb4d54e0f9ea118c52
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
repositories:
  description: State, id, encryption and settings of each path.
  returned: always
  type: dict
"""

from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.borg import BorgRepositories
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

ENCRYPTION_MODES = [
    "none",
    "authenticated",
    "authenticated-blake2",
    "repokey",
    "repokey-blake2",
    "keyfile",
    "keyfile-blake2",
]
REPOSITORY_OPTIONS: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent", "unlocked"], "default": "present"},
    "encryption": {"type": "str", "choices": ENCRYPTION_MODES, "default": "repokey-blake2"},
    "allow_unencrypted": {"type": "bool", "default": False},
    "passphrase": {"type": "str", "no_log": True},
    "passphrase_file": {"type": "path"},
    "passcommand": {"type": "str", "no_log": False},
    "new_passphrase": {"type": "str", "no_log": True},
    "expected_id": {"type": "str"},
    "relocated_ok": {"type": "bool", "default": False},
    "require_mount": {"type": "str"},
    "append_only": {"type": "bool"},
    "storage_quota": {"type": "str"},
    "additional_free_space": {"type": "str"},
    "key_export_dest": {"type": "path", "no_log": False},
    "base_dir": {"type": "path"},
    "host_id": {"type": "str"},
    "remote_path": {"type": "str"},
    "rsh": {"type": "str"},
    "lock_wait": {"type": "int", "default": 10},
    "timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Run the module."""
    module = _engine.SecretModule(
        argument_spec={
            "repositories": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": REPOSITORY_OPTIONS,
                "mutually_exclusive": [("passphrase", "passphrase_file", "passcommand")],
            }
        },
        supports_check_mode=True,
    )
    repositories = module.params["repositories"]
    secrets = [item[name] for item in repositories for name in ("passphrase", "new_passphrase") if item[name]]
    _engine.run(module, BorgRepositories(repositories, Runner(secrets)), secrets, alone=True)


if __name__ == "__main__":
    main()
