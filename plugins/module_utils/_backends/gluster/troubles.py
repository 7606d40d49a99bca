# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a pool and its volumes: why bricks must not change now, and why an operator has to wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    UNKNOWN,
    Brick,
    Bricks,
    Cluster,
    Heals,
    Volume,
    brick_names,
    brick_sets,
)


def unhealed(bricks: Iterable[Brick], heals: Heals) -> Optional[int]:
    """Return how many entries wait to be healed on ``bricks``, None when one of them gave no number."""
    counts = [heals.get(str(brick), UNKNOWN).entries for brick in bricks]
    return None if None in counts else sum(count or 0 for count in counts)


def peer_troubles(state: Cluster, beside: Collection[str] = ()) -> list[str]:
    """Return which peers are not there or were turned away, ``beside`` those whose UUID is given."""
    counted = [peer for peer in state.peers if peer.uuid not in beside]
    absent = [f"peer {peer.names[0]} is not connected" for peer in counted if not peer.connected]
    return absent + [f"peer {peer.names[0]} is no member ({peer.state})" for peer in counted if not peer.member]


def brick_troubles(bricks: Iterable[Brick], state: Cluster) -> list[str]:
    """Return which of ``bricks`` do not run."""
    return [f"brick {brick} is offline" for brick in bricks if brick.key not in state.online]


def heal_troubles(volume: Volume, state: Cluster) -> list[str]:
    """Return what of a started volume waits to be healed; unknown is not healed."""
    heals = state.heals.get(volume.name, {})
    count = unhealed(volume.bricks, heals)
    if volume.layout.size == 1 or count == 0:
        return []
    split = [name for name, heal in heals.items() if heal.split_brain]
    if split:
        how = f"gluster volume heal {volume.name} info split-brain"
        return [f"entries are in split-brain on {', '.join(split)}, which heals only by hand (see {how})"]
    return ["the number of entries to heal is unknown" if count is None else f"{count} entries wait to be healed"]


def task_troubles(volume: Volume, state: Cluster) -> list[str]:
    """Return the tasks that are not over."""
    return [
        f"a {task.kind} is in progress"
        if task.status.endswith("in progress")
        else f"a {task.kind} ({task.status}) waits to be committed or stopped"
        for task in state.tasks.get(volume.name, ())
        if task.active
    ]


def snapshot_troubles(volume: Volume) -> list[str]:
    """Return whether snapshots hold the bricks of a volume as they are."""
    word = "snapshot" if volume.snapshots == 1 else "snapshots"
    return [f"it has {volume.snapshots} {word}"] if volume.snapshots else []


def survivor_troubles(bricks: Bricks, volume: Volume, state: Cluster) -> list[str]:
    """Return why ``bricks`` of a volume may lack data of it: what waits there for others does not count."""
    heals = state.heals.get(volume.name, {})
    found = brick_troubles(bricks, state)
    for brick in bricks if volume.layout.size > 1 else ():
        split = heals.get(str(brick), UNKNOWN).split_brain
        if split is None:
            found.append(f"the heal state of {brick} is unknown")
        elif split:
            found.append(f"{split} entries of {brick} are in split-brain")
    return found


def data_bricks(bricks: Bricks, volume: Volume) -> Bricks:
    """Return those of ``bricks`` of a volume that are no arbiters."""
    size = volume.layout.size
    arbiters = volume.bricks[size - 1 :: size] if volume.layout.arbiter else ()
    return tuple(brick for brick in bricks if brick not in arbiters)


def source_troubles(left: Bricks, volume: Volume, state: Cluster) -> list[str]:
    """Return whether ``left``, what a dead brick leaves of its set, may lack data that it had.

    A brick lists what others lack: what one of them lists and a data brick does not is what that brick lacks itself.
    There are two looks, and only what both have counts: what is written between the answers of two bricks comes to
    the lists of all that have it.
    """
    data, layout = data_bricks(left, volume), volume.layout
    needed = layout.disperse - layout.redundancy if layout.disperse else 1
    earlier, later = state.lists.get(volume.name, ({}, {}))
    if len(left) == 1:
        found = f"{left[0]} is the only other copy, and may lack data"
    elif any(str(brick) not in look for brick in left for look in (earlier, later)):
        asked = f"heal {volume.name} info has no list of {brick_names(left)}"
        found = f"what {brick_names(data)} may lack is unknown: {asked}"
    else:
        waiting = [frozenset[str]().union(*(look[str(brick)] for brick in left)) for look in (earlier, later)]
        good = Counter(entry for brick in data for entry in later[str(brick)])
        stale = sum(good[entry] < needed for entry in waiting[0] & waiting[1])
        if not stale:
            return []
        found = f"{stale} entries that wait to be healed have too little good data left on {brick_names(data)}"
    remedy = "bring the dead brick back once and let it heal, or give that up with allow: [stale_source]"
    return [f"{found} ({remedy})"]


