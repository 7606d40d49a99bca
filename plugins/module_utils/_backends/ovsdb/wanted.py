# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted: the current model with the declarations merged in, and what speaks against it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.host import State
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import (
    MARK,
    Bridge,
    Columns,
    Interface,
    Model,
    Port,
    local_port,
    merged,
)
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


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
