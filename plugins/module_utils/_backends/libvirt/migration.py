# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's live migration from this node to another."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Journey:
    """Where a guest is: its domain on this node and on the other one, and what the other one has."""

    here: Optional[Domain]
    there: Optional[Domain]
    networks: frozenset[str] = frozenset()


class Migration:
    """One guest's live migration from this node to another; see the module virt_migrate."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._name = str(params["name"])
        self._to = str(params["to"])
        self._address = str(params["address"])
        self._shared = tuple(params["shared"])
        self._timeout = int(params["timeout"])
        self._uri = str(params["uri"])
        self._here: Any = None
        self._there: Any = None

    @property
    def _remote(self) -> str:
        return f"qemu+tls://{self._address}/system"

    def read(self) -> Journey:
        """Look for the guest on both nodes."""
        if self._here is None:
            self._here, self._there = connect(self._uri), connect(self._remote)
        return Journey(
            read_domains(self._here).get(self._name),
            read_domains(self._there).get(self._name),
            frozenset(net.name() for net in explained(self._there.listAllNetworks) if explained(net.isActive)),
        )

    def blank(self) -> Journey:
        """Return a guest that is nowhere."""
        return Journey(None, None)

    def plan(self, state: Journey) -> Plan[Journey]:
        """Plan nothing when the guest is there, its migration when it is here."""
        plan: Plan[Journey] = Plan(state)
        here, there = state.here, state.there
        if here is None and there is not None:
            return plan
        if here is None:
            plan.refusals.append(f"there is no guest {self._name} on this node")
            return plan
        plan.refusals += self._refusals(here, state)
        sentence = f"migrate guest {self._name} live to {self._to} ({self._address})"
        plan.steps.append(Step(sentence, partial(self._migrate, here.autostart)))
        plan.predicted = replace(state, here=None, there=here)
        return plan

    def _refusals(self, here: Domain, state: Journey) -> list[str]:
        name, refusals = self._name, []
        if state.there is not None:
            refusals.append(f"guest {name} is also defined on {self._to}; undefine it where it does not run")
        if here.state != "running":
            refusals.append(f"guest {name} is {here.state}; only a running guest migrates live, start it first")
            return refusals
        root = ET.fromstring(here.live or here.inactive)
        for path in disk_files(here.live or here.inactive):
            if not path.startswith(tuple(folder.rstrip("/") + "/" for folder in self._shared)):
                refusals.append(f"guest {name}: {path} is not on shared storage ({', '.join(self._shared)})")
        if root.find("devices/hostdev") is not None:
            refusals.append(f"guest {name} has a passed-through device; remove it first")
        for network in sorted(
            {attribute(nic, "source", "network") or "" for nic in root.iterfind("devices/interface")}
        ):
            if network and network not in state.networks:
                refusals.append(f"guest {name}: network {network} is not active on {self._to}")
        return refusals

    def _migrate(self, autostart: bool) -> None:
        import libvirt

        domain = explained(self._here.lookupByName, self._name)
        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PEER2PEER
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            | libvirt.VIR_MIGRATE_TLS
            | libvirt.VIR_MIGRATE_AUTO_CONVERGE
            | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        )
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{self._address}"}
        # The call blocks until the guest has arrived; after the timeout the guest stays where it is.
        timer = threading.Timer(self._timeout, domain.abortJob)
        timer.start()
        try:
            explained(domain.migrateToURI3, self._remote, parameters, flags)
        finally:
            timer.cancel()
        # The mark that starts a guest with its node does not travel with the guest.
        explained(explained(self._there.lookupByName, self._name).setAutostart, int(autostart))

    def view(self, state: Journey) -> dict[str, Any]:
        """Return where the guest is."""
        return {
            "here": state.here.state if state.here else "absent",
            "there": state.there.state if state.there else "absent",
        }
