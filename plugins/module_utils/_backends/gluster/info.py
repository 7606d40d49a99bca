# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules gluster_peer_info and gluster_volume_info tell. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.identity import INFO, read_pairs
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    UNKNOWN,
    Brick,
    Cluster,
    Volume,
    brick_sets,
    kind,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import parse_pool
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import read_cluster, with_heals
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import unhealed
from ansible_collections.personal.cluster.plugins.module_utils._errors import NotYet

View = dict[str, Any]


def unless_new(read: Callable[[], View], check: bool) -> View:
    """Return what ``read`` tells; in check mode nothing for a host on which gluster was never used.

    :raises NotYet: it was never used, and this is not check mode.
    """
    try:
        return {"available": True, **read()}
    except NotYet:
        if not check:
            raise
        return {"available": False}


def peers(cli: Cli) -> View:
    """Return the pool, this host included, by the first name of each peer."""
    version = read_pairs(os.path.join(cli.workdir, INFO)).get("operating-version", "")
    return {
        "op_version": int(version) if version.isdigit() else None,
        "peers": {
            peer.names[0]: {
                "uuid": peer.uuid,
                "names": list(peer.names),
                "local": peer.local,
                "connected": peer.connected,
                "member": peer.member,
                "state": peer.state,
            }
            for peer in parse_pool(cli("pool", "list"))
        },
    }


def volumes(cli: Cli, names: Collection[str], heal: bool) -> View:
    """Return the volumes of ``names``, all when it is empty.

    :param heal: ask what waits to be healed, which takes a call for each volume.
    """
    state = read_cluster(cli)
    chosen = {name: volume for name, volume in state.volumes.items() if not names or name in names}
    if heal:
        state = with_heals(cli, state, chosen)
    return {"volumes": {name: _volume(volume, state) for name, volume in sorted(chosen.items())}}


def _volume(volume: Volume, state: Cluster) -> View:
    sets = brick_sets(volume.bricks, volume.layout.size)
    return {
        "state": volume.status,
        "layout": kind(volume.layout),
        "bricks": [_brick(volume, brick, number, state) for number, members in enumerate(sets) for brick in members],
        "options": dict(sorted(volume.options.items())),
        "snapshots": volume.snapshots,
        "tasks": [{"kind": task.kind, "status": task.status} for task in state.tasks.get(volume.name, ())],
        "healed": _healed(volume, state),
    }


def _healed(volume: Volume, state: Cluster) -> bool:
    if volume.status != "started":
        return False
    return volume.layout.size == 1 or unhealed(volume.bricks, state.heals.get(volume.name, {})) == 0


def _brick(volume: Volume, brick: Brick, number: int, state: Cluster) -> View:
    heal = state.heals.get(volume.name, {}).get(str(brick), UNKNOWN)
    return {
        "host": brick.host,
        "path": brick.path,
        "uuid": brick.owner,
        "set": number,
        "online": brick.key in state.online,
        "entries": heal.entries,
        "split_brain": heal.split_brain,
    }
