# SPDX-License-Identifier: GPL-3.0-or-later
"""The data disks that an inventory describes. Pure: data in, data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def disk_names(disks: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what the disks are called: by their names, or by their volumes where they have none."""
    return [disk.get("name") or disk["volume"] for disk in disks]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"disk_names": disk_names}
