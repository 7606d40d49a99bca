# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until a node may go: what the module gluster_heal does. Changes nothing but what heals, and when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import Healers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import local_by, match_hosts
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import read_cluster, with_heals
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import gate_troubles
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet, Refused

# Seconds after which the self-heal daemons are told to look again: one that came to a directory before its parent was
# there does so by itself after ten minutes. Those that have crashed are started, which glusterd does not do.
NUDGE = 60.0


@dataclass(frozen=True)
class Gate:
    """What must be seen ``polls`` times in a row, ``interval`` seconds apart, before ``timeout`` seconds are over.

    ``without`` are hosts whose part does not count, ``local_host`` names this one where looking does not tell.
    """

    peers: int
    volumes: Sequence[str]
    polls: int
    interval: float
    timeout: float
    without: Sequence[str] = ()
    local_host: str = ""


@dataclass(frozen=True)
class Seen:
    """What stood in the way at the last of several looks."""

    troubles: list[str]
    looks: int


def check(gate: Gate) -> None:
    """Refuse a gate that would open unseen.

    :raises Refused: for each number that makes no sense.
    """
    least = {"polls": (gate.polls, 1), "interval": (gate.interval, 0), "timeout": (gate.timeout, 0)}
    wrong = [f"{name} is {value:g}; {low} is the least" for name, (value, low) in least.items() if value < low]
    if wrong:
        raise Refused(wrong)


def look(cli: Cli, gate: Gate) -> tuple[list[str], list[str]]:
    """Return what stands in the way now, and the volumes of which entries wait to be healed.

    :raises NotYet: gluster was never used on this host.
    """
    try:
        state = read_cluster(cli)
        state = with_heals(cli, state, gate.volumes or state.volumes)
        state = replace(state, hosts=match_hosts(gate.without, state.peers, local_by(gate.local_host)))
    except NotYet:
        raise
    except ClusterError as error:
        # A node that has just booted has no glusterd yet.
        return [str(error)], []
    waiting = [name for name, heals in state.heals.items() if any(heal.entries for heal in heals.values())]
    return gate_troubles(state, gate.volumes, gate.peers, gate.without), waiting


def look_once(cli: Cli, gate: Gate) -> Seen:
    """Return what a run would wait for: check mode, also on a host on which gluster was never used."""
    check(gate)
    try:
        return Seen(look(cli, gate)[0], 1)
    except NotYet as error:
        return Seen([str(error)], 1)


def pass_gate(cli: Cli, gate: Gate) -> Seen:
    """Wait until nothing has stood in the way for ``gate.polls`` looks in a row.

    :raises ClusterError: something still did when the time was over.
    """
    check(gate)
    told = time.monotonic()
    deadline = told + gate.timeout
    looks = good = 0
    healers = Healers(host="")
    while True:
        found, waiting = look(cli, gate)
        looks += 1
        good = 0 if found else good + 1
        if good >= gate.polls:
            return Seen([], looks)
        if time.monotonic() + gate.interval > deadline:
            raise ClusterError(_failure(gate, found, good))
        if found and time.monotonic() >= told + NUDGE:
            told = time.monotonic()
            # One that takes too long is no reason to give up waiting.
            with suppress(ClusterError):
                healers.run(cli)
                for volume in waiting:
                    cli.heal(volume)
        time.sleep(gate.interval)


def _failure(gate: Gate, found: Sequence[str], good: int) -> str:
    if found:
        return f"not as it must be after {gate.timeout:.0f} s: {'; '.join(found)}"
    return (
        f"all was well in the last {good} looks, {gate.polls} in a row are asked for, and {gate.timeout:.0f} s are "
        "over; raise timeout"
    )
