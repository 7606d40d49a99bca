# SPDX-License-Identifier: GPL-3.0-or-later
"""Bricks that a volume gets in addition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.balancing import BALANCE, UNBALANCED
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.brick_checks import check_new_bricks
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Brick,
    Bricks,
    Volume,
    brick_keys,
    brick_names,
    brick_sets,
    kind,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.shrinking import (
    is_sharded,
    may_hold_data,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import troubles

REGROUPED = "its bricks form other sets than declared; sets cannot be regrouped"
Sets = Sequence[frozenset[tuple[str, str]]]


def plan_growth(draft: Draft, have: Volume, kept: Bricks) -> bool:
    """Add what is declared and missing; return whether that is anything.

    :param kept: the bricks that the volume has and keeps.
    """
    added = _added_bricks(draft, have, kept)
    if not added:
        return False
    check_new_bricks(draft, added)
    for why in troubles(have, draft.state):
        draft.refuse(f"no bricks are added while {why}")
    spreads = draft.wanted.layout == have.layout
    if spreads and is_sharded(have) and may_hold_data(have) and "grow" not in draft.wanted.allow:
        draft.refuse(
            "it is sharded, and adding bricks below running guests has damaged their disks; "
            "shut them down and run playbooks/add_nodes.yml, or permit it with allow: [grow]"
        )
    _add(draft, have, added)
    return True


def _add(draft: Draft, have: Volume, added: Bricks) -> None:
    layout = draft.wanted.layout
    grown = layout != have.layout
    words = layout.words() if grown else []
    as_kind = f" as {' '.join(words)}" if grown else ""
    sentence = f"add bricks to volume {have.name}{as_kind}: {brick_names(added)}"
    mark = () if grown else (("set", have.name, BALANCE, UNBALANCED),)
    draft.step(sentence, *mark, ("add-brick", have.name, *words, *map(str, added)))
    if is_sharded(have):
        draft.warn("it is sharded, and bricks were added; keep its guests off until it is healed and balanced")
    if draft.after is not None:
        options = draft.options if grown else {**draft.options, BALANCE: UNBALANCED}
        draft.after = replace(draft.after, bricks=draft.after.bricks + added, layout=layout, options=options)


def _added_bricks(draft: Draft, have: Volume, kept: Bricks) -> Bricks:
    """Return the bricks to add, in the order in which the CLI wants them."""
    wanted = draft.wanted.layout
    have_sets = [brick_keys(members) for members in brick_sets(kept, have.layout.size)]
    want_sets = brick_sets(draft.bricks, wanted.size)
    if wanted != have.layout:
        return _grown_sets(draft, have, have_sets, want_sets)
    if any(members not in [brick_keys(found) for found in want_sets] for members in have_sets):
        draft.refuse(REGROUPED)
        return ()
    return tuple(brick for found in want_sets if brick_keys(found) not in have_sets for brick in found)


def _grown_sets(draft: Draft, have: Volume, have_sets: Sets, want_sets: Sequence[Bricks]) -> Bricks:
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
        if wanted.arbiter and grown[-1].key in members:
            draft.refuse(f"the new brick of a set becomes its arbiter; declare it last, after {grown[-1]}")
        added += [brick for brick in grown if brick.key not in members]
    return tuple(added)
