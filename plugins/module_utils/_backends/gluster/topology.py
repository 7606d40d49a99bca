# SPDX-License-Identifier: GPL-3.0-or-later
"""The bricks of one volume: which are to be added, and which must not be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    VOLUME_ID,
    Brick,
    Bricks,
    Volume,
    brick_keys,
    brick_names,
    brick_sets,
    kind,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import troubles

REGROUPED = "its bricks form other sets than declared; sets cannot be regrouped"


def check_layout(draft: Draft) -> None:
    """Refuse sets that are incomplete, unsafe, or keep two copies on one host."""
    wanted, bricks, size = draft.wanted, draft.bricks, draft.wanted.layout.size
    if not bricks or len(bricks) % size:
        draft.refuse(f"{len(bricks)} bricks do not make sets of {size}")
    if len(brick_keys(bricks)) != len(bricks):
        draft.refuse("a brick is listed twice")
    if not wanted.layout.disperse and wanted.layout.replica < 3 and "replica_change" not in wanted.allow:
        copies = "one copy of the data is no redundancy" if wanted.layout.replica == 1 else "two copies split-brain"
        draft.refuse(f"{copies}; take replica 3, or allow: [replica_change]")
    for members in brick_sets(bricks, size):
        if size > 1 and len({brick.owner for brick in members}) != len(members):
            draft.refuse(f"a set has two bricks on one host: {brick_names(members)}")


def check_new_bricks(draft: Draft, bricks: Bricks) -> None:
    """Refuse bricks that gluster would not take, or that hold another volume's data."""
    state = draft.state
    unknown = sorted({brick.host for brick in bricks if brick.host not in state.hosts})
    if unknown and state.formed:
        draft.refuse(f"{', '.join(unknown)} not in the pool; add it with gluster_peer")
    for brick in bricks:
        if brick.path in state.marked and state.is_local(brick):
            draft.refuse(
                f"{brick} carries the id of a volume, of a former one or of a create that failed half-way; "
                f"if it holds nothing that is needed: setfattr -x {VOLUME_ID} {brick.path}"
            )


def plan_bricks(draft: Draft, have: Volume) -> None:
    """Add what is declared and missing."""
    missing = [str(brick) for brick in have.bricks if brick.key not in brick_keys(draft.bricks)]
    if missing:
        draft.refuse(
            f"it has bricks that are not declared: {', '.join(missing)}; declare them, they are not taken away"
        )
        return
    added = _added_bricks(draft, have)
    if not added:
        return
    check_new_bricks(draft, added)
    for why in troubles(have, draft.state):
        draft.refuse(f"no bricks are added while {why}")
    _add(draft, have, added)


def _add(draft: Draft, have: Volume, added: Bricks) -> None:
    layout = draft.wanted.layout
    grown = layout != have.layout
    words = layout.words() if grown else []
    as_kind = f" as {' '.join(words)}" if grown else ""
    sentence = f"add bricks to volume {have.name}{as_kind}: {brick_names(added)}"
    draft.step(sentence, "add-brick", have.name, *words, *map(str, added))
    if not grown:
        draft.warnings.append(f"volume {have.name}: new bricks fill only after a rebalance")
    if draft.after is not None:
        draft.after = replace(draft.after, bricks=have.bricks + added, layout=layout)


def _added_bricks(draft: Draft, have: Volume) -> Bricks:
    """Return the bricks to add, in the order in which the CLI wants them."""
    wanted = draft.wanted.layout
    have_sets = [brick_keys(members) for members in brick_sets(have.bricks, have.layout.size)]
    want_sets = brick_sets(draft.bricks, wanted.size)
    if wanted != have.layout:
        return _grown_sets(draft, have, have_sets, want_sets)
    if any(members not in [brick_keys(found) for found in want_sets] for members in have_sets):
        draft.refuse(REGROUPED)
        return ()
    return tuple(brick for found in want_sets if brick_keys(found) not in have_sets for brick in found)


def _grown_sets(
    draft: Draft, have: Volume, have_sets: Sequence[frozenset[tuple[str, str]]], want_sets: Sequence[Bricks]
) -> Bricks:
    wanted = draft.wanted.layout
    grows = not wanted.disperse and not have.layout.disperse and wanted.replica > have.layout.replica
    if not grows or have.layout.arbiter or len(want_sets) != len(have_sets):
        draft.refuse(f"it is {kind(have.layout)} and cannot become {kind(wanted)} in place; make a new volume")
        return ()
    if "replica_change" not in draft.wanted.allow:
        draft.refuse(f"it is {kind(have.layout)}, declared is {kind(wanted)}; allow: [replica_change] permits it")
    added: list[Brick] = []
    for members in have_sets:
        grown = next((found for found in want_sets if members <= brick_keys(found)), None)
        if grown is None:
            draft.refuse(REGROUPED)
            return ()
        added += [brick for brick in grown if brick.key not in members]
    return tuple(added)
