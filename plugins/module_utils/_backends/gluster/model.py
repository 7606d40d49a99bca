# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes as glusterd knows them and as the operator declares them: plain data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import option_text
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import Peer

VOLUME_ID = "trusted.glusterfs.volume-id"
# A note beside a brick that is put back empty, until its process was started anew, and what it says: whether gluster
# has been told to fill it. An empty brick of which it has not is taken for a good one.
REFILLING = ".personal-cluster-refilling-"
BEGUN, TOLD = "reset begun", "reset done"
REMOVAL = "Remove brick"


def note_of(path: str) -> str:
    """Return where the note of the brick at ``path`` is."""
    parent, name = os.path.split(path)
    return os.path.join(parent, REFILLING + name)


@dataclass(frozen=True)
class Layout:
    """How bricks form sets; ``replica`` is 1 for a dispersed volume."""

    replica: int = 3
    arbiter: int = 0
    disperse: int = 0
    redundancy: int = 0

    @property
    def size(self) -> int:
        """Return the number of bricks of one set."""
        return self.disperse or self.replica

    def words(self) -> list[str]:
        """Return what the CLI wants to hear."""
        if self.disperse:
            return ["disperse", str(self.disperse), "redundancy", str(self.redundancy)]
        if self.replica == 1:
            return []
        return ["replica", str(self.replica), *(["arbiter", str(self.arbiter)] if self.arbiter else [])]


@dataclass(frozen=True)
class Brick:
    """A directory on a host; ``owner`` is the peer's UUID, or the host's name while it is unknown."""

    host: str
    path: str
    owner: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the brick, whatever name its host goes by."""
        return self.owner, self.path

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


Bricks = tuple[Brick, ...]
# Host and path of a brick, as declared.
Place = tuple[str, str]


@dataclass(frozen=True)
class Volume:
    """A volume as glusterd knows it."""

    name: str
    status: str
    layout: Layout
    bricks: Bricks
    options: Mapping[str, str]
    snapshots: int = 0
    uuid: str = ""


@dataclass(frozen=True)
class Task:
    """Work on a volume that glusterd knows of; ``bricks`` are those that a removal is about, as ``host:path``."""

    kind: str
    status: str
    bricks: frozenset[str] = frozenset()
    uuid: str = ""

    @property
    def active(self) -> bool:
        """Say whether it works, or holds the volume until somebody commits or stops it."""
        return self.status.endswith("in progress") or (self.kind == REMOVAL and self.status in ("completed", "failed"))


@dataclass(frozen=True)
class Heal:
    """What waits to be healed on a brick, None where that is not known."""

    entries: Optional[int]
    split_brain: Optional[int]


UNKNOWN = Heal(None, None)
# The heal state of a volume, by brick as ``host:path``.
Heals = Mapping[str, Heal]
# The GFIDs of the entries that each brick lists as waiting to be healed; a brick that gives no list is not in it.
Lists = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Directory:
    """Where a brick of this host lies: what gluster looks at before it takes one, and does not when forced.

    ``refilling`` is the note of a brick that is put back empty.
    """

    exists: bool
    on_root: bool
    is_mountpoint: bool
    volume_id: str
    refilling: str = ""
    empty: bool = True


@dataclass(frozen=True)
class Wanted:
    """A volume as the operator declares it; ``bricks`` are (host, path) in the order of the sets."""

    name: str
    state: str
    layout: Layout
    bricks: tuple[Place, ...]
    group: str
    options: Mapping[str, str]
    allow: frozenset[str]
    options_purge: bool = False
    bricks_purge: bool = False
    replace: tuple[tuple[Place, Place], ...] = ()
    reset: tuple[Place, ...] = ()
    rebalance: str = "none"
    wait: bool = True
    timeout: float = 3600


@dataclass(frozen=True)
class Cluster:
    """Everything that one look at the pool tells.

    ``online`` are the keys of bricks whose process runs, ``healers`` volumes and the hosts on which their self-heal
    daemon runs; ``heals`` has the volumes that were asked, ``lists`` two looks at each volume that loses a
    brick of which the others of its set may not have all; ``groups`` are the option groups of this release, None
    for one that has no file; ``directories`` are those of the declared bricks, as they are on this host.
    """

    peers: tuple[Peer, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    online: frozenset[tuple[str, str]] = frozenset()
    healers: frozenset[tuple[str, str]] = frozenset()
    tasks: Mapping[str, tuple[Task, ...]] = field(default_factory=dict)
    heals: Mapping[str, Heals] = field(default_factory=dict)
    lists: Mapping[str, tuple[Lists, Lists]] = field(default_factory=dict)
    groups: Mapping[str, Optional[Mapping[str, str]]] = field(default_factory=dict)
    directories: Mapping[str, Directory] = field(default_factory=dict)
    fresh: bool = False

    @property
    def formed(self) -> bool:
        """Say whether there is a pool: a glusterd that is alone and has no volume is not in one yet."""
        return not self.fresh and (len(self.peers) > 1 or bool(self.volumes))

    def is_local(self, brick: Brick) -> bool:
        """Say whether ``brick`` lies on the host whose glusterd was asked."""
        return any(peer.local and peer.uuid == brick.owner for peer in self.peers)


def wanted_volume(item: Mapping[str, Any]) -> Wanted:
    """Return an item of the module's list."""
    disperse = item["disperse"] or 0
    redundancy = item["redundancy"] or 0
    replica = 1 if item["disperse"] is not None else 3 if item["replica"] is None else item["replica"]
    return Wanted(
        name=item["name"],
        state=item["state"],
        layout=Layout(replica, item["arbiter"] or 0, disperse, redundancy),
        bricks=tuple(map(_place, item["bricks"])),
        group=item["group"] or "",
        options={name: option_text(value) for name, value in item["options"].items()},
        allow=frozenset(item["allow"]),
        options_purge=item["options_purge"],
        bricks_purge=item["bricks_purge"],
        replace=tuple((_place(one["from"]), _place(one["to"])) for one in item["replace"]),
        reset=tuple(map(_place, item["reset"])),
        rebalance=item["rebalance"],
        wait=item["wait"],
        timeout=item["timeout"],
    )


