# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup sets: which archives belong together, which sets are complete, which may go.

A set is everything saved of one guest at one instant: an archive per disk, and, written last, the
manifest. A set without manifest is no set: restore does not see it and the next run deletes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

MANIFEST = "manifest"
STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"([A-Za-z0-9._~%-]+)\+(\d{8}T\d{6}Z)\+([A-Za-z0-9_-]+)((?:\.checkpoint)?(?:\.\d+)?)")


@dataclass(frozen=True)
class BackupSet:
    """The archives of one guest at one instant."""

    guest: str
    stamp: str
    archives: tuple[str, ...]
    complete: bool

    @property
    def time(self) -> datetime:
        """When the set was begun."""
        return datetime.strptime(self.stamp, STAMP).replace(tzinfo=UTC)


def new_stamp(now: datetime) -> str:
    """Return the name of a set that begins ``now``."""
    return now.astimezone(UTC).strftime(STAMP)


def archive_name(guest: str, stamp: str, part: str) -> str:
    """Return the archive's name; the guest's name is quoted so that it can hold anything."""
    quoted = "".join(
        char if char.isalnum() and char.isascii() or char in "._-" else quote(char, safe="") for char in guest
    )
    return f"{quoted}+{stamp}+{part}"


def group(names: Iterable[str]) -> list[BackupSet]:
    """Return the sets, oldest first; archives with other names belong to somebody else and are left out."""
    found: dict[tuple[str, str], list[str]] = {}
    whole = set()
    for name in names:
        match = _NAME.fullmatch(name)
        if not match:
            continue
        key = (match[2], unquote(match[1]))
        found.setdefault(key, []).append(name)
        if match[3] == MANIFEST and not match[4]:
            whole.add(key)
    return [
        BackupSet(guest, stamp, tuple(sorted(archives)), (stamp, guest) in whole)
        for (stamp, guest), archives in sorted(found.items())
    ]


def last_good(sets: Iterable[BackupSet]) -> dict[str, BackupSet]:
    """Return the newest complete set of each guest."""
    return {item.guest: item for item in sets if item.complete}


def expendable(sets: Iterable[BackupSet], now: datetime, keep_daily: int, keep_within_days: int) -> list[BackupSet]:
    """Return the sets that may be deleted.

    These are incomplete ones, and complete ones beyond the newest of each of the last ``keep_daily`` days that have
    any. All of the last ``keep_within_days`` days stay, and the newest complete set of every guest, however old.
    """
    sets = list(sets)
    recent = now - timedelta(days=keep_within_days)
    kept = set(last_good(sets).values())
    days: dict[str, set[str]] = {}
    for item in reversed(sets):
        if not item.complete:
            continue
        seen = days.setdefault(item.guest, set())
        day = item.stamp[:8]
        if item.time >= recent or (day not in seen and len(seen) < keep_daily):
            kept.add(item)
        seen.add(day)
    return [item for item in sets if item not in kept]
