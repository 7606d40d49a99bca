# SPDX-License-Identifier: GPL-3.0-or-later
"""How the declared bricks of a volume form sets."""

from __future__ import annotations

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    brick_keys,
    brick_names,
    brick_sets,
)


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
