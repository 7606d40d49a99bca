# SPDX-License-Identifier: GPL-3.0-or-later
"""Who belongs to the trusted pool: what the module gluster_peer does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import POLL, Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import (
    Peer,
    Pool,
    local_by,
    match_hosts,
    parse_pool,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


class Peers:
    """The trusted pool: every wanted host is a member."""

    def __init__(self, names: Sequence[str], cli: Cli, local_name: str) -> None:
        self._names = names
        self._cli = cli
        self._is_local = local_by(local_name)

    def read(self) -> Pool:
        """Ask the local glusterd for its pool."""
        peers = parse_pool(self._cli("pool", "list"))
        return Pool(peers, match_hosts(self._names, peers, self._is_local))

    def blank(self) -> Pool:
        """Return the pool of a glusterd that knows only itself."""
        alone = (Peer("", ("localhost",), local=True),)
        return Pool(alone, {name: "" for name in self._names if self._is_local(name)})

    def plan(self, state: Pool) -> Plan[Pool]:
        """Probe who is missing; wait for who is on the way; refuse who was rejected."""
        plan = Plan(state)
        joined = list(state.peers)
        for name in self._names:
            peer = state.peer(name)
            if peer is None:
                plan.steps.append(Step(f"add {name} to the pool", partial(self._probe, name)))
                joined.append(Peer(name, (name,)))
            elif "Rejected" in peer.state:
                plan.refusals.append(
                    f"{name} is in the pool as '{peer.state}': it was reinstalled, and gluster_identity gives it back "
                    f"its UUID {peer.uuid}; or its volume definitions differ from the others': stop glusterd there, "
                    f"move its {self._cli.workdir}/vols away, start it, run again"
                )
            elif not peer.member:
                plan.steps.append(Step(f"wait for {name} to join the pool", partial(self._wait, name)))
            elif not peer.connected:
                plan.warnings.append(f"{name} is in the pool but not connected")
        plan.warnings += self._strangers(state)
        plan.predicted = Pool(
            tuple(joined), {**state.hosts, **{name: name for name in set(self._names) - set(state.hosts)}}
        )
        return plan

    def _strangers(self, state: Pool) -> list[str]:
        known = set(state.hosts.values())
        return [
            f"{peer.names[0]} is in the pool but not declared; it was left there"
            for peer in state.peers
            if not peer.local and peer.uuid not in known
        ]

    def _probe(self, name: str) -> None:
        self._cli("peer", "probe", name)
        self._wait(name)

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + self._cli.timeout
        while True:
            peer = self.read().peer(name)
            if peer is not None and peer.member and peer.connected:
                return
            if time.monotonic() > deadline:
                seen = peer.state if peer else "unknown"
                raise ClusterError(
                    f"{name} did not become a connected member of the pool within {self._cli.timeout:.0f} s ({seen}); "
                    f"see /var/log/glusterfs/glusterd.log on {name}: certificate, name resolution, port 24007"
                )
            time.sleep(POLL)

    def view(self, state: Pool) -> dict[str, Any]:
        """Return the members by name."""
        shown = {}
        for peer in state.peers:
            name = next((name for name in self._names if state.hosts.get(name) == peer.uuid), peer.names[0])
            shown[name] = {"member": peer.member, "connected": peer.connected}
        return {"peers": shown}
