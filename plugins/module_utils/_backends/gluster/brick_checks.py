# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against the declared bricks of a volume: their sets, and where new ones must not lie."""

from __future__ import annotations

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Brick,
    Bricks,
    Directory,
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


def check_declared(draft: Draft, brick: Brick) -> None:
    """Refuse to put a brick where the declaration has none: the next run would want it out again."""
    if brick.key not in brick_keys(draft.bricks):
        draft.refuse(f"{brick} is not among its declared bricks")


def check_new_bricks(draft: Draft, bricks: Bricks) -> None:
    """Refuse bricks that gluster would not take, or that hold another volume's data."""
    state = draft.state
    unknown = sorted({brick.host for brick in bricks if brick.owner == brick.host})
    if unknown and state.formed:
        draft.refuse(f"{', '.join(unknown)} not in the pool; add it with gluster_peer")
    for brick in bricks:
        for name, other in _touching(draft, brick):
            draft.refuse(
                f"{brick} and brick {other} of volume {name} are or contain each other; take another directory"
            )
        if state.is_local(brick) and brick.path in state.directories:
            _check_directory(draft, brick, state.directories[brick.path])


def _touching(draft: Draft, brick: Brick) -> list[tuple[str, Brick]]:
    """Return the bricks, with the names of their volumes, in which ``brick`` would lie, or which would lie in it."""
    return [
        (volume.name, other)
        for volume in draft.state.volumes.values()
        for other in volume.bricks
        if other.owner == brick.owner
        and (other.key != brick.key or volume.name != draft.wanted.name)
        and (f"{brick.path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{brick.path}/"))
    ]


def check_forced_brick(draft: Draft, brick: Brick) -> None:
    """Refuse a brick that gluster takes without looking at it, unless it can be looked at here.

    Gluster knows replace-brick and reset-brick commit only with force, which leaves out its own checks.
    """
    if not draft.state.is_local(brick):
        draft.refuse(f"{brick} is not on this host; run on {brick.host}, where its filesystem can be looked at")
        return
    directory = draft.state.directories[brick.path]
    if not directory.exists:
        draft.refuse(f"there is no directory to make {brick} in; mount its filesystem first")
    check_new_bricks(draft, (brick,))


def check_filesystem(draft: Draft, brick: Brick, directory: Directory) -> None:
    """Refuse a brick whose filesystem is not mounted: it would fill the root filesystem."""
    if directory.on_root:
        draft.refuse(f"{brick} lies on the root filesystem; mount a filesystem of its own there")


def _check_directory(draft: Draft, brick: Brick, directory: Directory) -> None:
    if directory.volume_id:
        draft.refuse(
            f"{brick} carries the id of {_owner(draft, directory)}; "
            f"if it holds nothing that is needed, remove the directory"
        )
    elif not directory.empty:
        draft.refuse(f"{brick} holds files that no volume made; take a directory that is empty")
    check_filesystem(draft, brick, directory)
    if directory.is_mountpoint:
        draft.refuse(f"{brick} is a mount point itself, and an empty directory when it is not mounted; take one inside")


def _owner(draft: Draft, directory: Directory) -> str:
    volumes = draft.state.volumes.values()
    name = next((volume.name for volume in volumes if volume.uuid == directory.volume_id), "")
    return f"volume {name}" if name else "a volume, of a former one or of a create that failed half-way"
