# SPDX-License-Identifier: GPL-3.0-or-later
"""Why the bricks of a volume must not change now."""

from __future__ import annotations

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Cluster, Volume


def troubles(volume: Volume, state: Cluster) -> list[str]:
    """Return why the topology of ``volume`` must not change now."""
    found = [f"peer {peer.names[0]} is not connected" for peer in state.peers if not peer.connected]
    if volume.status == "started":
        offline = [brick for brick in volume.bricks if brick.key not in state.online]
        found += [f"brick {brick} is offline" for brick in offline]
        unhealed = state.unhealed.get(volume.name)
        if volume.layout.size > 1 and unhealed is None:
            found.append("the number of entries to heal is unknown")
        elif unhealed:
            found.append(f"{unhealed} entries wait to be healed")
    found += [f"a {task} is in progress" for task in state.tasks.get(volume.name, ())]
    if volume.snapshots:
        found.append(f"it has {volume.snapshots} snapshots")
    return found
