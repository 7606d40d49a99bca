# SPDX-License-Identifier: GPL-3.0-or-later
"""Open vSwitch: bridges, ports and VLANs of one host, read and changed in one transaction each.

The database is read into a model of plain data; the desired model is the current one with the
declarations merged in. The difference of two models is a list of ``ovs-vsctl`` commands, so the
way back, which safe apply writes to disk, comes from the same function with its arguments swapped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

Columns = dict[str, Any]

SOCKET = "/run/openvswitch/db.sock"
CONF_DB = "/etc/openvswitch/conf.db"
INTERFACES = "/etc/network/interfaces"
INTERFACES_D = "/etc/network/interfaces.d"
STATE_DIR = "/var/lib/personal-cluster/network"

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
# Columns whose schema allows no empty set: cleared by an empty string.
PLAIN_STRINGS = frozenset(("type", "datapath_type"))
TRANSACTION_SECONDS = 60
PROBE_SECONDS = 45
MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


# --- the model -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interface:
    """A row of the table Interface; ``error`` and ``ofport`` are what ovs-vswitchd made of it."""

    name: str
    columns: Columns
    error: str = ""
    ofport: Optional[int] = None


@dataclass(frozen=True)
class Port:
    """A row of the table Port with its interfaces: one, or several for a bond."""

    name: str
    columns: Columns
    interfaces: dict[str, Interface]

    @property
    def guest(self) -> bool:
        """Whether the port belongs to a virtual machine, which its hypervisor manages."""
        return any(GUEST_KEYS & set(item.columns.get("external_ids") or {}) for item in self.interfaces.values())

    @property
    def owned(self) -> bool:
        """Whether this collection made the port."""
        return MARK in (self.columns.get("external_ids") or {})

    @property
    def uplink(self) -> bool:
        """Whether the port leads out of the host."""
        return not self.guest and any(not item.columns.get("type") for item in self.interfaces.values())


@dataclass(frozen=True)
class Bridge:
    """A row of the table Bridge with its ports, the local one included."""

    name: str
    columns: Columns
    ports: dict[str, Port]

    @property
    def owned(self) -> bool:
        """Whether this collection made the bridge."""
        return MARK in (self.columns.get("external_ids") or {})


Model = dict[str, Bridge]


def _atom(value: Any) -> Any:
    return value[1] if isinstance(value, list) and value[0] in ("uuid", "named-uuid") else value


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


def _rows(table: dict[str, Any]) -> Iterator[Columns]:
    for values in table["data"]:
        row = {name: _decode(value) for name, value in zip(table["headings"], values, strict=True)}
        for name in LIST_COLUMNS & set(row):
            if row[name] is not None and not isinstance(row[name], list):
                row[name] = [row[name]]
        yield row


def _picked(row: Columns, names: Iterable[str]) -> Columns:
    return {name: row[name] for name in names if not _empty(row.get(name))}


def _empty(value: Any) -> bool:
    return value is None or value is False or value == "" or value == {} or value == []


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


def _interface(row: Columns) -> Interface:
    columns = _picked(row, INTERFACE_COLUMNS)
    if columns.get("type") == "system":
        del columns["type"]
    return Interface(row["name"], columns, row["error"] or "", row["ofport"])


def _port(row: Columns, interfaces: dict[str, Interface]) -> Port:
    own = sorted((interfaces[uuid] for uuid in row["interfaces"] or []), key=lambda item: item.name)
    return Port(row["name"], _picked(row, PORT_COLUMNS), {item.name: item for item in own})


def merged(columns: Columns, changes: Columns) -> Columns:
    """Return ``columns`` with ``changes``: maps key by key (``None`` removes one), anything else replaced."""
    result = dict(columns)
    for name, value in changes.items():
        if isinstance(value, dict):
            value = {
                key: _string(item) for key, item in {**(result.get(name) or {}), **value}.items() if item is not None
            }
        result[name] = value
    return {name: value for name, value in result.items() if not _empty(value)}


def _string(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- the difference of two models ------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One sentence and the ``ovs-vsctl`` commands behind it."""

    sentence: str
    commands: list[list[str]]


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, str) else str(value)


def _shown(value: Any) -> str:
    if _empty(value):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _settings(table: str, name: str, now: Columns, then: Columns) -> list[tuple[str, list[list[str]]]]:
    """Return for each column that differs a phrase and its commands."""
    found = []
    for column in sorted(set(now) | set(then)):
        old, new = now.get(column), then.get(column)
        if old == new or (_empty(old) and _empty(new)):
            continue
        if isinstance(old or new, dict):
            found.append(_map_setting(table, name, column, (old or {}, new or {})))
            continue
        if _empty(new) and column in PLAIN_STRINGS:
            command = ["set", table, name, f'{column}=""']
        elif _empty(new) and not isinstance(old, bool):
            command = ["clear", table, name, column]
        else:
            command = ["set", table, name, f"{column}={_quoted(False if new is None else new)}"]
        found.append((f"{column}: {_shown(old)} -> {_shown(new)}", [command]))
    return found


