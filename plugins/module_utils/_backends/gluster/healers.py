# SPDX-License-Identifier: GPL-3.0-or-later
"""The self-heal daemons, one process on each host for all volumes: those that crashed, and those that glusterd lost."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import wait
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import POLL, Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Cluster, Volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import HEAL_SWITCHES, same
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import (
    parse_lost_healers,
    parse_unhealed_volumes,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import (
    brick_troubles,
    healerless,
    peer_troubles,
)

END_LIMIT = 60.0
START_LIMIT = 180.0
PAUSE = 5.0
SETTLE_LIMIT = 20.0
# Looks at a daemon that was started and is still missing, before glusterd is taken to have lost the one that runs.
LOST_AFTER = 4


class Healers:
    """The self-heal daemons of all hosts, of which a reset makes some go missing.

    It has been seen to crash the daemon (GlusterFS 11.1), which comes back for the volume of the reset alone. And a
    glusterd that was started moments before (10.3) may give a volume to the daemon of its host without learning which
    process that is: it works and is told to be down, however often it is started, until the process ends.

    :param host: UUID of this host.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._missed: Counter[str] = Counter()

    def run(self, cli: Cli) -> bool:
        """Say whether every volume whose bricks run has its daemon on all hosts, and start those that are missing.

        To start the daemon is to start dead bricks too, which is for the plan of their volume to say.
        """
        status = cli("volume", "status")
        down = parse_unhealed_volumes(status)
        self._missed = Counter({volume: self._missed[volume] + 1 for volume in down})
        if max(self._missed.values(), default=0) > LOST_AFTER:
            self._missed.clear()
            for pid in parse_lost_healers(status, self._host):
                end(pid)
        for volume in sorted(down):
            cli("volume", "start", volume, "force")
        return not down


@dataclass(frozen=True)
class Healing:
    """Wait until every volume has its self-heal daemon on all hosts, and start those that are missing.

    :param host: UUID of this host.
    :param missing: what is waited for, in words.
    :param patience: seconds that they have to come back by themselves.
    """

    host: str
    missing: str
    patience: float = 0

    def act(self, cli: Cli) -> None:
        """Do so."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            if not parse_unhealed_volumes(cli("volume", "status")):
                return
            time.sleep(POLL)
        healers = Healers(self.host)
        remedy = "end the process glustershd there and run again; its log is /var/log/glusterfs/glustershd.log"
        wait(lambda: healers.run(cli), START_LIMIT, f"{self.missing} did not start ({remedy})", PAUSE)


def lacking(volume: Volume, state: Cluster) -> list[str]:
    """Return the hosts on which a started volume lacks its self-heal daemon, and nothing else is amiss."""
    switch = HEAL_SWITCHES[bool(volume.layout.disperse)]
    if volume.status != "started" or same(switch, volume.options.get(switch, "on"), "off"):
        return []
    if brick_troubles(volume.bricks, state) or peer_troubles(state):
        return []
    return healerless(volume, volume.bricks, state)


def settled(look: Callable[[], Cluster], names: Collection[str], limit: float) -> Cluster:
    """Return what ``look`` sees once the volumes of these names have their daemons, or do not get them in time.

    Glusterd ends the daemons and starts them anew where the bricks of a volume change.

    :param limit: seconds.
    """
    deadline = time.monotonic() + limit
    while True:
        state = look()
        waiting = any(lacking(volume, state) for volume in state.volumes.values() if volume.name in names)
        if not waiting or time.monotonic() > deadline:
            return state
        time.sleep(POLL)


def plan_healers(draft: Draft, have: Volume) -> None:
    """Start the daemons that are missing. That starts bricks too, so all of them must run already."""
    hosts = lacking(have, draft.state)
    if hosts:
        missing = f"the self-heal daemon of volume {have.name} on {', '.join(hosts)}"
        draft.step(f"start {missing}", Healing(_this_host(draft.state), missing))


def after_changes(state: Cluster) -> Healing:
    """Return what ends a run: some daemons crash while volumes, their bricks or options change, and stay away."""
    return Healing(_this_host(state), "a self-heal daemon", SETTLE_LIMIT)


def _this_host(state: Cluster) -> str:
    return next((peer.uuid for peer in state.peers if peer.local), "")


def end(pid: int) -> None:
    """End a process of this host in good order, and wait for its end.

    :raises ClusterError: it did not end.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    wait(lambda: not os.path.exists(f"/proc/{pid}"), END_LIMIT, f"process {pid} did not end")
