# SPDX-License-Identifier: GPL-3.0-or-later
"""Bricks that are taken out of a volume, after their data has moved to the others."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Moved
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    REMOVAL,
    Bricks,
    Task,
    Volume,
    brick_keys,
    brick_names,
    brick_sets,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import is_on
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import troubles


def is_sharded(volume: Volume) -> bool:
    """Say whether the files of a volume are split into shards."""
    return is_on("features.shard", volume.options)


# Where the bricks of a volume lie that was given the content of a snapshot back.
SNAPSHOT_BRICKS = "/gluster/snaps/"
COME_HOME = "they are those of a snapshot that was restored, playbooks/bring_bricks_home.yml brings them home"
DECLARE = "declare them, or set bricks_purge"


def may_hold_data(volume: Volume) -> bool:
    """Say whether a volume was ever started."""
    return volume.status != "created"


def surplus(draft: Draft, have: Volume) -> Bricks:
    """Return the bricks that are not declared."""
    return tuple(brick for brick in have.bricks if brick.key not in brick_keys(draft.bricks))


def check_surplus(draft: Draft, have: Volume, removed: Bricks) -> bool:
    """Refuse to take bricks out unless that is asked for and possible; return whether it is."""
    wanted, names = draft.wanted, brick_names(removed)
    before = len(draft.refusals)
    if not wanted.bricks_purge:
        restored = any(SNAPSHOT_BRICKS in brick.path for brick in removed)
        draft.refuse(f"it has bricks that are not declared: {names}; {COME_HOME if restored else DECLARE}")
        return False
    if "shrink" not in wanted.allow:
        draft.refuse(f"bricks that are not declared are taken out of it: {names}; allow: [shrink] permits it")
    if wanted.layout != have.layout:
        draft.refuse("bricks are not taken out of it while its layout changes")
    keys = brick_keys(removed)
    for members in brick_sets(have.bricks, have.layout.size):
        if keys & brick_keys(members) and not brick_keys(members) <= keys:
            draft.refuse(f"only whole sets are taken out of it; this one is declared in part: {brick_names(members)}")
    if len(removed) == len(have.bricks):
        draft.refuse("none of its bricks is declared; no set would be left to move its data to")
    if is_sharded(have) and may_hold_data(have):
        draft.refuse("moving the shards of a volume has damaged disks of guests; make a new volume and move them there")
    return len(draft.refusals) == before


def own_task(draft: Draft, have: Volume, removed: Bricks) -> Task | None:
    """Return the removal of just these bricks that an earlier run began."""
    names = frozenset(map(str, removed))
    tasks = draft.state.tasks.get(have.name, ())
    return next((task for task in tasks if task.kind == REMOVAL and task.active and task.bricks == names), None)


def plan_shrink(draft: Draft, have: Volume, removed: Bricks) -> None:
    """Move the data off the bricks, then take them out."""
    task = own_task(draft, have, removed)
    _check_state(draft, have, task)
    wanted, words = draft.wanted, ("remove-brick", have.name, *map(str, removed))
    stop = f"{' '.join(('gluster volume', *words))} stop keeps the bricks"
    if task is not None and task.status == "failed":
        draft.refuse(f"moving the data off {brick_names(removed)} failed; {stop}")
    hosts = frozenset(brick.owner for brick in removed)
    over = Moved(("volume", *words, "status"), wanted.timeout, stop, hosts)
    if task is None:
        sentence = f"move the data of volume {have.name} off {brick_names(removed)}"
        draft.step(sentence, (*words, "start"), *([over] if wanted.wait else []))
    if not wanted.wait:
        draft.warn(f"{brick_names(removed)} are taken out by a run with wait, when their data has moved")
        return
    draft.step(f"take out of volume {have.name}: {brick_names(removed)}", over, (*words, "commit"))
    if draft.after is not None:
        kept = tuple(brick for brick in draft.after.bricks if brick.key not in brick_keys(removed))
        draft.after = replace(draft.after, bricks=kept)


def _check_state(draft: Draft, have: Volume, task: Task | None) -> None:
    if have.status == "created":
        draft.refuse("it was never started; data moves off bricks only while it is started")
    others = tuple(one for one in draft.state.tasks.get(have.name, ()) if one != task)
    for why in troubles(have, replace(draft.state, tasks={have.name: others})):
        draft.refuse(f"no bricks are taken out while {why}")
