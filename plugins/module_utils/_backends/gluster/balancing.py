# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the data of a volume is spread over all of its bricks.

Gluster does not tell. A mark on the volume does: it is set before bricks are added, and changed when a rebalance ended.
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Call, Moved
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Task, Volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.shrinking import (
    is_sharded,
    may_hold_data,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import troubles

BALANCE = "user.personal-cluster.balance"
UNBALANCED = "no"
BEGUN = " begun"
# By what is asked for: the words that gluster wants, what the mark becomes, and the marks that are good enough.
KINDS = {
    "fix-layout": (("fix-layout", "start"), "layout", ("layout", "yes")),
    "full": (("start",), "yes", ("yes",)),
}


def is_due(volume: Volume, rebalance: str) -> bool:
    """Say whether bricks were added since the last rebalance of this kind; gluster refuses it for a single set."""
    several = len(volume.bricks) > volume.layout.size
    return several and rebalance in KINDS and volume.options.get(BALANCE, "yes") not in KINDS[rebalance][2]


def plan_balance(draft: Draft, have: Volume, grows: bool) -> None:
    """Rebalance after bricks were added, by this run or an earlier one."""
    wanted, after = draft.wanted, draft.after
    if after is None or after.options.get(BALANCE, "yes") == "yes":
        return
    if not is_due(after, wanted.rebalance):
        if grows and wanted.rebalance == "none":
            draft.warn("new bricks fill only after a rebalance")
        return
    if after.status != "started":
        draft.warn(f"it is {after.status}, and rebalanced when it is started")
        return
    if wanted.rebalance == "full" and is_sharded(have) and may_hold_data(have):
        draft.refuse("moving shards under running guests has damaged their disks; take rebalance: fix-layout, or none")
    for why in [] if grows else _in_the_way(draft, have):
        draft.refuse(f"it is not rebalanced while {why}")
    _rebalance(draft, have)


def _in_the_way(draft: Draft, have: Volume) -> list[str]:
    """Return what must be over first; a rebalance, begun by a run that was interrupted, is waited for."""
    ours = [task for task in draft.state.tasks.get(have.name, ()) if task.kind == "Rebalance"]
    others = tuple(task for task in draft.state.tasks.get(have.name, ()) if task not in ours)
    return troubles(have, replace(draft.state, tasks={have.name: others}))


def _begun(rebalance: str, last: Task | None) -> str:
    """Return the mark of a rebalance that has begun; without one after the ``last`` it did not come to that."""
    return rebalance + BEGUN + (f" after {last.uuid}" if last else "")


def _is_ours(draft: Draft, last: Task) -> bool:
    """Say whether the last rebalance is the one of the mark, as the volume has it after this run's growth."""
    kind, mark = draft.wanted.rebalance, draft.options.get(BALANCE, "")
    counts = last.status.endswith(("in progress", "completed"))
    return counts and mark.startswith(kind + BEGUN) and mark != _begun(kind, last)


def _rebalance(draft: Draft, have: Volume) -> None:
    wanted = draft.wanted
    words, mark, _enough = KINDS[wanted.rebalance]
    over = Moved(
        ("volume", "rebalance", have.name, "status"),
        wanted.timeout,
        f"run again; gluster volume rebalance {have.name} stop gives up",
    )
    last = next((task for task in draft.state.tasks.get(have.name, ()) if task.kind == "Rebalance"), None)
    runs = last is not None and last.status.endswith("in progress")
    ours = last is not None and _is_ours(draft, last)
    if ours and not wanted.wait:
        if runs:
            draft.warn("its rebalance goes on")
        return
    calls: list[Call] = [over] if runs and not ours else []
    if not ours:
        # Before it starts, as its process reads the volume's options then.
        begun = _begun(wanted.rebalance, last)
        calls += [("set", have.name, BALANCE, begun), ("rebalance", have.name, *words)]
        mark = mark if wanted.wait else begun
    if wanted.wait:
        calls += [over, ("set", have.name, BALANCE, mark)]
    draft.step(
        f"rebalance volume {have.name} ({wanted.rebalance})" + ("" if wanted.wait else ", without waiting for it"),
        *calls,
    )
    if draft.after is not None:
        draft.after = replace(draft.after, options={**draft.options, BALANCE: mark})
