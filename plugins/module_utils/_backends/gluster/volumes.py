# SPDX-License-Identifier: GPL-3.0-or-later
"""All declared volumes of a pool: what the module gluster_volume does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.balancing import is_due
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Call, Change, work
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.declarations import faults
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft, new_draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import (
    SETTLE_LIMIT,
    after_changes,
    settled,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.keeping import Kept, changes_bricks
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Cluster,
    Volume,
    all_places,
    brick_keys,
    kind,
    wanted_volume,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import parse_group
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.planning import plan_volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import (
    local_by,
    match_hosts,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import (
    look_at,
    read_cluster,
    with_heals,
    with_lists,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.swapping import due_swaps, needs_lists
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import Refused


class Volumes:
    """All declared volumes of the pool; see the module gluster_volume for the items."""

    def __init__(self, items: Sequence[Mapping[str, Any]], cli: Cli, local_name: str, backup_dir: str) -> None:
        self._wanted = [wanted_volume(item) for item in items]
        self._cli = cli
        self._is_local = local_by(local_name)
        self._kept = Kept(backup_dir)

    def read(self) -> Cluster:
        """Look once, or again until self-heal daemons are back.

        Three calls, one more for each volume whose bricks are to change, three where an arbiter is left.

        :raises Refused: the declaration makes no sense on any pool.
        """
        wrong = faults(self._wanted)
        if wrong:
            raise Refused(wrong)
        started = {one.name for one in self._wanted if one.state == "started"}
        seen = settled(lambda: read_cluster(self._cli), started, SETTLE_LIMIT)
        names = {host for one in self._wanted for host, _path in all_places(one)}
        hosts = match_hosts(names, seen.peers, self._is_local)
        seen = replace(
            seen,
            hosts=hosts,
            groups={one.group: self._group(one.group) for one in self._wanted if one.group},
            directories={path: look_at(path) for one in self._wanted for _host, path in all_places(one)},
        )
        drafts = [new_draft(one, seen) for one in self._wanted]
        seen = with_heals(self._cli, seen, [draft.wanted.name for draft in drafts if _bricks_change(draft)])
        return with_lists(self._cli, seen, [draft.wanted.name for draft in drafts if needs_lists(draft)])

    def _group(self, name: str) -> Optional[dict[str, str]]:
        try:
            with open(os.path.join(self._cli.workdir, "groups", name), encoding="utf-8") as stream:
                return parse_group(stream.read())
        except (OSError, UnicodeDecodeError):
            return None

    def blank(self) -> Cluster:
        """Return a host without peers and volumes."""
        return Cluster(fresh=True)

    def plan(self, state: Cluster) -> Plan[Cluster]:
        """Plan each volume in turn.

        The configuration is kept before the first change of bricks, and the last change ends with all daemons running.
        """
        plan: Plan[Cluster] = Plan(state)
        volumes = dict(state.volumes)
        changes: list[Change] = []
        for wanted in self._wanted:
            one = plan_volume(wanted, state)
            changes += one.steps
            plan.refusals += one.refusals
            plan.warnings += one.warnings
            volumes.pop(wanted.name, None)
            if one.after is not None:
                volumes[wanted.name] = one.after
        first = next(filter(changes_bricks, changes), None)
        heals = any(_heals(volumes.get(wanted.name)) for wanted in self._wanted)
        for change in changes:
            calls: tuple[Call, ...] = (self._kept, *change.calls) if change is first else change.calls
            if heals and change is changes[-1]:
                calls = (*calls, after_changes(state))
            plan.steps.append(Step(change.sentence, partial(work, self._cli, calls)))
        plan.predicted = replace(state, volumes=volumes)
        return plan

    def view(self, state: Cluster) -> dict[str, Any]:
        """Return the declared volumes as plain data."""
        return {"volumes": {one.name: _view(state.volumes.get(one.name)) for one in self._wanted}}


def _heals(volume: Optional[Volume]) -> bool:
    return volume is not None and volume.status == "started" and volume.layout.size > 1


def _view(volume: Optional[Volume]) -> dict[str, Any]:
    if volume is None:
        return {"state": "absent"}
    return {
        "state": volume.status,
        "layout": kind(volume.layout),
        "bricks": [str(brick) for brick in volume.bricks],
        "options": dict(sorted(volume.options.items())),
    }


def _bricks_change(draft: Draft) -> bool:
    have = draft.have
    if have is None:
        return False
    differ = brick_keys(draft.bricks) != brick_keys(have.bricks)
    return differ or bool(due_swaps(draft, have)) or is_due(have, draft.wanted.rebalance)
