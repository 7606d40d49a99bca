# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names and addresses mean this host."""

from __future__ import annotations

import ipaddress
import socket
from functools import cache
from pathlib import Path


@cache
def addresses_of(name: str) -> frozenset[str]:
    """Return the addresses that ``name`` resolves to; none when it does not."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except OSError:
        return frozenset()


def is_own_address(address: str) -> bool:
    """Say whether an address is one of this host: a socket can be bound to it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False


def is_this_host(name: str) -> bool:
    """Say whether ``name`` is this host: its own name, or one of its addresses."""
    return name == socket.gethostname() or any(map(is_own_address, addresses_of(name)))


def is_own_card(name: str) -> bool:
    """Say whether ``name`` is this host's own name, or is or means the address of one of its network cards.

    Loopback addresses do not count: what listens there may be the end of a tunnel.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        host = socket.gethostname().lower()
        own = {host, host.partition(".")[0]} - {"localhost", ""}
        return name.lower() in own or (bool(name) and any(map(is_own_card, addresses_of(name))))
    address = getattr(address, "ipv4_mapped", None) or address
    text = str(address)
    if address.is_loopback or address.is_unspecified:
        return address.is_unspecified
    # Where sockets are bound to any address, as by keepalived, further addresses of a card are not told apart.
    return source_towards(text) == text or (is_own_address(text) and not binds_anywhere())


def binds_anywhere() -> bool:
    """Say whether this host lets a socket be bound to an address that it does not have."""
    settings = [Path("/proc/sys/net", family, "ip_nonlocal_bind") for family in ("ipv4", "ipv6")]
    return any(setting.exists() and setting.read_text().strip() != "0" for setting in settings)


def source_towards(address: str) -> str:
    """Return the address from which this host would ask ``address``, its own one alone asks itself. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