def _map_setting(
    table: str, name: str, column: str, values: tuple[dict[str, str], dict[str, str]]
) -> tuple[str, list[list[str]]]:
    old, new = values
    gone = sorted(set(old) - set(new))
    fresh = sorted(key for key in new if old.get(key) != new[key])
    commands = []
    if gone:
        commands.append(["remove", table, name, column, *(json.dumps(key) for key in gone)])
    if fresh:
        commands.append(["set", table, name, *(f"{column}:{json.dumps(key)}={json.dumps(new[key])}" for key in fresh)])
    phrases = [f"{key}={new[key]}" for key in fresh if key != MARK] + [f"without {key}" for key in gone if key != MARK]
    return (f"{column}: {', '.join(phrases)}" if phrases else "", commands)


def _configured(kind: str, name: str, settings: list[tuple[str, list[list[str]]]]) -> list[Change]:
    return [Change(f"set {kind} {name}, {phrase or 'its mark'}", commands) for phrase, commands in settings]


def _port_settings(now: Optional[Port], then: Port, made: Columns) -> list[tuple[str, list[list[str]]]]:
    """Return what to set on a port and its interfaces; ``made`` is what creating it set already."""
    found = _settings("Port", then.name, now.columns if now else made, then.columns)
    for name, interface in then.interfaces.items():
        old = now.interfaces[name].columns if now and name in now.interfaces else {}
        found += _settings("Interface", name, old, interface.columns)
    return found


def _added(bridge: str, port: Port) -> Change:
    made: Columns = {}
    if port.columns.get("fake_bridge"):
        made = {"fake_bridge": True, "tag": port.columns.get("tag")}
        first = ["add-br", port.name, bridge, str(port.columns.get("tag"))]
        # ovs-vsctl makes the internal interface of a fake bridge itself.
        port = replace(port, interfaces={port.name: Interface(port.name, {})})
    elif len(port.interfaces) > 1:
        first = ["add-bond", bridge, port.name, *port.interfaces]
    else:
        first = ["add-port", bridge, port.name]
    settings = _port_settings(None, port, made)
    what = "fake bridge" if made else "bond" if len(port.interfaces) > 1 else "port"
    details = [phrase.replace("none -> ", "") for phrase, _commands in settings if phrase]
    if made:
        details.insert(0, f"tag: {made['tag']}")
    if what == "bond":
        details.insert(0, "members: " + ", ".join(port.interfaces))
    sentence = f"add {what} {port.name} to bridge {bridge}" + (f" ({'; '.join(details)})" if details else "")
    return Change(sentence, [first] + [command for _phrase, commands in settings for command in commands])


def _removed(bridge: str, port: Port) -> Change:
    verb = "del-br" if port.columns.get("fake_bridge") else "del-port"
    return Change(f"remove port {port.name} from bridge {bridge}", [["--if-exists", verb, port.name]])


def _same_kind(now: Port, then: Port) -> bool:
    """Whether ``now`` can become ``then`` without being made anew."""
    if bool(now.columns.get("fake_bridge")) != bool(then.columns.get("fake_bridge")):
        return False
    if set(now.interfaces) == set(then.interfaces):
        return True
    return len(now.interfaces) > 1 and len(then.interfaces) > 1 and bool(set(now.interfaces) & set(then.interfaces))


def difference(now: Model, then: Model) -> list[Change]:
    """Return what turns ``now`` into ``then``: removals, additions, then settings."""
    removals: list[Change] = []
    additions: list[Change] = []
    settings: list[Change] = []
    for name in now:
        if name not in then:
            removals.append(Change(f"remove bridge {name}", [["--if-exists", "del-br", name]]))
    for name, bridge in then.items():
        old = now.get(name)
        if old is None:
            phrases = _settings("Bridge", name, {}, bridge.columns)
            details = "; ".join(phrase.replace("none -> ", "") for phrase, _commands in phrases if phrase)
            commands = [["add-br", name]] + [command for _phrase, group in phrases for command in group]
            additions.append(Change(f"create bridge {name}" + (f" ({details})" if details else ""), commands))
            old = Bridge(name, bridge.columns, {name: local_port(name)})
        settings += _configured("bridge", name, _settings("Bridge", name, old.columns, bridge.columns))
        _port_difference(old, bridge, removals, additions, settings)
    return removals + additions + settings


