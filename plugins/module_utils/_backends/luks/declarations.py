# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the declaration of disks itself, whatever is on them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    PASSPHRASE_LENGTH,
    Policy,
    Wish,
)

# A name becomes that of a mapper, the header's label, and part of the name of its backup.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,79}")
TAKEN = ("control",)
# clevis hands the path to the shell without quotes.
SPLIT_BY_SHELL = re.compile(r"[\s*?\[\\]")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def faults(wishes: Sequence[Wish[Policy]], backup_dirs: Collection[Path]) -> list[str]:
    """Return what is wrong with each disk, and with all of them together."""
    found = [why for backup_dir in backup_dirs for why in _backup_dir_faults(backup_dir)]
    for name, texts in (
        ("passphrase", {wish.key.text for wish in wishes}),
        ("recovery_key", {wish.recovery.text for wish in wishes}),
    ):
        found += list(dict.fromkeys(why for text in texts for why in _secret_faults(name, text)))
    for wish in wishes:
        found += [f"{wish.device}: {why}" for why in _wish_faults(wish)]
    for what, values in (
        ("device", [os.path.realpath(wish.device) for wish in wishes if "\0" not in wish.device]),
        ("name", [wish.name for wish in wishes]),
    ):
        found += [f"{what} {value} is declared twice" for value in sorted(set(values)) if values.count(value) > 1]
    return found


def _backup_dir_faults(backup_dir: Path) -> list[str]:
    there = next(path for path in (backup_dir, *backup_dir.parents) if path.exists())
    if not backup_dir.is_absolute() or not there.is_dir():
        return [f"header_backup_dir {backup_dir} is no directory, and none can be made there; name another one"]
    return []


def _secret_faults(name: str, text: str) -> list[str]:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        return [f"the {name} is not text that can be written in UTF-8; take another one"]
    if "\n" in text:
        return [f"the {name} is not one line, and clevis reads no further; remove the line break"]
    if "\0" in text:
        return [f"the {name} has a NUL in it, and clevis cannot take it; take another one"]
    if length > PASSPHRASE_LENGTH:
        return [f"the {name} is longer than {PASSPHRASE_LENGTH} bytes, and cryptsetup reads no further"]
    return []


def _wish_faults(wish: Wish[Policy]) -> list[str]:
    found = []
    if not wish.device.startswith("/") or "\0" in wish.device:
        found.append("give the whole path of the disk")
    if not NAME.fullmatch(wish.name) or wish.name in TAKEN:
        found.append(f"its name is {wish.name!r}; take up to 80 letters, digits, and _ . + - after the first")
    if wish.key.text and wish.key.file:
        found.append("passphrase and keyfile are both given; leave one out")
    if SPLIT_BY_SHELL.search(wish.key.file):
        found.append(
            f"keyfile is {wish.key.file!r}, and clevis takes no path with a space or any of * ? [ \\ in it; rename it"
        )
    if wish.erase and wish.state != "absent":
        found.append(f"erase is given, and the state is {wish.state}; it goes with absent alone")
    if wish.erase and not UUID.fullmatch(wish.erase):
        found.append(f"erase is {wish.erase!r}; give the whole UUID of the header, as luks_clevis_info returns it")
    if wish.recovery and wish.recovery == wish.key:
        found.append("recovery_key is the passphrase itself; choose another one")
    return found
