# SPDX-License-Identifier: GPL-3.0-or-later
"""The bricks of one volume: what is replaced, added and taken away, in this order."""

from __future__ import annotations

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.balancing import plan_balance
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.growing import plan_growth
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    TOLD,
    Volume,
    brick_keys,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.refilling import (
    noted,
    plan_refill,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.shrinking import (
    check_surplus,
    plan_shrink,
    surplus,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.swapping import due_swaps, plan_swaps


def plan_bricks(draft: Draft, have: Volume) -> None:
    """Bring the bricks to what is declared."""
    swaps = due_swaps(draft, have)
    if draft.wanted.state == "stopped" and (swaps or brick_keys(have.bricks) != brick_keys(draft.bricks)):
        draft.refuse("it is declared stopped, and its bricks change only while it is started; change them first")
        return
    if swaps:
        plan_swaps(draft, have, swaps)
    # The names that a brick lacks are told by a volume that is started.
    runs = have.status == "started" and draft.wanted.state != "stopped"
    swapped = brick_keys(swap.old for swap in swaps)
    refills = [brick for brick in noted(draft, have, TOLD) if brick.key not in swapped] if runs else []
    for brick in refills:
        plan_refill(draft, have, brick)
    if swaps or refills:
        _refuse_more(draft)
        return
    removed = surplus(draft, have)
    if removed and not check_surplus(draft, have, removed):
        return
    kept = tuple(brick for brick in have.bricks if brick.key not in brick_keys(removed))
    grows = plan_growth(draft, have, kept)
    plan_balance(draft, have, grows)
    if removed:
        plan_shrink(draft, have, removed)


def _refuse_more(draft: Draft) -> None:
    """Refuse other changes of bricks beside a replaced one: it is empty until it is healed."""
    if draft.after is not None and brick_keys(draft.after.bricks) != brick_keys(draft.bricks) and not draft.refusals:
        draft.refuse(
            "bricks are replaced or reset by a run of its own; until they have healed, declare the others as they are: "
            "take new nodes and disks out of the inventory again, and leave in it what is to go"
        )
