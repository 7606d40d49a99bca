# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of systemd's units. Pure: data in, data out."""

from __future__ import annotations

import string
from typing import Any

PLAIN = (string.ascii_letters + string.digits + ":_.").encode()


def systemd_path(path: str) -> str:
    """Return what a unit of ``path`` is called, without its suffix: ``srv-my\\x2dvol`` for ``/srv/my-vol``."""
    data = "/".join(part for part in path.split("/") if part).encode()
    if not data:
        return "-"
    first, rest = data[:1], data[1:]
    return _escaped(first, PLAIN.replace(b".", b"")) + _escaped(rest, PLAIN)


def _escaped(data: bytes, plain: bytes) -> str:
    return "".join("-" if byte == ord("/") else chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in data)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"systemd_path": systemd_path}
