# SPDX-License-Identifier: GPL-3.0-or-later
"""Open vSwitch: bridges, ports and VLANs of one host (a resource of the engine).

The database is read into a model of plain data; the desired model is the current one with the
declarations merged in; their difference is made in one transaction.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.difference import (
    Change,
    argv,
    difference,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.handover import (
    Handover,
    find_handovers,
    handover_faults,
    handover_step,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.host import (
    Link,
    State,
    interfaces_files,
    parse_links,
    stanza_names,
    without_stanzas,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import parse, shown_bridge
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.safe_apply import SafeApply, Safety
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.wanted import Wanted
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

SOCKET = "/run/openvswitch/db.sock"
CONF_DB = "/etc/openvswitch/conf.db"
TRANSACTION_SECONDS = 60


class Switch:
    """The bridges of one host (a resource of the engine)."""

    def __init__(
        self,
        specs: list[dict[str, Any]],
        run: Run,
        *,
        purge: str = "none",
        database: Optional[str] = None,
        wait: bool = True,
        safety: Optional[Safety] = None,
    ) -> None:
        self._specs = specs
        self._run = run
        self._purge = purge
        self._database = database
        self._safety = safety or Safety()
        self._safe = SafeApply(run, self._safety)
        self._base = ["ovs-vsctl", f"--timeout={TRANSACTION_SECONDS}"]
        self._base += [f"--db={database}"] if database else []
        self._base += [] if wait else ["--no-wait"]

    # Reading.

    def read(self) -> State:
        """Read database, interfaces and ifupdown's files.

        :raises NotYet: Open vSwitch does not run here, and has no database from an earlier time.
        """
        if not self._database and not os.path.exists(SOCKET) and not os.path.exists(CONF_DB):
            raise NotYet(
                "Open vSwitch does not run on this host and never did; install and start openvswitch-switch first"
            )
        done = self._run(
            [*self._base, "--format=json", "--", "list", "Bridge", "--", "list", "Port", "--", "list", "Interface"]
        )
        return replace(self.blank(), bridges=parse(done.stdout))

    def blank(self) -> State:
        """Return this host without Open vSwitch."""
        links = parse_links(self._run(["ip", "-json", "-details", "address", "show"]).stdout)
        routes = []
        if any(link.addresses and {link.name, link.mac} & self._declared() for link in links.values()):
            for family in ("-4", "-6"):
                routes += json.loads(self._run(["ip", family, "-json", "route", "show"]).stdout or "[]")
        return State({}, links, tuple(routes), interfaces_files(), self._safe.pending())

    def _declared(self) -> set[str]:
        ports = [port for spec in self._specs for port in spec["ports"]]
        names = [name for port in ports for name in [port["name"], *(port["members"] or [])]]
        return {*names, *(name.lower() for name in names)}

    def view(self, state: State) -> dict[str, Any]:
        """Return bridges and the addresses of the interfaces in them; guests' ports are not ours to show."""
        inside = {
            name for bridge in state.bridges.values() for port in bridge.ports.values() for name in port.interfaces
        }
        return {
            "bridges": {name: shown_bridge(bridge) for name, bridge in state.bridges.items()},
            "addresses": {
                name: sorted(link.addresses)
                for name, link in sorted(state.links.items())
                if name in inside and link.addresses
            },
            "ifupdown": {path: stanza_names(text) for path, text in state.files.items()},
        }

    # Planning.

    def plan(self, state: State) -> Plan[State]:
        """Return one transaction for the switch, and around it what keeps the host reachable."""
        wanted = Wanted(state, self._specs, self._purge)
        changes = difference(state.bridges, wanted.model)
        handovers = find_handovers(state, wanted.nics)
        files = {path: without_stanzas(text, wanted.nics) for path, text in state.files.items()}
        files = {path: text for path, text in files.items() if text != state.files[path]}
        predicted = self._predicted(state, wanted, handovers, files)
        plan = Plan(predicted, refusals=[*wanted.refusals, *self._faults(state, wanted, changes)])
        plan.steps += [self._safe.keep(token) for token in state.pending]
        if not changes and not handovers and not files:
            return plan
        held = self._held(state, wanted, changes, handovers)
        if held and not self._safety.enabled:
            names = ", ".join(f"{name} ({address})" for name, address in held)
            plan.refusals.append(f"the change touches {names}, and could cut this host off: allow safe_apply")
        plan.refusals += handover_faults(handovers, self._specs)
        if held:
            back = difference(predicted.bridges, state.bridges)
            plan.steps.append(self._safe.arm(argv(back, self._base) if back else [], handovers, files, held))
        plan.steps += self._safe.release(handovers, files)
        plan.steps += self._transact(changes)
        plan.steps += [handover_step(item, self._run) for item in handovers]
        if held and self._safety.peers:
            plan.steps.append(self._safe.probe())
        return plan

    def _held(
        self, state: State, wanted: Wanted, changes: list[Change], handovers: list[Handover]
    ) -> list[tuple[str, str]]:
        """Return interface and address pairs which the change could make unreachable."""
        touched = {item.nic for item in handovers}
        for name in {*state.bridges, *wanted.model} if changes else set():
            now, then = state.bridges.get(name), wanted.model.get(name)
            if now == then:
                continue
            for bridge in (now, then):
                if bridge:
                    touched |= {item for port in bridge.ports.values() if not port.guest for item in port.interfaces}
        links = [state.links[name] for name in sorted(touched) if name in state.links]
        return [(link.name, address) for link in links for address in link.addresses]

    def _faults(self, state: State, wanted: Wanted, changes: list[Change]) -> Iterator[str]:
        """Yield declared interfaces that ovs-vswitchd could not open and that no change concerns."""
        if changes:
            return
        for bridge in state.bridges.values():
            for port in bridge.ports.values():
                for item in port.interfaces.values():
                    broken = item.error or ("it has no port number" if item.ofport == -1 else "")
                    if broken and (port.owned or item.name in wanted.nics):
                        yield f"Open vSwitch cannot use {item.name} in bridge {bridge.name}: {broken}"

    def _predicted(self, state: State, wanted: Wanted, handovers: list[Handover], files: dict[str, str]) -> State:
        links = dict(state.links)
        for item in handovers:
            bridge = links.get(item.bridge, Link(item.bridge, "", "openvswitch"))
            if item.nic in links:
                links[item.nic] = replace(links[item.nic], addresses=(), dynamic=())
            links[item.bridge] = replace(bridge, addresses=tuple(dict.fromkeys(bridge.addresses + item.addresses)))
        return replace(state, bridges=wanted.model, links=links, files={**state.files, **files}, pending=())

    # Changing.

    def _transact(self, changes: list[Change]) -> list[Step]:
        """Return a step per sentence; the first one makes all changes at once."""
        call = argv(changes, self._base)

        def apply() -> None:
            self._run(call, timeout=TRANSACTION_SECONDS + 10)

        return [Step(change.sentence, _nothing if index else apply) for index, change in enumerate(changes)]


def _nothing() -> None:
    """Do nothing: the transaction's first step did it all."""
