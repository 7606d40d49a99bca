# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and sizes: UUIDs and MAC addresses that every node derives alike, and bytes for people."""

from __future__ import annotations

import uuid

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def guest_uuid(cluster: str, name: str) -> str:
    """Return the UUID that ``name`` has in ``cluster``, whichever node computes it."""
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, f"{cluster}.personal.cluster"), name))


def nic_mac(guest: str, number: int) -> str:
    """Return the MAC address of NIC ``number`` (from 0) of the guest with UUID ``guest``."""
    return "52:54:00:" + uuid.uuid5(uuid.UUID(guest), f"nic{number}").bytes[:3].hex(":")


def parse_size(text: str) -> int:
    """Return bytes of ``512M``, ``20G``, ``4096``; units are powers of 1024.

    :raises ClusterError: not a size.
    """
    number, unit = text.strip().removesuffix("iB").removesuffix("B").rstrip(), ""
    if number and number[-1].upper() in UNITS:
        number, unit = number[:-1].rstrip(), number[-1].upper()
    if not number.isdigit() or int(number) == 0:
        raise ClusterError(f"{text!r} is not a size; write for example 512M or 20G")
    return int(number) * UNITS[unit]


def show_size(size: int) -> str:
    """Return bytes in the largest unit that divides them."""
    for unit in ("T", "G", "M", "K"):
        if size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]} {unit}iB"
    return f"{size} B"