def _place(brick: Mapping[str, str]) -> Place:
    path = brick["path"]
    # One spelling; a path from elsewhere than the root stays what it is, and is refused.
    return brick["host"], "/" * path.startswith("/") + "/".join(
        part for part in path.split("/") if part not in ("", ".")
    )


def all_places(wanted: Wanted) -> tuple[Place, ...]:
    """Return every brick that a declaration names."""
    return wanted.bricks + tuple(place for pair in wanted.replace for place in pair) + wanted.reset


def brick_at(place: Place, hosts: Mapping[str, str]) -> Brick:
    """Return a declared brick with its owner, as far as the pool knows it."""
    host, path = place
    return Brick(host, path, hosts.get(host, host))


def wanted_bricks(wanted: Wanted, hosts: Mapping[str, str]) -> Bricks:
    """Return the declared bricks with their owners."""
    return tuple(brick_at(place, hosts) for place in wanted.bricks)


def brick_sets(bricks: Bricks, size: int) -> list[Bricks]:
    """Return bricks by replica or disperse set."""
    return [bricks[start : start + size] for start in range(0, len(bricks), size)]


def brick_keys(bricks: Iterable[Brick]) -> frozenset[tuple[str, str]]:
    """Return what identifies the bricks."""
    return frozenset(brick.key for brick in bricks)


def brick_names(bricks: Iterable[Brick]) -> str:
    """Return the bricks for a sentence."""
    return ", ".join(map(str, bricks))


def kind(layout: Layout) -> str:
    """Return the layout for a sentence."""
    return " ".join(layout.words()) or "without redundancy"
