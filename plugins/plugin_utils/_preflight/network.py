# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, network cards and VLANs: as declared, and as they are on the hosts."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Data,
    Finding,
    Host,
    HostCheck,
    Site,
    mappings,
    no_mappings,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
TRUNK = "trunk"
VLAN_KEYS = {"address", "name", "tag"}
VLAN_NAME = re.compile(r"\S(.*\S)?")
VLAN_EXAMPLE = "{name: servers, tag: 101}"


def addresses_valid(site: Site) -> Iterator[Finding]:
    """The cluster network is one, and each address, the gateway's too, lies within it."""
    try:
        network = ipaddress.ip_network(str(site.settings["network"]))
    except ValueError as error:
        yield Finding(CLUSTER, "cluster_network", str(error), "write it as a network, 10.10.0.0/24 for example")
        return
    for host in site.hosts:
        found = _address_fault(host.address, network) if host.address else "it is not set"
        if found:
            remedy = f"give the host an address of {network}, or correct cluster_network"
            yield Finding(host.name, "cluster_address", found, remedy)
    gateway = site.settings.get("gateway")
    found = _address_fault(str(gateway), network) if gateway else ""
    if found:
        remedy = f"write the router's own address in {network}, without a prefix length; leave it out without a router"
        yield Finding(CLUSTER, "cluster_gateway", found, remedy)


def _address_fault(text: str, network: Network) -> str:
    """Say why ``text`` is no address of a host in the cluster network; an empty string when it is one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        return str(error)
    usable = address in network and address not in (network.network_address, network.broadcast_address)
    return "" if usable else f"{address} is no host address of cluster_network {network}"


def name_servers_valid(site: Site) -> Iterator[Finding]:
    """Name servers are a list of addresses: by name none of them could be found."""
    servers = site.settings["dns"]
    if not isinstance(servers, list):
        yield Finding(CLUSTER, "cluster_dns", f"{servers!r} is no list", "write it as a list: [10.10.0.1]")
        return
    for index, server in enumerate(servers):
        try:
            ipaddress.ip_address(str(server))
        except ValueError:
            yield Finding(
                CLUSTER,
                f"cluster_dns[{index}]",
                f"{server!r} is no IPv4 or IPv6 address",
                "write the name server's address, without a prefix length",
            )


def addresses_distinct(site: Site) -> Iterator[Finding]:
    """No address is used twice, the gateway's included."""
    users: dict[str, list[str]] = {}
    gateway = str(site.settings.get("gateway") or "")
    if gateway:
        users[gateway] = ["the gateway"]
    for host in site.hosts:
        if host.address:
            users.setdefault(host.address, []).append(host.name)
    for address, names in users.items():
        for name in names[1:]:
            yield Finding(
                name,
                "cluster_address",
                f"{address} belongs to {names[0]} already",
                "give every host an address of its own, and none of them cluster_gateway",
            )


def nics_declared(site: Site) -> Iterator[Finding]:
    """Every node names a card for each bridge that is asked for, and no card twice."""
    for host in site.nodes:
        declared = host.declared.get("nics") or {}
        if not isinstance(declared, Mapping):
            example = ", ".join(f"{bridge}: CARD" for bridge in site.settings["bridges"])
            yield Finding(
                host.name,
                "cluster_nics",
                f"{declared!r} is no mapping",
                f"write it as {{{example}}}, each CARD a MAC address in quotes or a name",
            )
            continue
        for bridge in site.settings["bridges"]:
            if bridge in host.nics:
                continue
            yield Finding(
                host.name,
                f"cluster_nics.{bridge}",
                _card_fault(declared.get(bridge)),
                "name the card that is plugged into this bridge's switch, by MAC address in quotes or by name",
            )
        known = list(dict.fromkeys([*site.settings["bridges"], *site.settings["networks"]]))
        for bridge in declared:
            if bridge not in known:
                yield Finding(
                    host.name,
                    f"cluster_nics.{bridge}",
                    "there is no such bridge, and one would be made",
                    f"use {', '.join(known)} only; hypervisor_bridges declares more",
                )
        for nic, times in Counter(host.nics.values()).items():
            if times > 1:
                yield Finding(
                    host.name, "cluster_nics", f"{nic} is named {times} times", "each card belongs to one bridge"
                )


def _card_fault(card: Any) -> str:
    """Say why what is declared for a bridge, which is no text, is no network card."""
    if isinstance(card, list):
        return "a list is declared, and a bridge takes one card"
    if isinstance(card, int | float) and not isinstance(card, bool):
        # YAML takes 11:22:33:44:55:16 for a number to the base of 60.
        return f"a number is declared, {card}: without quotes, YAML takes some MAC addresses for one"
    return f"{card!r} is no network card" if card else "no network card is declared"


def vlans_valid(site: Site) -> Iterator[Finding]:
    """Names and tags of the VLANs are valid and distinct."""
    declared = site.settings["vlans"]
    vlans = mappings("cluster_vlans", declared)
    yield from no_mappings(CLUSTER, "cluster_vlans", declared, VLAN_EXAMPLE)
    for place, vlan in vlans:
        yield from _vlan_valid(place, vlan)
    for key in ("name", "tag"):
        used = Counter(str(vlan[key]) for _place, vlan in vlans if vlan.get(key))
        for value, times in used.items():
            if times > 1:
                yield Finding(CLUSTER, "cluster_vlans", f"{key} {value} is used {times} times", "use each only once")