def _port_difference(
    now: Bridge, then: Bridge, removals: list[Change], additions: list[Change], settings: list[Change]
) -> None:
    for name, port in now.ports.items():
        if name not in then.ports or not _same_kind(port, then.ports[name]):
            removals.append(_removed(now.name, port))
    for name, port in then.ports.items():
        old = now.ports.get(name)
        if old is None or not _same_kind(old, port):
            additions.append(_added(then.name, port))
            continue
        for item in sorted(set(old.interfaces) - set(port.interfaces)):
            removals.append(Change(f"remove {item} from bond {name}", [["del-bond-iface", name, item]]))
        for item in sorted(set(port.interfaces) - set(old.interfaces)):
            additions.append(Change(f"add {item} to bond {name}", [["add-bond-iface", name, item]]))
        settings += _configured("port", name, _port_settings(old, port, {}))


def local_port(name: str) -> Port:
    """Return the port that a bridge has by itself."""
    return Port(name, {}, {name: Interface(name, {"type": "internal"})})


def argv(changes: Iterable[Change], base: list[str]) -> list[str]:
    """Return one ``ovs-vsctl`` call for all ``changes``."""
    call = list(base)
    for change in changes:
        for command in change.commands:
            call += ["--", *command]
    return call


# --- the host around the switch ---------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A network interface of the kernel; ``kind`` is empty for hardware."""

    name: str
    mac: str
    kind: str = ""
    addresses: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()


def parse_links(text: str) -> dict[str, Link]:
    """Return the interfaces, with their global addresses, in what ``ip -json -details address`` printed."""
    links = {}
    for item in json.loads(text or "[]"):
        if not item.get("ifname"):
            continue
        own = [entry for entry in item.get("addr_info", []) if entry.get("scope") == "global"]
        # A route advertisement or a DHCP client gives temporary addresses again on its own: they are not carried.
        links[item["ifname"]] = Link(
            item["ifname"],
            item.get("permaddr") or item.get("address", ""),
            item.get("linkinfo", {}).get("info_kind", ""),
            tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in own),
            tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in own if entry.get("dynamic")),
        )
    return links


