# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role wrote for this node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import BackupError

DEFAULT_PATH = "/etc/personal-cluster/backup.json"


@dataclass(frozen=True)
class Config:
    """Settings of this node; times in seconds, ``other_nodes`` by name the addresses at which their libvirt answers."""

    node: str
    repository: str
    passphrase_file: str
    base_dir: str
    host_id: str
    scratch_dir: str
    metrics_file: str
    require_mount: str = ""
    scratch_mount: str = ""
    volumes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    compression: str = "zstd"
    chunker_params: str = "fixed,4194304"
    keep_daily: int = 365
    keep_within_days: int = 2
    freeze_limit: int = 60
    heal_wait: int = 600
    lease_wait: int = 36000
    capture_limit: int = 43200
    dead_after: int = 60
    scratch_limit_percent: int = 80
    libvirt_uri: str = "qemu:///system"
    qemu_state_dir: str = "/var/lib/libvirt/qemu"
    run_dir: str = "/run/personal-cluster-backup"
    image_owner: str = "libvirt-qemu"
    other_nodes: Mapping[str, str] = field(default_factory=dict)
    path: str = DEFAULT_PATH


def load(path: str) -> Config:
    """Read the settings.

    :raises BackupError: the file is missing or holds something unknown.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise BackupError(f"cannot read {path}: {error}; run the backup playbook for this node") from error
    known = {item.name for item in fields(Config)}
    if unknown := sorted(set(data) - known):
        raise BackupError(f"{path} holds unknown settings: {', '.join(unknown)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return Config(**values, path=path)
    except TypeError as error:
        raise BackupError(f"{path} is incomplete: {error}") from error
