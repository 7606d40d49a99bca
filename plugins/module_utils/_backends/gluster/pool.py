# SPDX-License-Identifier: GPL-3.0-or-later
"""The trusted pool: its peers, and which of them a name means."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._addresses import addresses_of, is_this_host

MEMBER = "3"


@dataclass(frozen=True)
class Peer:
    """One member of the trusted pool, as the local glusterd sees it."""

    uuid: str
    names: tuple[str, ...]
    local: bool = False
    connected: bool = True
    member: bool = True
    state: str = "Peer in Cluster"


def parse_pool(root: ET.Element) -> tuple[Peer, ...]:
    """Return the peers of ``pool list``, the local one included."""
    return tuple(
        Peer(
            uuid=peer.findtext("uuid") or "",
            names=tuple(dict.fromkeys(name.text or "" for name in peer.iter("hostname"))),
            local=peer.find("state") is None,
            connected=peer.findtext("connected") == "1",
            member=peer.findtext("state", MEMBER) == MEMBER,
            state=peer.findtext("stateStr", "Peer in Cluster"),
        )
        for peer in root.iter("peer")
    )


def local_by(name: str) -> Callable[[str], bool]:
    """Return how to tell that a name means this host: it is ``name``, or, when that is empty, by looking."""
    return (lambda other: other == name) if name else is_this_host


def match_hosts(names: Iterable[str], peers: Sequence[Peer], is_local: Callable[[str], bool]) -> dict[str, str]:
    """Return the peer UUID of each name that belongs to the pool: by name, else by address, else as this host."""
    by_name = {name: peer.uuid for peer in peers if not peer.local for name in peer.names}
    local = next((peer.uuid for peer in peers if peer.local), "")
    found = {name: by_name[name] for name in names if name in by_name}
    for name in set(names) - set(found):
        if local and is_local(name):
            found[name] = local
            continue
        mine = addresses_of(name)
        same = [uuid for other, uuid in by_name.items() if mine & addresses_of(other)]
        if same:
            found[name] = same[0]
    return found


@dataclass(frozen=True)
class Pool:
    """The peers, and which of the wanted names they answer to."""

    peers: tuple[Peer, ...]
    hosts: Mapping[str, str]

    def peer(self, name: str) -> Optional[Peer]:
        """Return the peer that ``name`` means."""
        return next((peer for peer in self.peers if peer.uuid == self.hosts.get(name)), None)
