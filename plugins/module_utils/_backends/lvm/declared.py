# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin volumes as they are declared, and what makes no sense in that on any node."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KIB = 1024
# lvmthin(7): a multiple of the smallest.
CHUNK_SMALLEST = 64 * KIB
CHUNK_LARGEST = 1024 * 1024 * KIB
BLANK = re.compile(r"[\s\x00-\x1f]")


@dataclass(frozen=True)
class Wanted:
    """One volume as declared; percentages are of the layer below."""

    name: str
    device: str
    mountpoint: str
    group: str
    pool: str
    volume: str
    chunk: int
    zero: bool
    pool_percent: int
    volume_percent: int
    profile: str
    options: str
    replaced: bool

    @property
    def path(self) -> str:
        """Return the device node of the thin LV."""
        return f"/dev/{self.group}/{self.volume}"

    @property
    def fstab(self) -> str:
        """Return the line for /etc/fstab, without the newline."""
        return f"{self.path} {self.mountpoint} xfs {self.options} 0 0"


def wanted_from(item: Mapping[str, Any]) -> Wanted:
    """Return an item of the module's list as it is meant."""
    return Wanted(
        name=item["name"],
        device=item["device"],
        mountpoint=_one_spelling(item["mountpoint"]),
        group=item["volume_group"] or f"vg_{item['name']}",
        pool=item["pool"],
        volume=item["volume"],
        chunk=item["chunk_kib"] * KIB,
        zero=item["zero"],
        pool_percent=item["pool_percent"],
        volume_percent=item["volume_percent"],
        profile=item["profile"],
        # A field of fstab must not be empty: what follows would be read in its place.
        options=",".join(item["mount_options"]) or "defaults",
        replaced=item["replaced"],
    )


def _one_spelling(path: str) -> str:
    """Return a path as the kernel tells it; one from elsewhere than the root stays what it is, and is refused."""
    return "/" * path.startswith("/") + "/".join(part for part in path.split("/") if part not in ("", "."))


def faults(volumes: Sequence[Wanted]) -> list[str]:
    """Return what is wrong with a declaration."""
    found = [fault for one in volumes for fault in _own_faults(one)]
    for what in ("name", "mountpoint", "group"):
        found += _shared(what, (getattr(one, what) for one in volumes))
    # A disk has many names.
    return found + _shared("device", (os.path.realpath(one.device) for one in volumes))


def _own_faults(one: Wanted) -> list[str]:
    found = []
    if one.mountpoint in ("", "/") or not one.mountpoint.startswith("/") or ".." in one.mountpoint.split("/"):
        found.append(f"{one.name}: {one.mountpoint!r} is no mountpoint; give the whole path of a directory")
    for what, text in (("mountpoint", one.mountpoint), ("mount_options", one.options)):
        if BLANK.search(text):
            found.append(f"{one.name}: {what} {text!r} has a blank, which fstab does not take")
    if one.pool == one.volume:
        found.append(f"{one.name}: pool and volume are both named {one.pool}; give each its own name")
    if one.chunk % CHUNK_SMALLEST or not CHUNK_SMALLEST <= one.chunk <= CHUNK_LARGEST:
        found.append(f"{one.name}: chunk_kib is {one.chunk // KIB}; use a multiple of 64, 64 to 1048576")
    shares = {"pool_percent": one.pool_percent, "volume_percent": one.volume_percent}
    return found + [
        f"{one.name}: {what} is {percent}; use a number from 1 to 100"
        for what, percent in shares.items()
        if not 1 <= percent <= 100
    ]


def _shared(what: str, values: Iterable[str]) -> list[str]:
    return [f"{what} {value} is declared {count} times" for value, count in Counter(values).items() if count > 1]
