# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one volume from its beginning to its end. Pure."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.brick_checks import (
    check_declared,
    check_layout,
    check_new_bricks,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft, new_draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import plan_healers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Cluster,
    Volume,
    Wanted,
    brick_at,
    brick_names,
    kind,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.settings import plan_options
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.topology import plan_bricks
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import peer_troubles


def plan_volume(wanted: Wanted, state: Cluster) -> Draft:
    """Return what leads from ``state`` to the volume as it is declared."""
    draft = new_draft(wanted, state)
    if wanted.state == "absent":
        _remove(draft)
        return draft
    check_layout(draft)
    if draft.have is None:
        _create(draft)
    plan_options(draft)
    _run_or_stop(draft)
    if draft.have is not None:
        plan_bricks(draft, draft.have)
        if wanted.state == "started" and not draft.steps and not draft.refusals:
            plan_healers(draft, draft.have)
    return draft


def _remove(draft: Draft) -> None:
    have, name = draft.have, draft.wanted.name
    if have is None:
        return
    if "delete" not in draft.wanted.allow:
        draft.refuse(f"deleting it gives up the data on {len(have.bricks)} bricks; allow: [delete] permits it")
    if have.snapshots:
        draft.refuse(f"it has {have.snapshots} snapshots; delete them first")
    for why in peer_troubles(draft.state):
        draft.refuse(f"it is not deleted while {why}")
    if have.status == "started":
        _stop(draft)
    sentence = f"delete volume {name}, leaving the data on its bricks: {brick_names(have.bricks)}"
    draft.step(sentence, ("delete", name))
    draft.after = None


def _create(draft: Draft) -> None:
    wanted, bricks = draft.wanted, draft.bricks
    check_new_bricks(draft, bricks)
    for why in peer_troubles(draft.state):
        draft.refuse(f"it is not created while {why}")
    for place in (*(to for _from, to in wanted.replace), *wanted.reset):
        check_declared(draft, brick_at(place, draft.state.hosts))
    sentence = f"create volume {wanted.name} ({kind(wanted.layout)}) on {brick_names(bricks)}"
    draft.step(sentence, ("create", wanted.name, *wanted.layout.words(), *map(str, bricks)))
    draft.after = Volume(wanted.name, "created", wanted.layout, bricks, {})


def _run_or_stop(draft: Draft) -> None:
    name, state = draft.wanted.name, draft.wanted.state
    if draft.after is None or state == "present" or draft.after.status == state:
        return
    if state == "started":
        draft.step(f"start volume {name}", ("start", name))
    elif draft.after.status == "started":
        _stop(draft)
    else:
        return
    draft.after = replace(draft.after, status=state)


def _stop(draft: Draft) -> None:
    """Stop a volume unless its data moves just now, when gluster does not stop it."""
    name = draft.wanted.name
    for task in draft.state.tasks.get(name, ()):
        if task.status.endswith("in progress"):
            draft.refuse(f"it is not stopped while a {task.kind} is in progress; wait for its end")
    draft.step(f"stop volume {name}", ("stop", name))
