# SPDX-License-Identifier: GPL-3.0-or-later
"""The handover: a network card gives its addresses and routes to the bridge it joins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.host import Link, State, stanza_names
from ansible_collections.personal.cluster.plugins.module_utils._engine import Step
from ansible_collections.personal.cluster.plugins.module_utils._run import Run


@dataclass(frozen=True)
class Handover:
    """A network card whose addresses go to the bridge it joins."""

    nic: str
    bridge: str
    addresses: tuple[str, ...]
    routes: tuple[dict[str, Any], ...]
    stanza: bool


def find_handovers(state: State, nics: Mapping[str, str]) -> list[Handover]:
    """Return the cards whose addresses, or whose stanzas, have to go.

    :param nics: interface of the host -> bridge that it is to be in.
    """
    found = []
    for nic, bridge in sorted(nics.items()):
        link = state.links.get(nic, Link(nic, ""))
        stanza = any(nic in stanza_names(text) for text in state.files.values())
        if not link.addresses and not stanza:
            continue
        # The kernel makes its own routes again on the bridge, from addresses and router advertisements.
        routes = [
            route
            for route in state.routes
            if route.get("dev") == nic and route.get("protocol") not in ("kernel", "ra") and "dst" in route
        ]
        static = tuple(address for address in link.addresses if address not in link.dynamic)
        found.append(Handover(nic, bridge, static, tuple(routes), stanza))
    return found


def handover_faults(handovers: Iterable[Handover], specs: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what the declared bridges do not allow."""
    declared = {spec["name"]: spec for spec in specs}
    for item in handovers:
        spec = declared[item.bridge]
        if item.addresses and not spec["take_addresses"]:
            yield (
                f"{item.nic} has the address {', '.join(item.addresses)}; bridge {item.bridge} does not "
                "take addresses: remove it from the card, or say take_addresses: true and configure the bridge"
            )
        if not spec["gateway"] and any(route.get("dst") == "default" for route in item.routes):
            yield (
                f"the default route leads through {item.nic}, and no gateway is declared for bridge {item.bridge}: "
                "declare it, or the host loses its way out"
            )


def handover_step(item: Handover, run: Run) -> Step:
    """Return the step that moves the addresses of a network card to its bridge."""

    def apply() -> None:
        for call in handover_calls(item):
            run(call)

    if item.addresses:
        return Step(f"move {', '.join(item.addresses)} from {item.nic} to {item.bridge}", apply)
    return Step(f"leave {item.nic} without an address of its own", apply)


def handover_calls(item: Handover) -> list[list[str]]:
    """Return the commands that move the addresses of a network card to its bridge."""
    calls = [
        ["ip", "address", "flush", "dev", item.nic],
        ["ip", "link", "set", "dev", item.nic, "up"],
        ["ip", "link", "set", "dev", item.bridge, "up"],
    ]
    calls += [["ip", "address", "replace", address, "dev", item.bridge] for address in item.addresses]
    return calls + [route_argv(route, item.bridge) for route in item.routes]


def route_argv(route: dict[str, Any], device: str) -> list[str]:
    """Return the command that makes a route lead through ``device``."""
    call = ["ip", "route", "replace", str(route["dst"])]
    for key, word in (("gateway", "via"), ("metric", "metric"), ("prefsrc", "src")):
        if key in route:
            call += [word, str(route[key])]
    return [*call, "dev", device, *(["onlink"] if "onlink" in route.get("flags", []) else [])]