def healerless(volume: Volume, bricks: Bricks, state: Cluster) -> list[str]:
    """Return the hosts of ``bricks`` of a started volume on which nothing heals it."""
    hosts = {brick.owner: brick.host for brick in bricks if volume.layout.size > 1}
    return [host for uuid, host in hosts.items() if (volume.name, uuid) not in state.healers]


def healer_troubles(volume: Volume, bricks: Bricks, state: Cluster) -> list[str]:
    """Return on which hosts of ``bricks`` of a started volume nothing heals it."""
    remedy = f"gluster volume start {volume.name} force starts it; if not, end the process glustershd there before"
    return [f"the self-heal daemon on {host} does not run ({remedy})" for host in healerless(volume, bricks, state)]


def troubles(volume: Volume, state: Cluster) -> list[str]:
    """Return why the topology of ``volume`` must not change now."""
    found = peer_troubles(state)
    if volume.status == "started":
        found += brick_troubles(volume.bricks, state) + heal_troubles(volume, state)
    elif volume.status != "created":
        # It may lack data, and gluster counts that only while it runs. One that was never started has none to lack.
        remedy = "start it first, by a run that changes nothing else (state: started)"
        found.append(f"it is {volume.status}, and what waits to be healed is unknown; {remedy}")
    return found + task_troubles(volume, state) + snapshot_troubles(volume)


def gate_troubles(state: Cluster, names: Collection[str], peers: int, without: Collection[str] = ()) -> list[str]:
    """Return what is not as it must be before a node may go.

    :param names: the volumes that count; all started ones when empty.
    :param peers: how many members the pool must have, this host included; 0 for those that it knows.
    :param without: hosts that are lost or empty, as ``state.hosts`` knows them; what is theirs does not count.
    """
    lost = set(state.hosts.values())
    others = [peer for peer in state.peers if peer.uuid not in lost]
    found = [f"{name} is no member of the pool" for name in without if name not in state.hosts]
    found += peer_troubles(state, beside=lost)
    there, wanted = sum(peer.connected and peer.member for peer in others), peers - len(lost)
    if there < wanted:
        found.append(f"{there} of {wanted} peers are there")
    for name in names or [name for name, volume in state.volumes.items() if volume.status == "started"]:
        found += [f"volume {name}: {why}" for why in _volume_gate(name, state, lost)]
    return found


def _quorum_troubles(volume: Volume, lost: Collection[str]) -> list[str]:
    """Return the sets that are left with too few bricks."""
    layout = volume.layout
    needed = layout.disperse - layout.redundancy if layout.disperse else layout.size // 2 + 1
    left = [[brick for brick in one if brick.owner not in lost] for one in brick_sets(volume.bricks, layout.size)]
    return [f"only {brick_names(one) or 'no brick'} of a set is left" for one in left if len(one) < needed]


def _volume_gate(name: str, state: Cluster, lost: Collection[str]) -> list[str]:
    volume = state.volumes.get(name)
    if volume is None or volume.status != "started":
        return ["it does not exist" if volume is None else f"it is {volume.status}, not started"]
    kept = tuple(brick for brick in volume.bricks if brick.owner not in lost)
    # Filling the bricks of a lost host crashes self-heal daemons of the others, and starts them again: what comes then.
    data = (
        _quorum_troubles(volume, lost) + survivor_troubles(kept, volume, state)
        if lost
        else brick_troubles(kept, state) + heal_troubles(volume, state) + healer_troubles(volume, kept, state)
    )
    return data + task_troubles(volume, state)
