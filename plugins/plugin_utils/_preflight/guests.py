# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared guests: whatever the hypervisor layer would refuse when everything else is built."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import parse_size
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.modules.virt_domain import DISK as GUEST_DISK
from ansible_collections.personal.cluster.plugins.modules.virt_domain import DOMAIN, NIC
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Data,
    Finding,
    Site,
    mappings,
    no_mappings,
)
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.network import TRUNK, VLAN_EXAMPLE

GUEST: dict[str, Any] = {**DOMAIN, "node": {"type": "str", "required": True}}
GUEST_NAME = re.compile(r"[^\s/]([^\n/]*[^\s/])?")
GUEST_EXAMPLES = {
    "guest": "{name: web, node: node1, memory: 4G, vcpus: 2, disks: [{pool: gv0, size: 20G}], nics: [{network: br0}]}",
    "disk": "{pool: gv0, size: 20G}",
    "network card": "{network: br0}",
}


def guests_valid(site: Site) -> Iterator[Finding]:
    """The guests are such that the hypervisor layer takes them: it comes when everything else is built."""
    declared = site.settings["guests"]
    guests = mappings("cluster_guests", declared)
    yield from no_mappings(CLUSTER, "cluster_guests", declared, GUEST_EXAMPLES["guest"])
    for place, guest in guests:
        yield from _guest_valid(site, place, guest)
    for name, times in Counter(str(guest["name"]) for _place, guest in guests if guest.get("name")).items():
        if times > 1:
            yield Finding(CLUSTER, "cluster_guests", f"{times} guests are named {name}", "give each its own name")


def _guest_valid(site: Site, place: str, guest: Data) -> Iterator[Finding]:
    name, node = guest.get("name"), guest.get("node")
    nodes = site.settings["nodes"]
    yield from _options_valid(place, "guest", guest, GUEST)
    if not isinstance(name, str) or not GUEST_NAME.fullmatch(name):
        yield Finding(
            CLUSTER, f"{place}.name", f"{name!r} is no name", "give it a name of one line and without slashes"
        )
    if not node or (node not in nodes and guest.get("state") != "absent"):
        found = f"{node!r} is no host of group nodes" if node else "it is not set"
        yield Finding(CLUSTER, f"{place}.node", found, _one_of(nodes, "the inventory group `nodes` has them"))
    pools = [pool.get("name") for _place, pool in mappings("", site.settings["pools"])]
    for where, disk in _parts(place, guest, "disks"):
        yield from _options_valid(where, "disk", disk, GUEST_DISK, GUEST["disks"])
        pool = disk.get("pool")
        if pool and pools and pool not in pools:
            remedy = _one_of(pools, "hypervisor_pools declares them")
            yield Finding(CLUSTER, f"{where}.pool", f"{pool!r} is no pool", remedy)
    for where, nic in _parts(place, guest, "nics"):
        yield from _options_valid(where, "network card", nic, NIC)
        yield from _guest_nic_valid(site, where, nic)
    for key, what in (("disks", "disk"), ("nics", "network card")):
        yield from no_mappings(CLUSTER, f"{place}.{key}", guest.get(key), GUEST_EXAMPLES[what])


def _one_of(names: Sequence[Any], source: str) -> str:
    """Return a remedy that lists what there is; where there is nothing, it says where that comes from."""
    return f"name one of {', '.join(map(str, names))}; {source}" if names else f"name one; {source}, and it is empty"


def _parts(place: str, guest: Data, key: str) -> list[tuple[str, Data]]:
    return mappings(f"{place}.{key}", guest.get(key))


def _options_valid(place: str, what: str, item: Data, spec: Data, rules: Data | None = None) -> Iterator[Finding]:
    """Whether virt_domain takes ``item``; what has a check of its own with better words is left out."""
    for key in sorted(set(map(str, item)) - set(spec)):
        remedy = "`ansible-doc personal.cluster.virt_domain` shows which there are"
        yield Finding(CLUSTER, f"{place}.{key}", f"a {what} has no such key", remedy)
    for key, option in spec.items():
        if key in item and item[key] is None and option.get("default") is not None:
            yield Finding(CLUSTER, f"{place}.{key}", "it is left empty", "leave it out and have the default")
    own = {"name", "node", "disks", "nics", "network"} if what != "disk" else set()
    plain = {key: {**option, "required": False} for key, option in spec.items() if key not in own}
    groups = {rule: (rules or {}).get(rule) for rule in ("mutually_exclusive", "required_one_of")}
    given = {key: item[key] for key in plain if item.get(key) is not None}
    for message in ArgumentSpecValidator(plain, **groups).validate(given).error_messages:
        yield Finding(CLUSTER, place, message, f"write it like {GUEST_EXAMPLES[what]}")
    for key in ("memory", "size"):
        try:
            parse_size(str(given.get(key, "1G")))
        except ClusterError as error:
            yield Finding(CLUSTER, f"{place}.{key}", str(error), "powers of 1024 are meant: K, M, G or T")


def _guest_nic_valid(site: Site, place: str, nic: Data) -> Iterator[Finding]:
    network, vlan = nic.get("network"), nic.get("vlan")
    networks, bridge = site.settings["networks"], site.settings["vlan_bridge"]
    if network not in networks:
        found = f"{network!r} is no network" if network else "it is not set"
        remedy = _one_of(networks, "hypervisor_bridges declares them")
        yield Finding(CLUSTER, f"{place}.network", found, remedy)
    elif network != bridge:
        if vlan:
            yield Finding(
                CLUSTER, f"{place}.vlan", f"{network} has no VLANs", f"leave it out, or take network {bridge}"
            )
    # VLANs are told by nodes, of which a run may look at none.
    elif site.nodes and not any(no_mappings(CLUSTER, "cluster_vlans", site.settings["vlans"], VLAN_EXAMPLE)):
        vlans = [*(str(item.get("name")) for _place, item in mappings("", site.settings["vlans"])), TRUNK]
        if vlan not in vlans:
            found = f"{vlan!r} is no VLAN" if vlan else "it is not set"
            yield Finding(CLUSTER, f"{place}.vlan", found, _one_of(vlans, "cluster_vlans declares them"))


SITE_CHECKS: tuple[Check, ...] = (guests_valid,)
