# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migration of guests from this node to others."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import connect, explained
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.elements import attribute
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import (
    Domain,
    disk_files,
    read_domains,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


@dataclass(frozen=True)
class Trip:
    """Which guest is to go where; ``to`` names the node for messages."""

    name: str
    to: str
    address: str

    @property
    def uri(self) -> str:
        """The other node's libvirt."""
        return f"qemu+tls://{self.address}/system"


@dataclass(frozen=True)
class Journey:
    """Where a guest is: its domain on this node and on the other one, and what the other one has."""

    here: Optional[Domain]
    there: Optional[Domain]
    networks: frozenset[str] = frozenset()


State = Mapping[str, Journey]


class Migration:
    """Live migrations of guests from this node, one after the other; see the module virt_migrate."""

    def __init__(self, trips: Sequence[Trip], shared: Sequence[str], timeout: int, uri: str) -> None:
        self._trips = trips
        self._shared = tuple(folder.rstrip("/") + "/" for folder in shared)
        self._timeout = timeout
        self._uri = uri
        self._connections: dict[str, Any] = {}

    def _connection(self, uri: str) -> Any:
        if uri not in self._connections:
            self._connections[uri] = connect(uri)
        return self._connections[uri]

    def read(self) -> State:
        """Look for the guests on all nodes concerned, at each once."""
        here = read_domains(self._connection(self._uri))
        found = {uri: self._look(self._connection(uri)) for uri in {trip.uri for trip in self._trips}}
        return {
            trip.name: Journey(here.get(trip.name), domains.get(trip.name), networks)
            for trip in self._trips
            for domains, networks in [found[trip.uri]]
        }

    @staticmethod
    def _look(connection: Any) -> tuple[Mapping[str, Domain], frozenset[str]]:
        networks = explained(connection.listAllNetworks)
        return read_domains(connection), frozenset(net.name() for net in networks if explained(net.isActive))

    def blank(self) -> State:
        """Return guests that are nowhere."""
        return {trip.name: Journey(None, None) for trip in self._trips}

    def plan(self, state: State) -> Plan[State]:
        """Plan nothing for a guest that is there, its migration when it is here."""
        plan: Plan[State] = Plan(dict(state))
        for trip in self._trips:
            self._plan(trip, state[trip.name], plan)
        return plan

    def _plan(self, trip: Trip, journey: Journey, plan: Plan[State]) -> None:
        here, there = journey.here, journey.there
        if here is None and there is not None:
            return
        if here is None:
            plan.refusals.append(f"there is no guest {trip.name} on this node")
            return
        plan.refusals += self._refusals(trip, here, journey)
        sentence = f"migrate guest {trip.name} live to {trip.to} ({trip.address})"
        plan.steps.append(Step(sentence, partial(self._migrate, trip, here.autostart)))
        plan.predicted = {**plan.predicted, trip.name: replace(journey, here=None, there=here)}

    def _refusals(self, trip: Trip, here: Domain, journey: Journey) -> list[str]:
        name, refusals = trip.name, []
        if journey.there is not None:
            refusals.append(f"guest {name} is also defined on {trip.to}; undefine it where it does not run")
        if here.state != "running":
            refusals.append(f"guest {name} is {here.state}; only a running guest migrates live, start it first")
            return refusals
        root = ET.fromstring(here.live or here.inactive)
        for path in disk_files(here.live or here.inactive):
            if not path.startswith(self._shared):
                refusals.append(f"guest {name}: {path} is not on shared storage ({', '.join(self._shared)})")
        if root.find("devices/hostdev") is not None:
            refusals.append(f"guest {name} has a passed-through device; remove it first")
        for network in sorted(
            {attribute(nic, "source", "network") or "" for nic in root.iterfind("devices/interface")}
        ):
            if network and network not in journey.networks:
                refusals.append(f"guest {name}: network {network} is not active on {trip.to}")
        return refusals

    def _migrate(self, trip: Trip, autostart: bool) -> None:
        import libvirt

        domain = explained(self._connection(self._uri).lookupByName, trip.name)
        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PEER2PEER
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            | libvirt.VIR_MIGRATE_TLS
            | libvirt.VIR_MIGRATE_AUTO_CONVERGE
            | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        )
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{trip.address}"}
        # The call blocks until the guest has arrived; after the timeout the guest stays where it is.
        timer = threading.Timer(self._timeout, domain.abortJob)
        timer.start()
        try:
            explained(domain.migrateToURI3, trip.uri, parameters, flags)
        except ClusterError as error:
            late = f" within {self._timeout} s (allow it more: timeout)" if timer.finished.is_set() else ""
            raise ClusterError(f"guest {trip.name} did not get to {trip.to}{late}: {error}") from error
        finally:
            timer.cancel()
        if autostart:
            self._mark(trip)

    @staticmethod
    def _mark(trip: Trip) -> None:
        """Have a guest that has arrived start with its node; that mark does not travel with it."""
        try:
            # The connection that was opened before the guest travelled may be gone by now.
            explained(explained(connect(trip.uri).lookupByName, trip.name).setAutostart, 1)
        except ClusterError as error:
            raise ClusterError(
                f"guest {trip.name} runs on {trip.to}, and does not start with it yet ({error}); "
                f"run there: sudo virsh autostart {trip.name}"
            ) from error

    def view(self, state: State) -> dict[str, Any]:
        """Return where the guests are."""
        return {
            "guests": {
                name: {
                    "here": journey.here.state if journey.here else "absent",
                    "there": journey.there.state if journey.there else "absent",
                }
                for name, journey in state.items()
            }
        }
