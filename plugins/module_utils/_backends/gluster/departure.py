# SPDX-License-Identifier: GPL-3.0-or-later
"""Who leaves the trusted pool: what the module gluster_peer does for hosts that are declared absent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_volumes
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import (
    Peer,
    Pool,
    local_by,
    match_hosts,
    parse_pool,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step


@dataclass(frozen=True)
class Holdings:
    """The pool, and the volumes whose bricks its members hold."""

    pool: Pool
    volumes: Mapping[str, Volume] = field(default_factory=dict)


class Leavers:
    """Hosts that are no members; no other host is touched."""

    def __init__(self, names: Sequence[str], cli: Cli, local_name: str, allow: Collection[str]) -> None:
        self._names = names
        self._cli = cli
        self._is_local = local_by(local_name)
        self._allow = allow

    def read(self) -> Holdings:
        """Ask the local glusterd for its pool and volumes."""
        peers = parse_pool(self._cli("pool", "list"))
        pool = Pool(peers, match_hosts(self._names, peers, self._is_local))
        return Holdings(pool, parse_volumes(self._cli("volume", "info")))

    def blank(self) -> Holdings:
        """Return the pool of a glusterd that knows only itself."""
        return Holdings(Pool((Peer("", ("localhost",), local=True),), {}))

    def plan(self, state: Holdings) -> Plan[Holdings]:
        """Remove who is there, unless that would take bricks away."""
        plan = Plan(state)
        gone: dict[str, tuple[str, Peer]] = {}
        for name in self._names:
            peer = state.pool.peer(name)
            if peer is not None:
                gone.setdefault(peer.uuid, (name, peer))
        away = [peer.names[0] for peer in state.pool.peers if not peer.connected and peer.uuid not in gone]
        # Those that are away first: as long as one is, gluster lets nobody go without force.
        for name, peer in sorted(gone.values(), key=lambda one: one[1].connected):
            why_not = self._refusals(peer, state)
            why_not += [f"peer {other} is not connected" for other in away if peer.connected]
            plan.refusals += [f"{name} is not removed from the pool: {why}" for why in why_not]
            plan.steps.append(Step(f"remove {name} from the pool", partial(self._detach, name, peer.connected)))
        left = tuple(peer for peer in state.pool.peers if peer.uuid not in gone)
        plan.predicted = replace(state, pool=replace(state.pool, peers=left))
        return plan

    def _refusals(self, peer: Peer, state: Holdings) -> list[str]:
        if peer.local:
            return ["it is this host; run on one that stays"]
        held = {
            name: [str(brick) for brick in volume.bricks if brick.owner == peer.uuid]
            for name, volume in state.volumes.items()
        }
        found = [
            f"it holds {', '.join(bricks)} of volume {name}; replace them or take them out with gluster_volume"
            for name, bricks in held.items()
            if bricks
        ]
        if not peer.connected and "disconnected" not in self._allow:
            found.append("it is not connected and would not learn of it; allow: [disconnected] permits it")
        return found

    def _detach(self, name: str, connected: bool) -> None:
        self._cli("peer", "detach", name, *(() if connected else ("force",)))

    def view(self, state: Holdings) -> dict[str, Any]:
        """Return whether each host is still a member."""
        known = {peer.uuid for peer in state.pool.peers}
        return {
            "peers": {
                name: {"member": name in state.pool.hosts and state.pool.hosts[name] in known} for name in self._names
            }
        }
