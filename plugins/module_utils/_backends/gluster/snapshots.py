# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of volumes: what the modules gluster_snapshot and gluster_snapshot_info do.

Gluster makes them of the thin LVs below the bricks.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.identity import read_pairs
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Cluster, Volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import read_cluster, with_heals
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import (
    brick_troubles,
    heal_troubles,
    peer_troubles,
    task_troubles,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet

WITHOUT_LVM = "LVM commands not found"
# What is written after a snapshot takes room of its thin pool a second time, and a pool that is full stops its bricks:
# from this share on, in percent, it gets no more of them.
NEARLY_FULL = 80
NO_SNAPSHOT = "00000000-0000-0000-0000-000000000000"
EXTEND = {"data": "--extents +50%FREE", "metadata": "--poolmetadatasize +64m"}
# Of each brick on this host that lies on thin LVM: its pool, and how full its data and its metadata are, in percent,
# None where LVM does not tell.
Pools = Mapping[str, tuple[str, Optional[float], Optional[float]]]


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that there is."""

    name: str
    volume: str
    created: str = ""
    description: str = ""


@dataclass(frozen=True)
class Kept:
    """The snapshots by name, and the pool they are of.

    ``pools`` are the thin pools below bricks of which one is to be made, ``restored`` the volumes that were restored
    before.
    """

    snapshots: Mapping[str, Snapshot]
    cluster: Cluster
    pools: Pools = field(default_factory=dict)
    restored: frozenset[str] = frozenset()


def parse_snapshots(root: ET.Element) -> dict[str, Snapshot]:
    """Return the snapshots of ``snapshot info``."""
    found = (
        Snapshot(
            name=one.findtext("name") or "",
            volume=one.findtext("snapVolume/originVolume/name") or "",
            created=one.findtext("createTime") or "",
            description=one.findtext("description") or "",
        )
        for one in root.iterfind("snapInfo/snapshots/snapshot")
    )
    return {one.name: one for one in found}


def read_snapshots(cli: Cli) -> dict[str, Snapshot]:
    """Return all snapshots of the pool."""
    try:
        return parse_snapshots(cli("snapshot", "info"))
    except ClusterError as error:
        if WITHOUT_LVM not in str(error):
            raise
        raise ClusterError("gluster makes snapshots with LVM, which is not on this host: install lvm2") from error


def told(cli: Cli, volumes: Collection[str]) -> dict[str, Any]:
    """Return the snapshots of ``volumes``, all when it is empty; none where gluster was never used."""
    try:
        found = read_snapshots(cli)
    except NotYet:
        return {"available": False, "snapshots": {}}
    return {"available": True, "snapshots": _view(found, volumes or {one.volume for one in found.values()})}


def _view(snapshots: Mapping[str, Snapshot], volumes: Collection[str]) -> dict[str, Any]:
    return {
        name: {"volume": one.volume, "created": one.created, "description": one.description}
        for name, one in sorted(snapshots.items())
        if one.volume in volumes
    }


class Snapshots:
    """The declared snapshots; see the module gluster_snapshot for the items.

    :param pools: tells the thin pools below the paths that it is given.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        cli: Cli,
        allow: Collection[str],
        pools: Callable[[Collection[str]], Pools],
    ) -> None:
        self._items = items
        self._cli = cli
        self._allow = allow
        self._pools = pools

    def read(self) -> Kept:
        """Look once: four calls at most, and one more for each volume of which a snapshot is to be made.

        Where bricks of those lie on this host, one report of LVM.
        """
        cluster = read_cluster(self._cli)
        found = read_snapshots(self._cli)
        due = {one["volume"]: None for one in self._items if one["state"] == "present" and one["name"] not in found}
        bricks = _local_bricks((cluster.volumes[name] for name in due if name in cluster.volumes), cluster)
        pools = self._pools(bricks) if bricks else {}
        restored = frozenset(name for name in cluster.volumes if self._was_restored(name))
        return Kept(found, with_heals(self._cli, cluster, due), pools, restored)

    def _was_restored(self, volume: str) -> bool:
        """Read what glusterd has noted: its command line does not tell."""
        noted = read_pairs(os.path.join(self._cli.workdir, "vols", volume, "info"))
        return noted.get("restored_from_snap", NO_SNAPSHOT) != NO_SNAPSHOT

    def blank(self) -> Kept:
        """Return a host without volumes."""
        return Kept({}, Cluster(fresh=True))

    def plan(self, state: Kept) -> Plan[Kept]:
        """Plan each snapshot in turn."""
        plan = Plan(state)
        plan.refusals += self._faults(state)
        after = dict(state.snapshots)
        for item in self._items:
            one = Snapshot(item["name"], item["volume"], description=item["description"])
            there = state.snapshots.get(one.name)
            why = self._refusals(item["state"], one, there, state)
            plan.refusals += [f"snapshot {one.name}: {reason}" for reason in why]
            if (there is None) == (item["state"] == "present"):
                plan.steps.append(self._step(item["state"], one))
                after = {name: kept for name, kept in after.items() if name != one.name}
                after |= {one.name: one} if there is None else {}
            elif item["state"] == "restored":
                plan.warnings.append(f"snapshot {one.name} is not there; it was restored already, or never made")
        plan.predicted = replace(state, snapshots=after)
        return plan

    def _faults(self, state: Kept) -> list[str]:
        """Return what makes no sense of several items together."""
        names = Counter(item["name"] for item in self._items)
        back = Counter(
            item["volume"] for item in self._items if item["state"] == "restored" and item["name"] in state.snapshots
        )
        return [f"snapshot {name}: it is declared {count} times" for name, count in names.items() if count > 1] + [
            f"volume {name}: one snapshot is restored, once in its life; {count} are asked for"
            for name, count in back.items()
            if count > 1
        ]

    def _step(self, wanted: str, one: Snapshot) -> Step:
        if wanted == "present":
            return Step(f"make snapshot {one.name} of volume {one.volume}", partial(self._create, one))
        if wanted == "absent":
            return Step(f"delete snapshot {one.name} of volume {one.volume}", partial(self._end, "delete", one))
        sentence = f"give volume {one.volume} the content of snapshot {one.name} back; the snapshot is used up"
        return Step(sentence, partial(self._end, "restore", one))

    def _refusals(self, wanted: str, one: Snapshot, there: Snapshot | None, state: Kept) -> list[str]:
        if there is not None and there.volume != one.volume:
            return [f"it is one of volume {there.volume}, not of {one.volume}"]
        volume = state.cluster.volumes.get(one.volume)
        if volume is None:
            return [] if state.cluster.fresh or wanted == "absent" else [f"there is no volume {one.volume}"]
        if wanted == "present" and there is None:
            why_not = _unfit(volume, state.cluster) + _pool_troubles(volume, state)
            return [f"it is not made while {why}" for why in why_not]
        if wanted == "restored" and there is not None:
            return self._not_restored(volume, state)
        return []

    def _not_restored(self, volume: Volume, state: Kept) -> list[str]:
        why_not = peer_troubles(state.cluster) + task_troubles(volume, state.cluster)
        found = [f"it is not restored while {why}" for why in why_not]
        if volume.name in state.restored:
            # A glusterd that misses the second time takes its bricks for the LVs of the first snapshot, and deletes
            # everything above them.
            found.append(
                f"volume {volume.name} was restored before, and gluster could delete files of a whole node the second "
                "time; activate the snapshot, mount it, and copy out of it (docs/gluster.md)"
            )
        if len({brick.owner for brick in volume.bricks}) < len(volume.bricks):
            found.append(
                f"volume {volume.name} has several bricks on a node, and none of them could come home after that; "
                "activate the snapshot, mount it, and copy out of it (docs/gluster.md)"
            )
        if volume.status == "started":
            found.append(f"volume {volume.name} is started; end what uses it and stop it (state: stopped)")
        if "restore" not in self._allow:
            found.append(f"all that was written to volume {volume.name} since is lost; allow: [restore] permits it")
        return found

    def _create(self, one: Snapshot) -> None:
        about = ["description", one.description] if one.description else []
        self._cli("snapshot", "create", one.name, one.volume, "no-timestamp", *about)

    def _end(self, verb: str, one: Snapshot) -> None:
        self._cli("snapshot", verb, one.name)

    def view(self, state: Kept) -> dict[str, Any]:
        """Return the declared snapshots that there are, and the others of their volumes."""
        return {"snapshots": _view(state.snapshots, {item["volume"] for item in self._items})}


