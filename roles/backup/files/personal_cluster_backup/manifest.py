# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a set: what was saved, and the hashes that a restore must find again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass

from .errors import BackupError
from .guests import Guest

MANIFEST_FILE = "manifest.json"
DOMAIN_FILE = "domain.xml"
NVRAM_FILE = "nvram"
TPM_FOLDER = "tpm"
TPM_STATE = "/var/lib/libvirt/swtpm"


@dataclass(frozen=True)
class SavedDisk:
    """A disk in a set; ``size`` in bytes and ``sha256`` are of the raw disk that the guest sees."""

    target: str
    source: str
    kind: str
    format: str
    archive: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A complete set."""

    guest: str
    uuid: str
    node: str
    stamp: str
    method: str
    frozen: bool
    running: bool
    autostart: bool
    nvram: str
    tpm: bool
    disks: tuple[SavedDisk, ...]


def write(folder: str, manifest: Manifest, guest: Guest) -> None:
    """Put everything but the disks into ``folder``."""
    with open(os.path.join(folder, DOMAIN_FILE), "w", encoding="utf-8") as file:
        file.write(guest.xml)
    if manifest.nvram:
        shutil.copyfile(manifest.nvram, os.path.join(folder, NVRAM_FILE))
    if manifest.tpm:
        shutil.copytree(tpm_state(guest.uuid), os.path.join(folder, TPM_FOLDER))
    with open(os.path.join(folder, MANIFEST_FILE), "w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=1, sort_keys=True)


def tpm_state(uuid: str) -> str:
    """Return where libvirt keeps the state of a guest's emulated TPM."""
    return os.path.join(TPM_STATE, uuid)


def read(folder: str) -> tuple[Manifest, str]:
    """Return manifest and domain XML out of ``folder``.

    :raises BackupError: they are missing or of another shape.
    """
    try:
        with open(os.path.join(folder, MANIFEST_FILE), encoding="utf-8") as file:
            data = json.load(file)
        with open(os.path.join(folder, DOMAIN_FILE), encoding="utf-8") as file:
            xml = file.read()
        disks = tuple(SavedDisk(**disk) for disk in data.pop("disks"))
        return Manifest(**data, disks=disks), xml
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupError(f"the manifest of this set cannot be read: {error}; choose another set") from error
