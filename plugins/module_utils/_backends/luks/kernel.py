# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's own files say about block devices."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PARTITION = "partition "


def out_of_use(users: Sequence[str], path: str) -> str:
    """Return how a device comes out of use; partitions are nothing that could be closed."""
    if all(user.startswith(PARTITION) for user in users):
        return f"if nothing on these is needed, sudo partx --delete {path} makes the kernel forget them"
    return "take it out of use first"


@dataclass(frozen=True)
class Mapper:
    """An open LUKS mapper: its name, its ``major:minor``, its header's UUID without dashes, and all it stands on."""

    name: str
    number: str
    uuid: str
    below: frozenset[str] = frozenset()


class Kernel:
    """What the kernel's files say about block devices."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def _dir(self, number: str) -> Optional[Path]:
        found = self._root / "sys/dev/block" / number
        return found.resolve() if found.exists() else None

    @staticmethod
    def number(path: str) -> str:
        """Return ``major:minor`` of a block device, an empty text for anything else."""
        found = os.stat(path)
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""

    @staticmethod
    def claimed(path: str) -> bool:
        """Tell whether somebody has a block device for himself: members of btrfs or ZFS show in no table."""
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    def users(self, number: str) -> tuple[str, ...]:
        """Return what holds the device ``number``: partitions, holders, mounts, swap."""
        home = self._dir(number)
        if home is None:
            return ()
        parts = [f"{PARTITION}{entry.parent.name}" for entry in sorted(home.glob("*/partition"))]
        holders = [self._holder(entry) for entry in sorted((home / "holders").glob("*"))]
        return (*parts, *holders, *self._mounts(number), *self._swaps(home.name))

    def users_of(self, path: str) -> tuple[str, ...]:
        """Return what holds the device at ``path``; nothing holds a file."""
        number = self.number(path)
        users = self.users(number) if number else ()
        return ("something that claims it",) if number and not users and self.claimed(path) else users

    def _holder(self, entry: Path) -> str:
        name = entry / "dm/name"
        return f"device {name.read_text().strip() if name.exists() else entry.name}"

    def _mounted(self) -> list[list[str]]:
        table = self._root / "proc/self/mountinfo"
        return [line.split() for line in table.read_text().splitlines()] if table.exists() else []

    def _mounts(self, number: str) -> list[str]:
        return [f"mount {row[4]}" for row in self._mounted() if row[2] == number]

    def filesystem(self, path: Path) -> tuple[str, str]:
        """Return ``major:minor`` of what ``path`` is on, or will be, and the kind of its filesystem."""
        while not path.exists():
            path = path.parent
        path = path.resolve()
        rows = [row for row in reversed(self._mounted()) if Path(row[4]) in (path, *path.parents)]
        row = max(rows, key=lambda row: len(row[4]), default=["-", "", ""])
        kind, source = row[row.index("-") + 1 :][:2]
        # btrfs gives its files a number that is no device's.
        device = path.stat().st_dev
        on_disk = self.number(source) if source.startswith("/") and os.path.exists(source) else ""
        return on_disk or f"{os.major(device)}:{os.minor(device)}", kind

    def _swaps(self, kname: str) -> list[str]:
        table = self._root / "proc/swaps"
        rows = table.read_text().splitlines()[1:] if table.exists() else []
        return ["swap" for row in rows if os.path.basename(os.path.realpath(row.split()[0])) == kname]

    def size(self, number: str) -> int:
        """Return the device's size in bytes."""
        home = self._dir(number)
        return int((home / "size").read_text()) * 512 if home else 0

    def mappers(self) -> list[Mapper]:
        """Return every open LUKS mapper; of a header and its copy there may be two."""
        found = []
        for entry in (self._root / "sys/class/block").glob("dm-*"):
            parts = (entry / "dm/uuid").read_text().strip().split("-", 3)
            if parts[0] == "CRYPT" and parts[1].startswith("LUKS") and len(parts) == 4:
                number = (entry / "dev").read_text().strip()
                found.append(Mapper(parts[3], number, parts[2], self.below(number)))
        return found

    def below(self, number: str) -> frozenset[str]:
        """Return ``number`` and those of all devices that it stands on."""
        home = self._dir(number)
        if home is None:
            return frozenset({number})
        # The link to a disk that is gone stays as long as what stood on it.
        lower = [entry for entry in (home / "slaves").glob("*") if (entry / "dev").exists()]
        if (home / "partition").exists():
            lower.append(home.parent)
        return frozenset({number}).union(*(self.below((entry / "dev").read_text().strip()) for entry in lower))
