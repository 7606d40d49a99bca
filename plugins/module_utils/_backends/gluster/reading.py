# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a pool and its volumes, and at the directories of bricks on this host."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    VOLUME_ID,
    Cluster,
    Directory,
    Heals,
    Lists,
    note_of,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import (
    parse_healers,
    parse_heals,
    parse_lists,
    parse_online,
    parse_tasks,
    parse_volumes,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import parse_pool
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


def read_cluster(cli: Cli) -> Cluster:
    """Return peers, volumes, and what of them runs: three calls, two while no volume is started."""
    peers = parse_pool(cli("pool", "list"))
    volumes = parse_volumes(cli("volume", "info"))
    state = Cluster(peers=peers, volumes=volumes)
    if not any(volume.status == "started" for volume in volumes.values()):
        return state
    status = cli("volume", "status")
    return replace(state, online=parse_online(status), healers=parse_healers(status), tasks=parse_tasks(status))


def with_heals(cli: Cli, state: Cluster, names: Iterable[str]) -> Cluster:
    """Return ``state`` with what waits to be healed in ``names``, one call for each that has copies and is started."""
    asked = [name for name in names if name in state.volumes]
    heals = {
        name: _heals(cli, name)
        for name in asked
        if state.volumes[name].status == "started" and state.volumes[name].layout.size > 1
    }
    return replace(state, heals=heals)


def _heals(cli: Cli, name: str) -> Heals:
    try:
        return parse_heals(cli("volume", "heal", name, "info", "summary"))
    except ClusterError:
        # What cannot be counted is unknown, and unknown is never taken for healed.
        return {}


def with_lists(cli: Cli, state: Cluster, names: Iterable[str]) -> Cluster:
    """Return ``state`` with what the bricks of ``names`` list as waiting to be healed: two calls for each."""
    return replace(state, lists={name: (_lists(cli, name), _lists(cli, name)) for name in names})


def _lists(cli: Cli, name: str) -> Lists:
    try:
        return parse_lists(cli("volume", "heal", name, "info"))
    except ClusterError:
        return {}


def look_at(path: str) -> Directory:
    """Return what matters of the directory ``path`` of a brick, which gluster makes inside of one that is there."""
    parent = os.path.dirname(path)
    return Directory(
        exists=os.path.isdir(parent),
        on_root=os.path.isdir(parent) and os.stat(parent).st_dev == os.stat("/").st_dev,
        is_mountpoint=os.path.ismount(path),
        volume_id=_volume_id(path),
        refilling=_note(note_of(path)),
        empty=not (os.path.isdir(path) and os.listdir(path)),
    )


def _note(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _volume_id(path: str) -> str:
    try:
        mark = os.getxattr(path, VOLUME_ID)
    except OSError:
        return ""
    return str(uuid.UUID(bytes=mark)) if len(mark) == 16 else "unknown"