def without_stanzas(text: str, names: Collection[str]) -> str:
    """Return an interfaces(5) file without the stanzas of ``names``; every other line stays as it is."""
    kept: list[str] = []
    dropping = False
    for line in _logical_lines(text):
        words = line.split()
        first = words[0] if words else ""
        if first == "iface":
            dropping = len(words) > 1 and words[1] in names
        elif first == "auto" or first.startswith("allow-"):
            dropping = False
            left = [word for word in words[1:] if word not in names]
            if len(left) < len(words) - 1:
                if left:
                    kept.append(f"{first} {' '.join(left)}\n")
                continue
        elif first in ("mapping", "source", "source-directory", "rename", "template") or first.startswith("no-"):
            dropping = False
        elif dropping and (not words or first.startswith("#")):
            kept.append(line)
            continue
        if not dropping:
            kept.append(line)
    return "".join(kept)


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of ``text``, those that end in a backslash together with the next."""
    held = ""
    for line in text.splitlines(keepends=True):
        held += line
        if not line.rstrip("\n").endswith("\\"):
            yield held
            held = ""
    if held:
        yield held


@dataclass(frozen=True)
class State:
    """What the host holds: the switch, the kernel's interfaces and routes, ifupdown's files, pending rollbacks."""

    bridges: Model = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    routes: tuple[dict[str, Any], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()


# --- what is wanted ---------------------------------------------------------------------------


def expand(trunks: Iterable[str]) -> list[int]:
    """Return VLAN numbers of ``trunks``: numbers and ranges such as ``100-110``.

    :raises ClusterError: something else.
    """
    found: set[int] = set()
    for item in trunks:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(item).strip())
        if not match:
            raise ClusterError(f"trunks: {item!r} is neither a VLAN number nor a range like 100-110 nor all")
        first, last = int(match[1]), int(match[2] or match[1])
        found.update(range(first, last + 1))
    return sorted(found)


class Wanted:
    """The desired model: the current one with the declarations merged in, and what speaks against it."""

    def __init__(self, state: State, specs: list[dict[str, Any]], purge: str) -> None:
        self.refusals: list[str] = []
        self.nics: dict[str, str] = {}
        """Interface of the host -> bridge that it is to be in, as declared."""
        self._links = state.links
        self._now = state.bridges
        self.model: Model = dict(state.bridges)
        self._specs = specs
        present = [spec for spec in specs if spec["state"] == "present"]
        self._purge(purge, {spec["name"] for spec in present})
        for spec in specs:
            if spec["state"] == "absent":
                self._drop_bridge(spec["name"])
        for spec in present:
            self._bridge(spec, purge)
        self._check_duplicates(present)
        for spec in present:
            self._check_bridge(spec["name"])

    def _purge(self, purge: str, declared: set[str]) -> None:
        for name, bridge in list(self.model.items()):
            if name not in declared and (purge == "all" or (purge == "owned" and bridge.owned)):
                self._drop_bridge(name)

    def _drop_bridge(self, name: str) -> None:
        bridge = self.model.pop(name, None)
        guests = sorted(port.name for port in bridge.ports.values() if port.guest) if bridge else []
        if guests:
            self.refusals.append(f"bridge {name} would go, but guests use it ({', '.join(guests)}): stop them first")

    def _resolve(self, name: str) -> str:
        """Return the interface's name for a name or a MAC address."""
        if not MAC.match(name.lower()):
            return name
        found = [link.name for link in self._links.values() if link.mac == name.lower() and not link.kind]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{link.name} {link.mac}" for link in self._links.values() if not link.kind and link.mac)
        self.refusals.append(f"no single network card has the address {name}; this host has: {known}")
        return name

    def _bridge(self, spec: dict[str, Any], purge: str) -> None:
        name = spec["name"]
        bridge = self.model.get(name)
        if bridge is None:
            bridge = Bridge(name, {"external_ids": {MARK: "made"}}, {name: local_port(name)})
        self.model[name] = bridge
        declared = [self._port(name, item) for item in spec["ports"]]
        declared += [self._vlan(name, item) for item in spec["vlans"]]
        if purge != "none":
            self._purge_ports(name, {name, *declared}, purge)
        self.model[name] = replace(self.model[name], columns=merged(bridge.columns, self._bridge_columns(spec)))

    def _bridge_columns(self, spec: dict[str, Any]) -> Columns:
        columns = _given(
            {
                "fail_mode": spec["fail_mode"],
                "stp_enable": spec["stp"],
                "rstp_enable": spec["rstp"],
                "mcast_snooping_enable": spec["mcast_snooping"],
                "datapath_type": {"system": ""}.get(spec["datapath_type"], spec["datapath_type"]),
                "other_config": spec["other_config"],
                "external_ids": spec["external_ids"],
            },
            spec["clear"],
        )
        hwaddr = spec["hwaddr"]
        if hwaddr == "uplink":
            ports = self.model[spec["name"]].ports.values()
            macs = [
                self._links[name].mac
                for port in ports
                if port.uplink
                for name in port.interfaces
                if name in self._links
            ]
            hwaddr = macs[0] if macs else None
        if hwaddr:
            columns["other_config"] = {**(columns.get("other_config") or {}), "hwaddr": hwaddr.lower()}
        return columns

    def _purge_ports(self, bridge: str, declared: set[str], purge: str) -> None:
        ports = self.model[bridge].ports
        kept = {
            name: port
            for name, port in ports.items()
            if name in declared or port.guest or (purge == "owned" and not port.owned)
        }
        for name in ports.keys() - kept.keys():
            self._check_fake_bridge_goes(self.model[bridge], name)
        self.model[bridge] = replace(self.model[bridge], ports=kept)

    def _check_fake_bridge_goes(self, bridge: Bridge, name: str) -> None:
        port = bridge.ports[name]
        if not port.columns.get("fake_bridge"):
            return
        users = [
            item.name
            for item in bridge.ports.values()
            if item.name != name
            and item.columns.get("tag") == port.columns.get("tag")
            and not item.columns.get("fake_bridge")
        ]
        if users:
            self.refusals.append(
                f"fake bridge {name} would go with its ports {', '.join(sorted(users))}: remove them first"
            )

    def _vlan(self, bridge: str, spec: dict[str, Any]) -> str:
        fake = spec["type"] == "fake_bridge"
        port = {**NO_PORT, "name": spec["name"], "state": spec["state"], "type": "internal", "tag": spec["tag"]}
        return self._port(bridge, port, {"fake_bridge": True} if fake else {})

    def _port(self, bridge: str, spec: dict[str, Any], extra: Optional[Columns] = None) -> str:
        """Merge one declared port into the model and return its name."""
        name = self._resolve(spec["name"])
        ports = dict(self.model[bridge].ports)
        if name in ports and ports[name].guest:
            self.refusals.append(f"port {name} belongs to a guest; its hypervisor manages it")
            return name
        if spec["state"] == "absent":
            if name in ports:
                self._check_fake_bridge_goes(self.model[bridge], name)
                del ports[name]
                self.model[bridge] = replace(self.model[bridge], ports=ports)
            return name
        members = [self._resolve(item) for item in spec["members"]] if spec["members"] else None
        for interface in members or [name]:
            self._detach(interface, (bridge, name), spec["move"])
        ports = dict(self.model[bridge].ports)
        old = ports.get(name)
        port = old or Port(name, {"external_ids": {MARK: "made"}}, {name: Interface(name, {})})
        if members:
            port = replace(
                port, interfaces={item: port.interfaces.get(item, Interface(item, {})) for item in sorted(members)}
            )
        ports[name] = self._with_columns(port, spec, extra or {})
        self.model[bridge] = replace(self.model[bridge], ports=dict(sorted(ports.items())))
        self._check_port(ports[name], spec, bridge)
        return name

    def _with_columns(self, port: Port, spec: dict[str, Any], extra: Columns) -> Port:
        trunks = spec["trunks"]
        columns = _given(
            {name: spec[name] for name in ("tag", "vlan_mode", "bond_mode", "lacp", "other_config", "external_ids")},
            spec["clear"],
        )
        if trunks is not None:
            columns["trunks"] = [] if trunks == ["all"] else expand(trunks)
        changes = _given({"mtu_request": spec["mtu"]}, [name for name in spec["clear"] if name == "mtu"])
        if spec["type"] is not None:
            changes["type"] = "" if spec["type"] == "system" else spec["type"]
        if spec["peer"]:
            changes["options"] = {"peer": spec["peer"]}
        return Port(
            port.name,
            merged(port.columns, {**columns, **extra}),
            {name: replace(item, columns=merged(item.columns, changes)) for name, item in port.interfaces.items()},
        )

    def _detach(self, interface: str, target: tuple[str, str], move: bool) -> None:
        """Take ``interface`` out of the port that holds it elsewhere."""
        for bridge_name, bridge in list(self.model.items()):
            for port in list(bridge.ports.values()):
                if interface not in port.interfaces or (bridge_name, port.name) == target:
                    continue
                if bridge_name != target[0] and not move:
                    self.refusals.append(
                        f"{interface} is in bridge {bridge_name}; to take it to {target[0]} say move: true on the port"
                    )
                if interface == bridge_name or port.guest:
                    self.refusals.append(f"{interface} is not free: it is the port {port.name} of bridge {bridge_name}")
                self._without(bridge_name, port, interface)

    def _without(self, bridge: str, port: Port, interface: str) -> None:
        left = {name: item for name, item in port.interfaces.items() if name != interface}
        ports = {name: item for name, item in self.model[bridge].ports.items() if name != port.name}
        if left:
            ports[port.name] = replace(port, interfaces=left)
        self.model[bridge] = replace(self.model[bridge], ports=dict(sorted(ports.items())))

    # What speaks against it.

    def _check_port(self, port: Port, spec: dict[str, Any], bridge: str) -> None:
        for name, interface in port.interfaces.items():
            if not interface.columns.get("type"):
                self.nics[name] = bridge
                if name not in self._links and not MAC.match(name.lower()):
                    self.refusals.append(f"port {port.name}: this host has no interface {name}")
        self.refusals += [f"port {port.name}: {reason}" for reason in _port_faults(port, spec)]

    def _check_duplicates(self, specs: list[dict[str, Any]]) -> None:
        seen: dict[str, str] = {}
        for spec in specs:
            items = [item for item in spec["ports"] + spec["vlans"] if item["state"] == "present"]
            names = [self._resolved_quietly(name) for item in items for name in (item.get("members") or [item["name"]])]
            for name in names:
                if name in seen:
                    self.refusals.append(
                        f"{name} is declared twice, in bridge {seen[name]} and in bridge {spec['name']}"
                    )
                seen[name] = spec["name"]

    def _resolved_quietly(self, name: str) -> str:
        known = len(self.refusals)
        resolved = self._resolve(name)
        del self.refusals[known:]
        return resolved

    def _check_bridge(self, name: str) -> None:
        bridge = self.model[name]
        uplinks = sorted(port.name for port in bridge.ports.values() if port.uplink)
        spanning = bridge.columns.get("stp_enable") or bridge.columns.get("rstp_enable")
        if len(uplinks) > 1 and not spanning:
            self.refusals.append(
                f"bridge {name} would loop: {' and '.join(uplinks)} both lead out; make them one bond "
                "(members), or turn rstp on"
            )


