# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks and storage pools of one node."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import connect, explained
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.elements import (
    attribute,
    child,
    set_attributes,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import guest_uuid
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import portgroups
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

# VIR_NETWORK_XML_INACTIVE and VIR_STORAGE_XML_INACTIVE alike: as it is kept, not as it runs.
INACTIVE = 1


@dataclass(frozen=True)
class Kept:
    """A network or a pool: its XML, whether it is active and starts with libvirtd."""

    xml: str
    active: bool
    autostart: bool


@dataclass(frozen=True)
class Host:
    """The networks and pools of a node."""

    networks: Mapping[str, Kept]
    pools: Mapping[str, Kept]


def network_xml(item: Mapping[str, Any], cluster: str) -> str:
    """Return the XML of a new network on an Open vSwitch bridge."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = item["name"]
    ET.SubElement(root, "uuid").text = guest_uuid(cluster, f"network {item['name']}")
    patch_network(root, item)
    return ET.tostring(root, encoding="unicode")


def patch_network(root: ET.Element, item: Mapping[str, Any]) -> tuple[bool, list[ET.Element]]:
    """Write the declaration into ``root``; return whether its base differed, and the portgroups that did."""
    base = set_attributes(child(root, "forward"), mode="bridge")
    base |= set_attributes(child(root, "bridge"), name=item["bridge"])
    base |= set_attributes(child(root, "virtualport"), type="openvswitch")
    groups = []
    for wanted in item["portgroups"]:
        group = root.find(f"portgroup[@name='{wanted['name']}']")
        tags = [str(wanted["tag"])] if wanted["tag"] is not None else []
        if group is None:
            group = ET.SubElement(root, "portgroup", name=wanted["name"])
        elif [tag.get("id") for tag in group.iterfind("vlan/tag")] == tags:
            continue
        for old in group.findall("vlan"):
            group.remove(old)
        if tags:
            ET.SubElement(ET.SubElement(group, "vlan"), "tag", id=tags[0])
        groups.append(group)
    return base, groups


def pool_xml(item: Mapping[str, Any], cluster: str) -> str:
    """Return the XML of a new directory pool."""
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = item["name"]
    ET.SubElement(root, "uuid").text = guest_uuid(cluster, f"pool {item['name']}")
    ET.SubElement(ET.SubElement(root, "target"), "path").text = item["path"]
    return ET.tostring(root, encoding="unicode")


class Hosting:
    """The networks and pools of one node; see the module virt_host for the items."""

    def __init__(
        self, networks: Sequence[Mapping[str, Any]], pools: Sequence[Mapping[str, Any]], cluster: str, uri: str
    ) -> None:
        self._networks = networks
        self._pools = pools
        self._cluster = cluster
        self._uri = uri
        self._connection: Any = None

    def read(self) -> Host:
        """Read all networks and pools."""
        if self._connection is None:
            self._connection = connect(self._uri)
        return Host(
            {it.name(): _kept(it) for it in explained(self._connection.listAllNetworks)},
            {it.name(): _kept(it) for it in explained(self._connection.listAllStoragePools)},
        )

    def blank(self) -> Host:
        """Return a node without any."""
        return Host({}, {})

    def plan(self, state: Host) -> Plan[Host]:
        """Plan the networks, then the pools."""
        networks, pools = dict(state.networks), dict(state.pools)
        plan: Plan[Host] = Plan(Host(networks, pools))
        for item in self._networks:
            networks[item["name"]] = self._plan_network(plan, item, networks.get(item["name"]))
        for item in self._pools:
            pools[item["name"]] = self._plan_pool(plan, item, pools.get(item["name"]))
        return plan

    def _plan_network(self, plan: Plan[Host], item: Mapping[str, Any], now: Optional[Kept]) -> Kept:
        name = item["name"]
        if now is None:
            now = Kept(network_xml(item, self._cluster), False, False)
            plan.steps.append(
                Step(f"define network {name} on bridge {item['bridge']}", partial(self._define_network, now.xml))
            )
        else:
            root = ET.fromstring(now.xml)
            base, groups = patch_network(root, item)
            xml = ET.tostring(root, encoding="unicode")
            if base:
                sentence = (
                    f"redefine network {name} on bridge {item['bridge']} and restart it; running guests stay plugged in"
                )
                plan.steps.append(Step(sentence, partial(self._redefine_network, name, xml, now.active)))
            elif groups:
                names = ", ".join(group.get("name", "") for group in groups)
                plan.steps.append(Step(f"set VLAN {names} of network {name}", partial(self._set_groups, name, groups)))
            now = replace(now, xml=xml)
        return self._plan_running(plan, f"network {name}", now, partial(self._network, name))

    def _plan_pool(self, plan: Plan[Host], item: Mapping[str, Any], now: Optional[Kept]) -> Kept:
        name, path = item["name"], item["path"]
        if now is None:
            now = Kept(pool_xml(item, self._cluster), False, False)
            plan.steps.append(Step(f"define pool {name} at {path}", partial(self._define_pool, item, now.xml)))
        elif ET.fromstring(now.xml).findtext("target/path") != path:
            found = ET.fromstring(now.xml).findtext("target/path")
            plan.refusals.append(f"pool {name} is at {found}, declared is {path}; virsh pool-undefine {name} first")
            return now
        return self._plan_running(
            plan, f"pool {name}", now, partial(self._pool, name), partial(self._make_folder, item)
        )

    def _plan_running(self, plan: Plan[Host], what: str, now: Kept, lookup: Any, before: Any = None) -> Kept:
        if not now.active:
            plan.steps.append(Step(f"start {what}", partial(_start, lookup, before)))
        if not now.autostart:
            plan.steps.append(Step(f"start {what} with libvirtd", partial(_autostart, lookup)))
        return Kept(now.xml, True, True)

    def view(self, state: Host) -> dict[str, Any]:
        """Return the declared networks and pools as plain data."""
        shown: dict[str, Any] = {"networks": {}, "pools": {}}
        for item in self._networks:
            if item["name"] in state.networks:
                kept = state.networks[item["name"]]
                root = ET.fromstring(kept.xml)
                shown["networks"][item["name"]] = {
                    "active": kept.active,
                    "autostart": kept.autostart,
                    "bridge": attribute(root, "bridge", "name"),
                    "portgroups": {
                        group.get("name"): [int(tag.get("id", "0")) for tag in group.iterfind("vlan/tag")]
                        for group in root.iterfind("portgroup")
                    },
                }
        for item in self._pools:
            if item["name"] in state.pools:
                kept = state.pools[item["name"]]
                path = ET.fromstring(kept.xml).findtext("target/path")
                shown["pools"][item["name"]] = {"active": kept.active, "autostart": kept.autostart, "path": path}
        return shown

    def _network(self, name: str) -> Any:
        return explained(self._connection.networkLookupByName, name)

    def _pool(self, name: str) -> Any:
        return explained(self._connection.storagePoolLookupByName, name)

    def _define_network(self, xml: str) -> None:
        explained(self._connection.networkDefineXML, xml)

    def _redefine_network(self, name: str, xml: str, active: bool) -> None:
        self._define_network(xml)
        if active:
            network = self._network(name)
            explained(network.destroy)
            explained(network.create)

    def _set_groups(self, name: str, groups: Sequence[ET.Element]) -> None:
        import libvirt

        network = self._network(name)
        known = portgroups(explained(network.XMLDesc))
        flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
        if explained(network.isActive):
            flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
        for group in groups:
            command = (
                libvirt.VIR_NETWORK_UPDATE_COMMAND_MODIFY
                if group.get("name") in known
                else libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
            )
            xml = ET.tostring(group, encoding="unicode")
            explained(network.update, command, libvirt.VIR_NETWORK_SECTION_PORTGROUP, -1, xml, flags)

    def _define_pool(self, item: Mapping[str, Any], xml: str) -> None:
        _check_mount(item)
        explained(self._connection.storagePoolDefineXML, xml)

    def _make_folder(self, item: Mapping[str, Any]) -> None:
        _check_mount(item)
        # Passed through by QEMU, listed by root alone.
        os.makedirs(item["path"], mode=0o711, exist_ok=True)


def _check_mount(item: Mapping[str, Any]) -> None:
    # Below an empty mount point the images would land on the system's disk, and vanish under the mount.
    if item["mount"] and not os.path.ismount(item["mount"]):
        raise ClusterError(f"pool {item['name']}: {item['mount']} is not mounted on this node; mount it first")


def _kept(it: Any) -> Kept:
    return Kept(explained(it.XMLDesc, INACTIVE), bool(explained(it.isActive)), bool(explained(it.autostart)))


def _start(lookup: Any, before: Any) -> None:
    if before is not None:
        before()
    explained(lookup().create)


def _autostart(lookup: Any) -> None:
    explained(lookup().setAutostart, 1)