def _vlan_valid(place: str, vlan: Data) -> Iterator[Finding]:
    tag, name = vlan.get("tag"), vlan.get("name")
    for key in sorted(set(vlan) - VLAN_KEYS):
        yield Finding(CLUSTER, f"{place}.{key}", "a VLAN has no such key", "use name, tag and address only")
    if not isinstance(tag, int) or isinstance(tag, bool) or not 1 <= tag <= 4094:
        remedy = "use a number from 1 to 4094, without quotes"
        yield Finding(CLUSTER, f"{place}.tag", f"{tag!r} is no VLAN tag", remedy)
    if not isinstance(name, str) or not VLAN_NAME.fullmatch(name):
        yield Finding(
            CLUSTER,
            f"{place}.name",
            f"{name!r} is no name",
            "give the VLAN a name of one line, by which guests choose it",
        )
    elif name == TRUNK:
        yield Finding(
            CLUSTER, f"{place}.name", f"{TRUNK} is the portgroup that carries all VLANs", "choose another name"
        )


def vlan_addresses(site: Site) -> Iterator[Finding]:
    """What addresses the nodes have in VLANs is an address with its prefix length, and each node's own."""
    users: dict[str, str] = {}
    for host in site.nodes:
        for place, vlan in mappings("cluster_vlans", host.declared.get("vlans")):
            text = str(vlan.get("address") or "")
            found = _interface_fault(text) if text else ""
            if text and not found:
                address = str(ipaddress.ip_interface(text).ip)
                user = users.setdefault(address, host.name)
                found = f"{address} belongs to {user} already" if user != host.name else ""
            if found:
                yield Finding(
                    host.name,
                    f"{place}.address",
                    found,
                    "write an address with its prefix length, 10.20.0.11/24 for example, and let a variable of each "
                    "node make it another one there; or leave it out: guests do not need it",
                )


def _interface_fault(text: str) -> str:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError as error:
        return str(error)
    if "/" not in text:
        return f"{text}: it has no prefix length"
    network = interface.network
    if network.num_addresses > 2 and interface.ip in (network.network_address, network.broadcast_address):
        return f"{interface.ip} is no host address of {network}"
    return ""


def nics_present(host: Host, settings: Data) -> Iterator[Finding]:
    """Each declared network card exists, and no two declarations mean the same one."""
    physical = {name: about["mac"] for name, about in host.node["interfaces"].items() if about["physical"]}
    users: dict[str, str] = {}
    for bridge, card in host.nics.items():
        names = [name for name, mac in physical.items() if card in (name.lower(), mac)]
        if not names:
            kind = "MAC address" if MAC.fullmatch(card) else "name"
            there = ", ".join(f"{name} {mac}" for name, mac in sorted(physical.items()))
            yield Finding(
                host.name,
                f"cluster_nics.{bridge}",
                f"no network card has the {kind} {card}",
                f"the cards of this host are: {there or 'none'}",
            )
        for name in names:
            first = users.setdefault(name, bridge)
            if first != bridge:
                yield Finding(
                    host.name,
                    f"cluster_nics.{bridge}",
                    f"{card} is {name}, which {first} has already",
                    "each bridge needs a card of its own",
                )


def address_in_place(host: Host, settings: Data) -> Iterator[Finding]:
    """The address is where the network layer takes it from; once there is br0, that layer keeps it there."""
    interfaces: Data = host.node["interfaces"]
    try:
        network = ipaddress.ip_network(str(settings["network"]))
    except ValueError:
        return
    if "br0" in interfaces or _address_fault(host.address, network):
        return
    address = str(ipaddress.ip_address(host.address))
    holders = [name for name, about in interfaces.items() if address in about["addresses"]]
    card = host.nics.get("br0")
    if not holders:
        others = (f"{name} {other}" for name, about in interfaces.items() for other in about["addresses"])
        there = ", ".join(text for text in others if not text.startswith("lo ") and " fe80:" not in text)
        yield Finding(
            host.name,
            "cluster_address",
            f"no interface has {address}; there are: {there or 'none'}",
            "give the card on the switch of cluster_network that address, or correct cluster_address",
        )
    elif card and all(interfaces[name]["physical"] for name in holders):
        cards = {name: interfaces[name]["mac"] for name in holders}
        if not any(card in (name.lower(), mac) for name, mac in cards.items()):
            shown = ", ".join(f"{name} {mac}" for name, mac in cards.items())
            yield Finding(
                host.name,
                "cluster_nics.br0",
                f"{address} is on {shown}, and {card} is declared",
                "declare the card that has the address for br0, or give the address to the declared one",
            )


SITE_CHECKS: tuple[Check, ...] = (
    addresses_valid,
    addresses_distinct,
    name_servers_valid,
    nics_declared,
    vlans_valid,
    vlan_addresses,
)
HOST_CHECKS: tuple[HostCheck, ...] = (address_in_place,)
NODE_CHECKS: tuple[HostCheck, ...] = (nics_present,)