def _port_faults(port: Port, spec: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a port in its wanted form."""
    columns = port.columns
    tag, trunks, mode = columns.get("tag"), columns.get("trunks"), columns.get("vlan_mode")
    for number in [tag] if tag is not None else []:
        if not 1 <= number <= 4094:
            yield f"VLAN {number} is outside 1-4094"
    wrong = [number for number in trunks or [] if not 1 <= number <= 4094]
    if wrong:
        yield f"VLAN {wrong[0]} in trunks is outside 1-4094"
    open_trunk = spec["trunks"] == [] or (spec["vlan_mode"] == "trunk" and not trunks and spec["trunks"] != ["all"])
    if open_trunk:
        yield "a trunk without trunks passes ALL VLANs; write trunks: all if that is intended"
    if tag is not None and trunks and mode not in ("native-tagged", "native-untagged"):
        yield "tag together with trunks needs vlan_mode native-tagged or native-untagged"
    if mode == "trunk" and tag is not None:
        yield "vlan_mode trunk takes no tag; native-tagged and native-untagged do"
    if spec["members"] is not None and len(spec["members"]) < 2:
        yield "a bond has at least two members; a single interface is the port itself"
    if columns.get("lacp") in ("active", "passive") and len(port.interfaces) < 2:
        yield "LACP needs a bond of at least two members"
    if spec["type"] == "patch" and not spec["peer"]:
        yield "a patch port needs peer, the name of the port at the other end"


def _given(columns: Columns, clear: Iterable[str]) -> Columns:
    """Return the columns that were given a value, and those to clear as ``None``."""
    names = {
        "stp": "stp_enable",
        "rstp": "rstp_enable",
        "mcast_snooping": "mcast_snooping_enable",
        "mtu": "mtu_request",
    }
    return {
        **{name: value for name, value in columns.items() if value is not None},
        **{names.get(name, name): None for name in clear},
    }


NO_PORT: dict[str, Any] = {
    "name": "",
    "state": "present",
    "type": None,
    "peer": None,
    "members": None,
    "bond_mode": None,
    "lacp": None,
    "vlan_mode": None,
    "tag": None,
    "trunks": None,
    "mtu": None,
    "other_config": None,
    "external_ids": None,
    "clear": [],
    "move": False,
}
"""A declared port about which nothing is said."""


# --- safe apply -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Handover:
    """A network card whose addresses go to the bridge it joins."""

    nic: str
    bridge: str
    addresses: tuple[str, ...]
    routes: tuple[dict[str, Any], ...]
    stanza: bool


def _route_argv(route: dict[str, Any], device: str) -> list[str]:
    call = ["ip", "route", "replace", str(route["dst"])]
    for key, word in (("gateway", "via"), ("metric", "metric"), ("prefsrc", "src")):
        if key in route:
            call += [word, str(route[key])]
    return [*call, "dev", device, *(["onlink"] if "onlink" in route.get("flags", []) else [])]


def handover_calls(item: Handover) -> list[list[str]]:
    """Return the commands that move the addresses of a network card to its bridge."""
    calls = [
        ["ip", "address", "flush", "dev", item.nic],
        ["ip", "link", "set", "dev", item.nic, "up"],
        ["ip", "link", "set", "dev", item.bridge, "up"],
    ]
    calls += [["ip", "address", "replace", address, "dev", item.bridge] for address in item.addresses]
    return calls + [_route_argv(route, item.bridge) for route in item.routes]


def script_path(token: str) -> str:
    """Return where the rollback of the change ``token`` waits."""
    return f"{STATE_DIR}/rollback-{token}.sh"


def timer_unit(token: str) -> str:
    """Return the name of the transient unit that runs the rollback of the change ``token``."""
    return f"personal-cluster-network-rollback-{token}"


def rollback_script(
    token: str,
    inverse: list[str],
    backups: dict[str, str],
    handovers: Iterable[Handover],
    held: Iterable[tuple[str, str]],
) -> str:
    """Return the shell program that undoes a change.

    :param inverse: the ``ovs-vsctl`` call that leads back; empty when the switch does not change.
    :param backups: file -> its copy from before the change.
    :param held: interface and address pairs that the interfaces concerned had before.
    """
    lines = [
        "#!/bin/sh",
        "# Undoes a network change that nobody confirmed. Written by personal.cluster.ovs_vlan.",
        '# With the argument "boot" it restores only what outlives a reboot.',
        f"cd {STATE_DIR} || exit 1",
        "# Whoever renames the file first decides: this script undoes, a confirmation keeps.",
        f"mv rollback-{token}.sh undoing-{token}.sh 2>/dev/null || [ -e undoing-{token}.sh ] || exit 0",
        *([shlex.join(inverse)] if inverse else []),
        *(shlex.join(["cp", "-p", copy, path]) for path, copy in sorted(backups.items())),
        'if [ "$1" != boot ]; then',
    ]
    for item in handovers:
        for address in item.addresses:
            lines.append(f"  {shlex.join(['ip', 'address', 'delete', address, 'dev', item.bridge])} 2>/dev/null")
        lines.append("  " + shlex.join(["ip", "link", "set", "dev", item.nic, "up"]))
        if item.stanza:
            lines.append("  " + shlex.join(["ifup", "--force", item.nic]))
    lines += ["  " + shlex.join(["ip", "address", "replace", address, "dev", name]) for name, address in held]
    lines += ["  " + shlex.join(_route_argv(route, item.nic)) for item in handovers for route in item.routes]
    # The condition of an if must not be its last command's failure.
    lines += ["  :", "fi", f"mv undoing-{token}.sh rolled-back-{token}.sh", ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class Safety:
    """How a change that could cut the host off is made."""

    enabled: bool = True
    seconds: int = 120
    token: str = "unnamed"
    peers: tuple[str, ...] = ()


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
        self._base = ["ovs-vsctl", f"--timeout={TRANSACTION_SECONDS}"]
        self._base += [f"--db={database}"] if database else []
        self._base += [] if wait else ["--no-wait"]
        self._answering: list[str] = []

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
        return State({}, links, tuple(routes), _interfaces_files(), self._pending())

    def _declared(self) -> set[str]:
        ports = [port for spec in self._specs for port in spec["ports"]]
        names = [name for port in ports for name in [port["name"], *(port["members"] or [])]]
        return {*names, *(name.lower() for name in names)}

    def _pending(self) -> tuple[str, ...]:
        names = sorted(os.listdir(STATE_DIR)) if os.path.isdir(STATE_DIR) else []
        found = [match[1] for match in (re.fullmatch(r"rollback-(\w+)\.sh", name) for name in names) if match]
        return tuple(token for token in found if token != self._safety.token)

    def view(self, state: State) -> dict[str, Any]:
        """Return bridges and the addresses of the interfaces in them; guests' ports are not ours to show."""
        inside = {
            name for bridge in state.bridges.values() for port in bridge.ports.values() for name in port.interfaces
        }
        return {
            "bridges": {name: _shown_bridge(bridge) for name, bridge in state.bridges.items()},
            "addresses": {
                name: sorted(link.addresses)
                for name, link in sorted(state.links.items())
                if name in inside and link.addresses
            },
            "ifupdown": {path: _stanza_names(text) for path, text in state.files.items()},
        }

    # Planning.

    def plan(self, state: State) -> Plan[State]:
        """Return one transaction for the switch, and around it what keeps the host reachable."""
        wanted = Wanted(state, self._specs, self._purge)
        changes = difference(state.bridges, wanted.model)
        handovers = self._handovers(state, wanted)
        files = {path: without_stanzas(text, wanted.nics) for path, text in state.files.items()}
        files = {path: text for path, text in files.items() if text != state.files[path]}
        predicted = self._predicted(state, wanted, handovers, files)
        plan = Plan(predicted, refusals=[*wanted.refusals, *self._faults(state, wanted, changes)])
        plan.steps += [self._keep(token) for token in state.pending]
        if not changes and not handovers and not files:
            return plan
        held = self._held(state, wanted, changes, handovers)
        if held and not self._safety.enabled:
            names = ", ".join(f"{name} ({address})" for name, address in held)
            plan.refusals.append(f"the change touches {names}, and could cut this host off: allow safe_apply")
        plan.refusals += self._handover_faults(handovers)
        if held:
            plan.steps.append(self._arm(state, predicted, handovers, files, held))
        plan.steps += self._release(handovers, files)
        plan.steps += self._transact(changes)
        plan.steps += [self._hand_over(item) for item in handovers]
        if held and self._safety.peers:
            plan.steps.append(Step("check that the peers which answered before still answer", self._probe))
        return plan

    def _handovers(self, state: State, wanted: Wanted) -> list[Handover]:
        """Return the cards whose addresses, or whose stanzas, have to go."""
        found = []
        for nic, bridge in sorted(wanted.nics.items()):
            link = state.links.get(nic, Link(nic, ""))
            stanza = any(nic in _stanza_names(text) for text in state.files.values())
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

    def _handover_faults(self, handovers: list[Handover]) -> Iterator[str]:
        specs = {spec["name"]: spec for spec in self._specs}
        for item in handovers:
            spec = specs[item.bridge]
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

    def _keep(self, token: str) -> Step:
        def apply() -> None:
            # That this run got here at all shows that the host is reachable with the change.
            try:
                os.rename(script_path(token), f"{STATE_DIR}/confirmed.sh")
            except FileNotFoundError as error:
                raise ClusterError("the earlier network change was just rolled back; run again") from error
            # A reboot since then has ended the timer.
            self._run(["systemctl", "stop", timer_unit(token) + ".timer"], ok=None)

        return Step("keep the network change that an interrupted run left unconfirmed", apply)

    def _arm(
        self,
        state: State,
        predicted: State,
        handovers: list[Handover],
        files: dict[str, str],
        held: list[tuple[str, str]],
    ) -> Step:
        safety = self._safety
        inverse = argv(difference(predicted.bridges, state.bridges), self._base)
        backups = {path: self._backup(path) for path in files}
        script = rollback_script(
            safety.token, inverse if len(inverse) > len(self._base) else [], backups, handovers, held
        )

        def apply() -> None:
            os.makedirs(STATE_DIR, mode=0o700, exist_ok=True)
            self._answering = [peer for peer in safety.peers if self._answers(peer)]
            for path, copy in backups.items():
                shutil.copy2(path, copy)
            _write(script_path(safety.token), script)
            try:
                self._start_timer()
            except ClusterError:
                # Nothing was changed yet, so there is nothing to undo.
                os.unlink(script_path(safety.token))
                raise

        addresses = ", ".join(f"{address} on {name}" for name, address in held)
        return Step(f"arm a rollback within {safety.seconds} s, to keep {addresses}", apply)

    def _start_timer(self) -> None:
        unit, script = timer_unit(self._safety.token), script_path(self._safety.token)
        call = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={self._safety.seconds}s"]
        self._run([*call, "--timer-property=AccuracySec=1s", "/bin/sh", script])
        self._run(["systemctl", "is-active", unit + ".timer"])

    def _backup(self, path: str) -> str:
        return f"{STATE_DIR}/{os.path.basename(path)}.{self._safety.token}"

    def _release(self, handovers: list[Handover], files: dict[str, str]) -> list[Step]:
        """Return the steps that take the cards away from ifupdown."""
        nics = [item.nic for item in handovers if item.stanza]

        def apply(path: str, text: str) -> None:
            for nic in nics:
                if nic in _stanza_names(_text(path)):
                    # It may be down already, or never have been up.
                    self._run(["ifdown", "--force", nic], ok=None)
            os.makedirs(STATE_DIR, mode=0o700, exist_ok=True)
            shutil.copy2(path, self._backup(path))
            _write(path, text, os.stat(path).st_mode & 0o777)

        return [
            Step(f"take {', '.join(nics)} out of {path} (a copy stays in {STATE_DIR})", _bound(apply, path, text))
            for path, text in sorted(files.items())
        ]

    def _transact(self, changes: list[Change]) -> list[Step]:
        """Return a step per sentence; the first one makes all changes at once."""
        call = argv(changes, self._base)

        def apply() -> None:
            self._run(call, timeout=TRANSACTION_SECONDS + 10)

        return [Step(change.sentence, _nothing if index else apply) for index, change in enumerate(changes)]

    def _hand_over(self, item: Handover) -> Step:
        def apply() -> None:
            for call in handover_calls(item):
                self._run(call)

        if item.addresses:
            return Step(f"move {', '.join(item.addresses)} from {item.nic} to {item.bridge}", apply)
        return Step(f"leave {item.nic} without an address of its own", apply)

    def _answers(self, peer: str) -> bool:
        return self._run(["ping", "-q", "-c", "1", "-W", "1", peer], ok=None).rc == 0

    def _probe(self) -> None:
        end = time.monotonic() + PROBE_SECONDS
        silent = self._answering
        while silent and time.monotonic() < end:
            silent = [peer for peer in silent if not self._answers(peer)]
        if silent:
            self._run(["/bin/sh", script_path(self._safety.token)], ok=None)
            raise CommandFailed(
                f"{', '.join(silent)} answered before the change and not after it; rolled back. "
                "Check the cable and the switch port of the bridge's uplink"
            )


def _bound(apply: Any, path: str, text: str) -> Any:
    return lambda: apply(path, text)


def _nothing() -> None:
    """Do nothing: the transaction's first step did it all."""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def _write(path: str, text: str, mode: int = 0o700) -> None:
    """Write ``path`` so that after a power cut it is either the old or the new file."""
    # Hidden: ifupdown's "source interfaces.d/*" must not read a half-written file.
    fresh = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


def _interfaces_files() -> dict[str, str]:
    paths = [INTERFACES] if os.path.isfile(INTERFACES) else []
    if os.path.isdir(INTERFACES_D):
        paths += [os.path.join(INTERFACES_D, name) for name in sorted(os.listdir(INTERFACES_D)) if name[0] != "."]
    return {path: _text(path) for path in paths if os.path.isfile(path)}


def _stanza_names(text: str) -> list[str]:
    names = set()
    for line in _logical_lines(text):
        words = line.split()
        if words and (words[0] in ("iface", "auto") or words[0].startswith("allow-")):
            names.update(words[1:2] if words[0] == "iface" else words[1:])
    return sorted(names - {"lo"})


def _shown_bridge(bridge: Bridge) -> dict[str, Any]:
    ports = {
        name: _shown_port(port)
        for name, port in bridge.ports.items()
        if not port.guest and (name != bridge.name or port.columns)
    }
    return {**_shown_columns(bridge.columns), "ports": ports}


def _shown_port(port: Port) -> dict[str, Any]:
    interfaces = {name: _shown_columns(item.columns) for name, item in port.interfaces.items()}
    return {**_shown_columns(port.columns), "interfaces": interfaces}


def _shown_columns(columns: Columns) -> Columns:
    shown = {name: value for name, value in columns.items() if name != "external_ids"}
    others = {key: value for key, value in (columns.get("external_ids") or {}).items() if key != MARK}
    owned = MARK in (columns.get("external_ids") or {})
    return {**shown, **({"external_ids": others} if others else {}), **({"owned": True} if owned else {})}