def _local_bricks(volumes: Iterable[Volume], cluster: Cluster) -> list[str]:
    return [brick.path for volume in volumes for brick in volume.bricks if cluster.is_local(brick)]


def _pool_troubles(volume: Volume, state: Kept) -> list[str]:
    """Return which pools below the local bricks of ``volume`` are nearly full."""
    bricks = _local_bricks([volume], state.cluster)
    pools = {state.pools[path] for path in bricks if path in state.pools}
    return [
        _too_full(pool, part, percent)
        for pool, data, metadata in sorted(pools, key=itemgetter(0))
        for part, percent in (("data", data), ("metadata", metadata))
        if percent is None or percent >= NEARLY_FULL
    ]


def _too_full(pool: str, part: str, percent: Optional[float]) -> str:
    if percent is None:
        return f"how full thin pool {pool} of this host is ({part}) is unknown: see lvs -a {pool.split('/')[0]}"
    return (
        f"thin pool {pool} of this host is {percent:.1f} % full ({part}), and {NEARLY_FULL} % is the limit; "
        f"delete older snapshots, or extend it: lvextend {EXTEND[part]} {pool}"
    )


def _unfit(volume: Volume, cluster: Cluster) -> list[str]:
    """Return why a snapshot would not be whole."""
    if volume.status != "started":
        return [f"volume {volume.name} is {volume.status}, not started"]
    return (
        peer_troubles(cluster)
        + brick_troubles(volume.bricks, cluster)
        + heal_troubles(volume, cluster)
        + task_troubles(volume, cluster)
    )
