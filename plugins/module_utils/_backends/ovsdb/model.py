# SPDX-License-Identifier: GPL-3.0-or-later
"""The model: bridges, ports and interfaces as plain data, and reading them from the database's tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

Columns = dict[str, Any]
MARK = "personal-cluster"
GUEST_KEYS = frozenset(("vm-id", "iface-id"))
BRIDGE_COLUMNS = (
    "fail_mode",
    "stp_enable",
    "rstp_enable",
    "mcast_snooping_enable",
    "datapath_type",
    "other_config",
    "external_ids",
)
PORT_COLUMNS = (
    "tag",
    "trunks",
    "vlan_mode",
    "bond_mode",
    "lacp",
    "fake_bridge",
    "other_config",
    "external_ids",
)
INTERFACE_COLUMNS = ("type", "options", "mtu_request", "external_ids")
LIST_COLUMNS = frozenset(("trunks", "ports", "interfaces", "bridges"))


@dataclass(frozen=True)
class Row:
    """A named row of a table, without the columns that are empty."""

    name: str
    columns: Columns

    @property
    def owned(self) -> bool:
        """Whether this collection made it."""
        return MARK in (self.columns.get("external_ids") or {})


@dataclass(frozen=True)
class Interface(Row):
    """A row of the table Interface; ``error`` and ``ofport`` are what ovs-vswitchd made of it."""

    error: str = ""
    ofport: Optional[int] = None


@dataclass(frozen=True)
class Port(Row):
    """A row of the table Port with its interfaces: one, or several for a bond."""

    interfaces: dict[str, Interface]

    @property
    def guest(self) -> bool:
        """Whether the port belongs to a virtual machine, which its hypervisor manages."""
        return any(GUEST_KEYS & set(item.columns.get("external_ids") or {}) for item in self.interfaces.values())

    @property
    def uplink(self) -> bool:
        """Whether the port leads out of the host."""
        return not self.guest and any(not item.columns.get("type") for item in self.interfaces.values())


@dataclass(frozen=True)
class Bridge(Row):
    """A row of the table Bridge with its ports, the local one included."""

    ports: dict[str, Port]


Model = dict[str, Bridge]


def local_port(name: str) -> Port:
    """Return the port that a bridge has by itself."""
    return Port(name, {}, {name: Interface(name, {"type": "internal"})})


def parse(text: str) -> Model:
    """Return the model in what ``ovs-vsctl --format=json -- list Bridge -- list Port -- list Interface`` printed."""
    bridges, ports, interfaces = (list(_rows(json.loads(line))) for line in text.splitlines() if line.strip())
    by_id = {row["_uuid"]: _interface(row) for row in interfaces}
    port_by_id = {row["_uuid"]: _port(row, by_id) for row in ports}
    model = {}
    for row in bridges:
        own = sorted((port_by_id[uuid] for uuid in row["ports"] or []), key=lambda port: port.name)
        model[row["name"]] = Bridge(row["name"], _picked(row, BRIDGE_COLUMNS), {port.name: port for port in own})
    return dict(sorted(model.items()))


def _rows(table: dict[str, Any]) -> Iterator[Columns]:
    for values in table["data"]:
        row = {name: _decode(value) for name, value in zip(table["headings"], values, strict=True)}
        for name in LIST_COLUMNS & set(row):
            if row[name] is not None and not isinstance(row[name], list):
                row[name] = [row[name]]
        yield row


def _decode(value: Any) -> Any:
    """Return an OVSDB value as plain data: a map as dict, a set as sorted list, one or none as itself."""
    if not isinstance(value, list):
        return value
    kind, items = value
    if kind == "map":
        return {str(_atom(key)): str(_atom(item)) for key, item in items}
    if kind == "set":
        return sorted(_atom(item) for item in items) or None
    return items


def _atom(value: Any) -> Any:
    return value[1] if isinstance(value, list) and value[0] in ("uuid", "named-uuid") else value


def _interface(row: Columns) -> Interface:
    columns = _picked(row, INTERFACE_COLUMNS)
    if columns.get("type") == "system":
        del columns["type"]
    return Interface(row["name"], columns, row["error"] or "", row["ofport"])


def _port(row: Columns, interfaces: dict[str, Interface]) -> Port:
    own = sorted((interfaces[uuid] for uuid in row["interfaces"] or []), key=lambda item: item.name)
    return Port(row["name"], _picked(row, PORT_COLUMNS), {item.name: item for item in own})


def _picked(row: Columns, names: Iterable[str]) -> Columns:
    return {name: row[name] for name in names if not empty(row.get(name))}


def empty(value: Any) -> bool:
    """Return whether a column holds nothing, or what it holds unasked."""
    return value is None or value is False or value == "" or value == {} or value == []


def merged(columns: Columns, changes: Columns) -> Columns:
    """Return ``columns`` with ``changes``: maps key by key (``None`` removes one), anything else replaced."""
    result = dict(columns)
    for name, value in changes.items():
        if isinstance(value, dict):
            value = {
                key: _string(item) for key, item in {**(result.get(name) or {}), **value}.items() if item is not None
            }
        result[name] = value
    return {name: value for name, value in result.items() if not empty(value)}


def _string(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown_bridge(bridge: Bridge) -> dict[str, Any]:
    """Return a bridge as plain data, without the ports of guests."""
    ports = {
        name: _shown_port(port)
        for name, port in bridge.ports.items()
        if not port.guest and (name != bridge.name or port.columns)
    }
    return {**_shown_columns(bridge), "ports": ports}


def _shown_port(port: Port) -> dict[str, Any]:
    interfaces = {name: _shown_columns(item) for name, item in port.interfaces.items()}
    return {**_shown_columns(port), "interfaces": interfaces}


def _shown_columns(row: Row) -> Columns:
    shown = {name: value for name, value in row.columns.items() if name != "external_ids"}
    others = {key: value for key, value in (row.columns.get("external_ids") or {}).items() if key != MARK}
    return {**shown, **({"external_ids": others} if others else {}), **({"owned": True} if row.owned else {})}
