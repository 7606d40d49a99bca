# SPDX-License-Identifier: GPL-3.0-or-later
"""Bricks that are replaced by others, or put back empty in their own place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.brick_checks import (
    check_declared,
    check_filesystem,
    check_forced_brick,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Online
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    BEGUN,
    TOLD,
    Brick,
    Bricks,
    Volume,
    brick_at,
    brick_keys,
    brick_sets,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.refilling import (
    Noted,
    noted,
    plan_refill,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import (
    data_bricks,
    peer_troubles,
    source_troubles,
    survivor_troubles,
    task_troubles,
    troubles,
)


@dataclass(frozen=True)
class Swap:
    """A brick that goes and the one that comes; the same where a brick is reset."""

    old: Brick
    new: Brick

    @property
    def is_reset(self) -> bool:
        """Say whether the brick stays where it is."""
        return self.old.key == self.new.key


def due_swaps(draft: Draft, have: Volume) -> list[Swap]:
    """Return what is not done yet. A brick that runs needs no reset, unless a run that died has begun one.

    A brick that is reset keeps the name that its volume has for its host.
    """
    wanted, online, hosts = draft.wanted, draft.state.online, draft.state.hosts
    named = {brick.key: brick for brick in have.bricks}
    keys, begun = brick_keys(have.bricks), noted(draft, have, BEGUN)
    pairs = [(brick_at(old, hosts), brick_at(new, hosts)) for old, new in wanted.replace]
    found = [Swap(old, new) for old, new in pairs if old.key in keys or new.key not in keys]
    resets = [named.get(brick.key, brick) for brick in (brick_at(place, hosts) for place in wanted.reset)]
    due = [
        brick for brick in resets if brick.key not in keys or not (brick.key in online or _rests(draft, have, brick))
    ]
    return found + [Swap(brick, brick) for brick in {brick.key: brick for brick in due + begun}.values()]


def plan_swaps(draft: Draft, have: Volume, swaps: Sequence[Swap]) -> None:
    """Replace and reset bricks, one of a set at most."""
    if have.status != "started":
        draft.refuse(f"it is {have.status}; bricks are replaced and reset only while it is started")
    if have.layout.size == 1:
        draft.refuse("it has no copies to fill a new brick from; add bricks, then take the old ones out")
        return
    for members in brick_sets(have.bricks, have.layout.size):
        going = [swap.old for swap in swaps if swap.old.key in brick_keys(members)]
        if len(going) > 1:
            draft.refuse(f"{going[0]} and {going[1]} are of one set; one after the other, healed in between")
    for swap in swaps:
        if swap.is_reset and _has_its_data(draft, have, swap.old):
            _start(draft, have, swap.old)
            # A run may die when it has ended the process, to start it anew.
            if swap.old.key in brick_keys(noted(draft, have, TOLD)):
                plan_refill(draft, have, swap.old)
        elif _is_declared_well(draft, have, swap):
            _check_state(draft, have, swap)
            if swap.old not in noted(draft, have, BEGUN):
                check_forced_brick(draft, swap.new)
            _swap(draft, have, swap)


def needs_lists(draft: Draft) -> bool:
    """Say whether a dead brick is to go of which the others of its set may not have all."""
    have = draft.have
    if have is None or have.status != "started":
        return False
    dead = [swap.old for swap in due_swaps(draft, have) if not _runs(draft, have, swap.old)]
    return any(len(_doubtful(draft, have, brick)) > 1 for brick in dead)


def _runs(draft: Draft, have: Volume, brick: Brick) -> bool:
    return brick.key in draft.state.online and brick not in noted(draft, have, BEGUN)


def _rests(draft: Draft, have: Volume, brick: Brick) -> bool:
    """Say whether a brick does not run because its volume does not, as far as this host can tell."""
    return have.status != "started" and (not draft.state.is_local(brick) or _has_its_data(draft, have, brick))


def _has_its_data(draft: Draft, have: Volume, brick: Brick) -> bool:
    directory = draft.state.directories.get(brick.path)
    if directory is None or not draft.state.is_local(brick):
        return False
    return directory.volume_id == have.uuid != "" and directory.refilling != BEGUN


def _start(draft: Draft, have: Volume, brick: Brick) -> None:
    check_filesystem(draft, brick, draft.state.directories[brick.path])
    sentence = f"start brick {brick} of volume {have.name}, which has its data and needs no reset"
    draft.step(sentence, ("start", have.name, "force"), Online(have.name, brick, draft.wanted.timeout))


def _is_declared_well(draft: Draft, have: Volume, swap: Swap) -> bool:
    have_keys, want_keys = brick_keys(have.bricks), brick_keys(draft.bricks)
    before = len(draft.refusals)
    if swap.old.key not in have_keys:
        draft.refuse(f"{swap.old} is none of its bricks")
    if not swap.is_reset and swap.new.key in have_keys:
        draft.refuse(f"{swap.new} is one of its bricks already, and cannot replace {swap.old}")
    check_declared(draft, swap.new)
    if not swap.is_reset and swap.old.key in want_keys:
        draft.refuse(f"{swap.old} is to be replaced and still declared")
    return len(draft.refusals) == before


def _check_state(draft: Draft, have: Volume, swap: Swap) -> None:
    doing, runs = "reset" if swap.is_reset else "replaced", _runs(draft, have, swap.old)
    found = troubles(have, draft.state) if runs else _dead_brick_troubles(draft, have, swap.old)
    source = ", and may be what the others heal from," if runs else ""
    for why in found:
        draft.refuse(f"{swap.old}{' runs' if runs else ' is dead'}{source} and is not {doing} while {why}")


def _dead_brick_troubles(draft: Draft, have: Volume, dead: Brick) -> list[str]:
    """Return what forbids to give up a brick that does not run: the others of its set must have all of its data."""
    state, left = draft.state, _others(have, dead)
    found = peer_troubles(state, beside=[dead.owner]) + survivor_troubles(left, have, state)
    doubtful = _doubtful(draft, have, dead)
    return found + (source_troubles(doubtful, have, state) if doubtful else []) + task_troubles(have, state)


def _doubtful(draft: Draft, have: Volume, dead: Brick) -> Bricks:
    """Return what a dead brick leaves of its set where a write may have gone to too few of these; none if allowed.

    Of three copies two have each write. Of a set with an arbiter, that may be the dead brick and the arbiter.
    """
    layout, left = have.layout, _others(have, dead)
    if "stale_source" in draft.wanted.allow:
        return ()
    lost_data = len(data_bricks(left, have)) < len(left)
    return left if lost_data or layout.disperse or layout.size == 2 else ()


def _others(have: Volume, brick: Brick) -> Bricks:
    for members in brick_sets(have.bricks, have.layout.size):
        if brick.key in brick_keys(members):
            return tuple(one for one in members if one.key != brick.key)
    return ()


def _swap(draft: Draft, have: Volume, swap: Swap) -> None:
    name, old, new = have.name, str(swap.old), str(swap.new)
    online = Online(name, swap.new, draft.wanted.timeout)
    if swap.is_reset:
        commit = ("reset-brick", name, old, new, "commit", "force")
        begin, told = Noted(swap.new, BEGUN), Noted(swap.new, TOLD)
        calls = begin, ("reset-brick", name, old, "start"), commit, told, online
        draft.step(f"reset brick {old} of volume {name}: the others of its set fill it", *calls)
        plan_refill(draft, have, swap.new)
        return
    sentence = f"replace brick {old} of volume {name} by {new}: the others of its set fill it"
    draft.step(sentence, ("replace-brick", name, old, new, "commit", "force"), online)
    if draft.after is not None:
        bricks = tuple(swap.new if brick.key == swap.old.key else brick for brick in draft.after.bricks)
        draft.after = replace(draft.after, bricks=bricks)
