# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what preflight found on all hosts: every finding names the host, the variable and the remedy."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import parse_size
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.modules.virt_domain import DISK as GUEST_DISK
from ansible_collections.personal.cluster.plugins.modules.virt_domain import DOMAIN, NIC

Data = Mapping[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What a disk's name follows in the names of LUKS devices and in their labels.
MAPPER = "luks-"
# With that before it, a disk's name must fit into a LUKS label of 47 bytes; it also becomes part of the names of
# volume groups, systemd units and mount points, and of lines of crypttab and fstab.
DISK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,41}")
DISK_KEYS = {"device", "name", "volume"}
COPIES = 3
# Beyond these, data is lost or given up, a guest stays frozen, a daemon never starts or never rests.
RANGES = {
    "storage_pool_percent": (1, 100),
    "storage_volume_percent": (1, 100),
    "storage_autoextend_threshold": (50, 100),
    "storage_autoextend_percent": (1, 100),
    "storage_brick_wait": (1, 86400),
    "storage_mount_wait": (1, 86400),
    "storage_base_port": (1024, 60900),
    "backup_keep_daily": (1, 36500),
    "backup_keep_within_days": (0, 36500),
    "backup_freeze_limit": (1, 600),
    "backup_capture_limit": (60, 604800),
    "telemetry_collect_interval": (10, 3600),
    "telemetry_collect_timeout": (1, 600),
}
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
PLACEHOLDER = re.compile(
    r"<.*>|.*(change.?me|placeholder|todo|xxxx|your.?pass|example).*|(pass|secret|password)\d*", re.I
)
SECRET_LENGTH = 12
CLUSTER = "cluster"
TRUNK = "trunk"
VLAN_KEYS = {"address", "name", "tag"}
VLAN_NAME = re.compile(r"\S(.*\S)?")
VLAN_EXAMPLE = "{name: servers, tag: 101}"
DISK_EXAMPLE = "{device: /dev/disk/by-id/NAME, volume: gv0}"
VOLUME_EXAMPLE = "{name: gv0}"
# It becomes part of the certificate authority's name, of which X.509 allows 64 characters.
CLUSTER_NAME = re.compile(r"\S(.{0,45}\S)?")
GUEST: dict[str, Any] = {**DOMAIN, "node": {"type": "str", "required": True}}
GUEST_NAME = re.compile(r"[^\s/]([^\n/]*[^\s/])?")
GUEST_EXAMPLES = {
    "guest": "{name: web, node: node1, memory: 4G, vcpus: 2, disks: [{pool: gv0, size: 20G}], nics: [{network: br0}]}",
    "disk": "{pool: gv0, size: 20G}",
    "network card": "{network: br0}",
}


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way: where, which variable, what was found, what to do."""

    host: str
    variable: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Disk:
    """One element of cluster_disks, with its place in the list."""

    place: str
    device: str
    name: str
    volume: str
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Volume:
    """One Gluster volume as declared; ``allow`` is what gluster_volume would refuse otherwise."""

    name: str
    copies: int
    allow: Sequence[str]


@dataclass(frozen=True)
class Host:
    """One host: what the inventory declares for it, and what was found there (empty when it was not looked at)."""

    name: str
    declared: Data
    node: Data
    clock: Data
    problem: str

    @property
    def address(self) -> str:
        """The host's address in the cluster network, as declared."""
        return str(self.declared.get("address") or "")

    @property
    def disks(self) -> list[Disk]:
        """The declared disks that are mappings; one without device or volume has empty ones."""
        return [_disk(place, item) for place, item in _mappings("cluster_disks", self.declared.get("disks"))]

    @property
    def nics(self) -> dict[str, str]:
        """By bridge the declared network card, lower case; without bridges whose card is no name or address."""
        declared = self.declared.get("nics")
        nics = declared.items() if isinstance(declared, Mapping) else ()
        return {str(bridge): nic.lower() for bridge, nic in nics if nic and isinstance(nic, str)}


def _mappings(variable: str, declared: Any) -> list[tuple[str, Data]]:
    """Return what a list that was declared has of mappings, each with its place."""
    items = enumerate(declared) if isinstance(declared, list) else ()
    return [(f"{variable}[{index}]", item) for index, item in items if isinstance(item, Mapping)]


def _no_mappings(host: str, variable: str, declared: Any, example: str) -> list[Finding]:
    """Return a finding for whatever keeps ``declared`` from being a list of mappings; nothing declared is one."""
    if not isinstance(declared, list | None):
        return [Finding(host, variable, f"{declared!r} is no list", f"write it as a list: [{example}]")]
    return [
        Finding(host, f"{variable}[{index}]", f"{item!r} is no mapping", f"write it as {example}")
        for index, item in enumerate(declared or [])
        if not isinstance(item, Mapping)
    ]


def _disk(place: str, about: Data) -> Disk:
    return Disk(
        place,
        str(about.get("device") or ""),
        str(about.get("name") or about.get("volume") or ""),
        str(about.get("volume") or ""),
        tuple(sorted(set(about) - DISK_KEYS)),
    )


@dataclass(frozen=True)
class Site:
    """All hosts and what is asked of them."""

    nodes: Sequence[Host]
    tang: Sequence[Host]
    settings: Data

    @property
    def hosts(self) -> list[Host]:
        """Nodes and tang hosts, each once."""
        nodes = {host.name for host in self.nodes}
        return [*self.nodes, *(host for host in self.tang if host.name not in nodes)]

    @property
    def volumes(self) -> list[Volume]:
        """The declared Gluster volumes, in their order."""
        return [
            Volume(str(item.get("name") or ""), _whole(item.get("replica") or COPIES) or 0, item.get("allow") or [])
            for _place, item in _mappings("storage_volumes", self.settings["volumes"])
        ]

    @property
    def volume_names(self) -> list[str]:
        """Everything that needs a disk on every node: the Gluster volumes, and what is local to each node."""
        return [*(volume.name for volume in self.volumes if volume.name), *self.settings["local_volumes"]]


Check = Callable[[Site], Iterator[Finding]]
HostCheck = Callable[[Host, Data], Iterator[Finding]]


def _whole(value: Any) -> int | None:
    """Return a number as Ansible's modules would take it; None for what is no whole number."""
    return int(value) if isinstance(value, int | str) and re.fullmatch(r"-?[0-9]+", str(value)) else None


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


# What the inventory says, whatever the hosts are like


def count_of_nodes(site: Site) -> Iterator[Finding]:
    """An odd number of nodes, three at least: fewer have no majority when one is gone."""
    count = len(site.settings["nodes"])
    if count < 3 or count % 2 == 0:
        yield Finding(
            CLUSTER,
            "group nodes",
            f"it has {count} hosts",
            "put three nodes into the inventory group `nodes`; an even number has no majority",
        )


def names_valid(site: Site) -> Iterator[Finding]:
    """Inventory names become host names: letters, digits and hyphens only."""
    for host in site.hosts:
        if not all(LABEL.fullmatch(label) for label in host.name.split(".")):
            yield Finding(
                host.name,
                "inventory_hostname",
                "it is no valid host name",
                "rename it in the inventory: lower case letters, digits and hyphens",
            )


def names_of_the_cluster(site: Site) -> Iterator[Finding]:
    """The cluster has a name, and a directory of its own for its certificate authority."""
    name, directory = site.settings["cluster_name"], site.settings["state_dir"]
    if not isinstance(name, str | int) or not CLUSTER_NAME.fullmatch(str(name)):
        yield Finding(
            CLUSTER,
            "cluster_name",
            f"{name!r} is no name" if name else "it is empty or not set",
            "give the cluster a name of one line and at most 47 characters, and never change it",
        )
    if not isinstance(directory, str) or not directory.strip().strip("/"):
        yield Finding(
            CLUSTER,
            "cluster_state_dir",
            f"{directory!r} is no directory of its own" if directory else "it is empty or not set",
            "name a directory on the computer that runs Ansible, for the certificate authority and the nodes' keys",
        )


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


def disks_declared(site: Site) -> Iterator[Finding]:
    """Each disk has a stable device, a name and a volume that can be used, and is named once."""
    volumes = [] if any(volumes_readable(site)) else site.volume_names
    for host in site.nodes:
        declared = host.declared.get("disks")
        if not declared:
            yield Finding(host.name, "cluster_disks", "no disk is declared", "list the data disks of this node")
            continue
        yield from _no_mappings(host.name, "cluster_disks", declared, DISK_EXAMPLE)
        for disk in host.disks:
            yield from _disk_declared(host.name, disk, volumes)
        for name, times in Counter(disk.name for disk in host.disks if disk.name).items():
            if times > 1:
                yield Finding(
                    host.name,
                    "cluster_disks",
                    f"{times} disks are named {name}",
                    "give each disk of the same volume a `name` of its own",
                )


def _disk_declared(host: str, disk: Disk, volumes: Sequence[str]) -> Iterator[Finding]:
    known = ", ".join(volumes) or "one of storage_volumes"
    for key in disk.unknown:
        yield Finding(host, f"{disk.place}.{key}", "a disk has no such key", "use device, volume and name only")
    if not disk.volume:
        yield Finding(host, f"{disk.place}.volume", "it is not set", f"name the volume: {known}")
    elif volumes and disk.volume not in volumes:
        yield Finding(
            host,
            f"{disk.place}.volume",
            f"no volume {disk.volume!r} is declared",
            f"name one of {known}; storage_volumes declares more, preflight_local_volumes those of a node alone",
        )
    if disk.name and not DISK_NAME.fullmatch(disk.name):
        yield Finding(
            host,
            f"{disk.place}.name",
            f"{disk.name!r} cannot name an encrypted disk, a volume group and a mount point",
            "use at most 42 lower case letters, digits, hyphens and underscores, a letter or digit first",
        )
    if disk.name != disk.volume and disk.name in volumes:
        yield Finding(
            host,
            f"{disk.place}.name",
            f"{disk.name} is the name of another volume than the disk's, {disk.volume or 'which is not set'}",
            "choose another name",
        )
    if not disk.device.startswith("/dev/disk/by-id/"):
        yield Finding(
            host,
            f"{disk.place}.device",
            f"{disk.device or 'nothing'} is not a stable name, at the next boot it may be another disk",
            "name the disk as `ls -l /dev/disk/by-id/` on the node shows it",
        )


def volumes_have_disks(site: Site) -> Iterator[Finding]:
    """Every node has disks for every volume; one disk of a local volume bears its name, by which it is mounted."""
    for host in site.nodes:
        missing = [name for name in site.volume_names if name not in {disk.volume for disk in host.disks}]
        unclear = any(_no_mappings(host.name, "cluster_disks", host.declared.get("disks"), DISK_EXAMPLE))
        if host.disks and missing and not unclear:
            yield Finding(
                host.name,
                "cluster_disks",
                f"there is no disk for {', '.join(missing)}",
                "declare one disk at least for each volume on every node",
            )
        for name in site.settings["local_volumes"]:
            names = [disk.name for disk in host.disks if disk.volume == name]
            if names and name not in names:
                yield Finding(
                    host.name,
                    "cluster_disks",
                    f"no disk for {name} is named {name}, and a local disk is mounted by its name",
                    f"leave the `name` of one disk for {name} out",
                )


def volumes_readable(site: Site) -> Iterator[Finding]:
    """The Gluster volumes are a list of mappings."""
    declared = site.settings["volumes"]
    if declared is None:
        yield Finding(
            CLUSTER,
            "storage_volumes",
            "it is left empty",
            f"leave it out and have the default, or write it as a list: [{VOLUME_EXAMPLE}]",
        )
    yield from _no_mappings(CLUSTER, "storage_volumes", declared, VOLUME_EXAMPLE)


def volumes_buildable(site: Site) -> Iterator[Finding]:
    """The bricks of each volume, in the order in which storage takes them, make whole sets that span hosts."""
    for volume in site.volumes:
        if not DISK_NAME.fullmatch(volume.name):
            yield Finding(
                CLUSTER, "storage_volumes", f"{volume.name!r} cannot name a volume", "name it like gv0 or gv1"
            )
            continue
        if volume.copies < COPIES and "replica_change" not in volume.allow:
            yield Finding(
                CLUSTER,
                "storage_volumes",
                f"{volume.name} has replica {volume.copies}: too few copies to tell which one is right",
                "take `replica: 3`; with `arbiter: 1` one of the three holds names only",
            )
        counts = {host.name: sum(disk.volume == volume.name for disk in host.disks) for host in site.nodes}
        # What misses is a finding already, and of what --limit leaves out nothing is known.
        complete = all(counts.values()) and len(counts) == len(site.settings["nodes"])
        if complete and volume.copies > 0 and not any(count_of_nodes(site)):
            yield from _bricks_make_sets(volume, counts)


def _bricks_make_sets(volume: Volume, counts: Mapping[str, int]) -> Iterator[Finding]:
    hosts = [host for number in range(max(counts.values())) for host, count in counts.items() if count > number]
    sets = [hosts[start : start + volume.copies] for start in range(0, len(hosts), volume.copies)]
    found = ""
    if len(hosts) % volume.copies:
        found = "no multiple of that"
    elif any(len(set(members)) < len(members) for members in sets):
        found = "two copies would be on the same node"
    if found:
        listed = ", ".join(f"{host} has {count}" for host, count in counts.items())
        yield Finding(
            CLUSTER,
            "cluster_disks",
            f"the disks for {volume.name} do not make sets of {volume.copies} on different nodes, {found}: {listed}",
            f"declare the same number of disks for {volume.name} on each of {volume.copies} nodes",
        )


def numbers_in_range(site: Site) -> Iterator[Finding]:
    """Percentages and limits are such that no harm follows; those that are not set have a role's default."""
    for variable, (low, high) in RANGES.items():
        value = site.settings["numbers"].get(variable)
        number = None if isinstance(value, bool) else _whole(value)
        if value is not None and (number is None or not low <= number <= high):
            yield Finding(
                CLUSTER,
                variable,
                f"{value!r} is no whole number from {low} to {high}",
                "correct it, or leave it out and have the default",
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
    vlans = _mappings("cluster_vlans", declared)
    yield from _no_mappings(CLUSTER, "cluster_vlans", declared, VLAN_EXAMPLE)
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
        for place, vlan in _mappings("cluster_vlans", host.declared.get("vlans")):
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


def guests_valid(site: Site) -> Iterator[Finding]:
    """The guests are such that the hypervisor layer takes them: it comes when everything else is built."""
    declared = site.settings["guests"]
    guests = _mappings("cluster_guests", declared)
    yield from _no_mappings(CLUSTER, "cluster_guests", declared, GUEST_EXAMPLES["guest"])
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
        yield Finding(CLUSTER, f"{place}.node", found, f"name one of {', '.join(nodes)}")
    pools = [pool.get("name") for _place, pool in _mappings("", site.settings["pools"])]
    for where, disk in _parts(place, guest, "disks"):
        yield from _options_valid(where, "disk", disk, GUEST_DISK, GUEST["disks"])
        pool = disk.get("pool")
        if pool and pools and pool not in pools:
            remedy = f"name one of {', '.join(map(str, pools))}; hypervisor_pools declares more"
            yield Finding(CLUSTER, f"{where}.pool", f"{pool!r} is no pool", remedy)
    for where, nic in _parts(place, guest, "nics"):
        yield from _options_valid(where, "network card", nic, NIC)
        yield from _guest_nic_valid(site, where, nic)
    for key, what in (("disks", "disk"), ("nics", "network card")):
        yield from _no_mappings(CLUSTER, f"{place}.{key}", guest.get(key), GUEST_EXAMPLES[what])


def _parts(place: str, guest: Data, key: str) -> list[tuple[str, Data]]:
    return _mappings(f"{place}.{key}", guest.get(key))


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
        remedy = f"name one of {', '.join(networks)}; hypervisor_bridges declares more"
        yield Finding(CLUSTER, f"{place}.network", found, remedy)
    elif network != bridge:
        if vlan:
            yield Finding(
                CLUSTER, f"{place}.vlan", f"{network} has no VLANs", f"leave it out, or take network {bridge}"
            )
    elif not any(_no_mappings(CLUSTER, "cluster_vlans", site.settings["vlans"], VLAN_EXAMPLE)):
        vlans = [*(str(item.get("name")) for _place, item in _mappings("", site.settings["vlans"])), TRUNK]
        if vlan not in vlans:
            found = f"{vlan!r} is no VLAN" if vlan else "it is not set"
            remedy = f"name one of {', '.join(vlans)}; cluster_vlans declares them"
            yield Finding(CLUSTER, f"{place}.vlan", found, remedy)


def secrets_present(site: Site) -> Iterator[Finding]:
    """The secrets are there, and nobody left the example's text in them. Their values never show."""
    for variable, value in site.settings["secrets"].items():
        text = str(value or "")
        found = ""
        if not text.strip():
            found = "it is empty or not set"
        elif PLACEHOLDER.fullmatch(text.strip()):
            found = "it still holds a placeholder"
        elif len(text) < SECRET_LENGTH:
            found = f"it is shorter than {SECRET_LENGTH} characters"
        elif "\n" in text:
            found = "it has more than one line"
        if found:
            yield Finding(
                CLUSTER,
                variable,
                found,
                "write what `openssl rand -base64 24` prints with `ansible-vault edit YOUR-INVENTORY/group_vars/all/"
                "vault.yml` (the first time edit the file as it is, then `ansible-vault encrypt` it); keep a copy "
                "outside the cluster",
            )


# What was found on the hosts


def reachable(host: Host, settings: Data) -> Iterator[Finding]:
    """The host could be looked at."""
    if host.problem:
        yield Finding(
            host.name,
            "ansible_host",
            host.problem,
            "make it answer first: address, ssh key, sudo, python3; the test is "
            f"`ansible -i YOUR-INVENTORY --ask-vault-pass -b -m ansible.builtin.ping {host.name}`",
        )


def privileges(host: Host, settings: Data) -> Iterator[Finding]:
    """The module ran as root, and apt can be driven from Python."""
    if not host.node["root"]:
        yield Finding(
            host.name, "ansible_become", "the tasks do not run as root", "set ansible_become, or log in as root"
        )
    if not host.node["python_apt"]:
        yield Finding(
            host.name,
            "ansible_python_interpreter",
            "the Python that Ansible uses there has no apt bindings",
            "run `apt-get install python3-apt` on the host, and let Ansible use /usr/bin/python3",
        )


def release_supported(host: Host, settings: Data) -> Iterator[Finding]:
    """The host runs a Debian that this collection is tested on."""
    release = host.node["release"]
    if release["id"] != "debian" or release["version_id"] not in settings["releases"]:
        yield Finding(
            host.name,
            "preflight_releases",
            f"it runs {release['id']} {release['version_id']}".strip(),
            f"install Debian {' or '.join(settings['releases'])} there",
        )


def own_name(host: Host, settings: Data) -> Iterator[Finding]:
    """The host calls itself what the inventory calls it: storage and guests find each other by these names."""
    name = host.node["hostname"]
    if name.split(".")[0] != host.name.split(".")[0]:
        yield Finding(
            host.name,
            "inventory_hostname",
            f"the host calls itself {name}",
            f"run `hostnamectl set-hostname {host.name}` there, or rename it in the inventory",
        )


def memory_enough(host: Host, settings: Data) -> Iterator[Finding]:
    """There is memory for the layers, before the first guest."""
    if host.node["memory_mib"] < settings["memory_min_mib"]:
        yield Finding(
            host.name,
            "preflight_memory_min_mib",
            f"{host.node['memory_mib']} MiB of memory, {settings['memory_min_mib']} are needed",
            "put more memory into the node; what guests need comes on top",
        )


def kvm_present(host: Host, settings: Data) -> Iterator[Finding]:
    """The processor's virtualisation is switched on, where guests are to use it."""
    if settings["kvm"] and not host.node["kvm"]:
        yield Finding(
            host.name,
            "cluster_domain_type",
            "there is no /dev/kvm",
            "switch on VT-x or AMD-V (SVM) in the firmware setup; emulated guests need cluster_domain_type: qemu",
        )


def clock_in_step(host: Host, settings: Data) -> Iterator[Finding]:
    """The clock is surely not further from the controller's than allowed."""
    away = max(host.clock["low"], -host.clock["high"])
    if away > settings["clock_limit"]:
        side = "ahead of" if host.clock["low"] > 0 else "behind"
        yield Finding(
            host.name,
            "preflight_clock_limit",
            f"its clock is at least {away:.0f} s {side} the controller's, {settings['clock_limit']} s are allowed",
            "set it right: `timedatectl` on the host shows it, `timedatectl set-ntp true` lets the network set it",
        )


def disks_usable(host: Host, settings: Data) -> Iterator[Finding]:
    """Each disk is present, whole, big enough, and blank or already ours."""
    users: dict[str, str] = {}
    for disk in host.disks:
        seen = host.node["disks"].get(disk.device)
        if not disk.device.startswith("/dev/disk/by-id/"):
            continue
        if seen is None:
            yield Finding(
                host.name,
                f"{disk.place}.device",
                f"{disk.device} does not exist there",
                "compare with `ls -l /dev/disk/by-id/` on the node; is the disk plugged in?",
            )
            continue
        yield from _disk_usable(host.name, disk, seen, settings)
        first = users.setdefault(seen["kernel_name"], disk.place)
        if first != disk.place:
            yield Finding(
                host.name,
                f"{disk.place}.device",
                f"{disk.device} is the same disk as {first}: {seen['kernel_name']}",
                "declare each disk only once",
            )


def _disk_usable(host: str, disk: Disk, seen: Data, settings: Data) -> Iterator[Finding]:
    variable = f"{disk.place}.device"
    shown = f"{disk.device} ({seen['kernel_name']})"
    if "/" in seen["mounts"]:
        yield Finding(host, variable, f"{shown} carries the running system", "name another disk")
        return
    if seen["type"] == "part":
        yield Finding(host, variable, f"{shown} is a partition", "name a whole disk")
    if seen["unreadable"]:
        yield Finding(host, variable, f"{shown} cannot be read: {seen['unreadable']}", "replace the disk or its cable")
        return
    if seen["read_only"]:
        yield Finding(host, variable, f"{shown} is read-only", "name a disk that can be written")
    if seen["size"] < settings["disk_min_bytes"]:
        yield Finding(
            host,
            variable,
            f"{shown} has {_size(seen['size'])}, {_size(settings['disk_min_bytes'])} are needed",
            "name a bigger disk, or lower preflight_disk_min_bytes",
        )
    label = str((seen["luks"] or {}).get("label") or "")
    if disk.name and label.startswith(MAPPER) and label != MAPPER + disk.name:
        yield Finding(
            host,
            variable,
            f"{shown} is another disk of a cluster: it is labelled {label}, and {disk.name} is declared",
            "let `device` name the disk that is meant; disks keep the `name` that they were given first",
        )
        return
    found = _strangers(disk, seen)
    if found:
        yield Finding(
            host,
            variable,
            f"{shown} is neither blank nor a disk of this cluster: {found}",
            "name another disk; if nothing on this one is needed any more, unmount it and erase it yourself: "
            f"`wipefs --all {disk.device}`",
        )


def _strangers(disk: Disk, seen: Data) -> str:
    """Say what is on a disk that this cluster did not put there; an empty string when it is blank or ours."""
    mapper = MAPPER + disk.name
    luks: Data = seen["luks"] or {}
    others = [signature for signature in seen["signatures"] if signature != "crypto_LUKS"]
    if others:
        return f"it holds {', '.join(others)}"
    if seen["holders"] and f"/dev/mapper/{mapper}" not in seen["holders"]:
        return f"it is in use by {', '.join(seen['holders'])}"
    if seen["mounts"] and not luks:
        return f"it is mounted at {', '.join(seen['mounts'])}"
    if not seen["signatures"]:
        return ""
    if luks.get("version") != 2:
        return f"it holds LUKS{luks.get('version', '')}"
    if luks["label"] == mapper or luks["clevis"] or seen["holders"]:
        return ""
    return f"it holds a LUKS2 device with the label {luks['label'] or '(none)'} that is not bound to tang, not {mapper}"


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


# What only all hosts together show


def releases_alike(site: Site) -> Iterator[Finding]:
    """All nodes run the same Debian release."""
    releases = {host.name: host.node["release"]["version_id"] for host in site.nodes if host.node}
    common = Counter(releases.values()).most_common(1)
    for name, release in releases.items():
        if release != common[0][0]:
            yield Finding(
                name,
                "preflight_releases",
                f"it runs Debian {release}, most nodes run {common[0][0]}",
                "install the same release on all nodes",
            )


def clocks_together(site: Site) -> Iterator[Finding]:
    """No two clocks are surely further apart than allowed, also when each is near enough to the controller's."""
    limit = site.settings["clock_limit"]
    looked = [host for host in site.hosts if host.node]
    for one, two in combinations(looked, 2):
        apart = max(one.clock["low"] - two.clock["high"], two.clock["low"] - one.clock["high"])
        if apart > limit and all(not any(clock_in_step(host, site.settings)) for host in (one, two)):
            yield Finding(
                two.name,
                "preflight_clock_limit",
                f"its clock is at least {apart:.0f} s away from that of {one.name}, {limit} s are allowed",
                "set both right: `timedatectl` shows them, `timedatectl set-ntp true` lets the network set them",
            )


def tang_declared(site: Site) -> Iterator[Finding]:
    """There is a tang host: without one, disks are encrypted and bound to nothing."""
    if not site.settings["tang"]:
        yield Finding(
            CLUSTER,
            "group tang",
            "it has no hosts, and no disk would unlock by itself",
            "put a host that is no node into the inventory group `tang`",
        )
    for name in site.settings["tang"]:
        if name in site.settings["nodes"]:
            yield Finding(
                name,
                "group tang",
                "it is in group nodes, too: whoever carries it away would have keys for the disks",
                "take it out of one of the two groups; tang belongs on a host that is no node",
            )


def tang_answers(site: Site) -> Iterator[Finding]:
    """Tang answers every node; before it is set up for the first time, a host that can be logged in to is enough."""
    looked = {host.address: host for host in site.tang}
    disks = [disk for host in site.nodes if host.node for disk in host.node["disks"].values()]
    bound = any((disk["luks"] or {}).get("clevis") for disk in disks)
    for server in site.settings["tang_servers"]:
        address, port = str(server).rsplit(":", 1)
        host = looked.get(address)
        silent = host is not None and bool(host.node) and int(port) not in host.node["listening"]
        if silent and bound:
            yield Finding(
                host.name if host else CLUSTER,
                "tang_port",
                f"nothing listens on port {port}, but disks are bound to tang",
                "see `systemctl status tangd.socket` there; without it no node unlocks its disks at the next boot",
            )
        first_build = not bound and (silent or (host is None and len(site.tang) < len(site.settings["tang"])))
        if not silent and not first_build:
            yield from _tang_out_of_reach(site, str(server))


def _tang_out_of_reach(site: Site, server: str) -> Iterator[Finding]:
    for node in site.nodes:
        problem = node.node.get("tang_problems", {}).get(server)
        if problem:
            yield Finding(
                node.name,
                "group tang",
                f"tang at {server} does not answer: {problem}",
                f"`curl http://{server}/adv` on the node must print JSON; see cable, firewall and tangd.socket",
            )


SITE_CHECKS: tuple[Check, ...] = (
    count_of_nodes,
    names_valid,
    names_of_the_cluster,
    addresses_valid,
    addresses_distinct,
    name_servers_valid,
    disks_declared,
    volumes_have_disks,
    volumes_readable,
    volumes_buildable,
    numbers_in_range,
    nics_declared,
    vlans_valid,
    vlan_addresses,
    guests_valid,
    secrets_present,
    releases_alike,
    clocks_together,
    tang_declared,
    tang_answers,
)
HOST_CHECKS: tuple[HostCheck, ...] = (
    privileges,
    release_supported,
    own_name,
    clock_in_step,
    address_in_place,
)
NODE_CHECKS: tuple[HostCheck, ...] = (memory_enough, kvm_present, disks_usable, nics_present)


def _host(name: str, looked: Data) -> Host:
    return Host(
        name=name,
        declared=looked.get("declared") or {},
        node=looked.get("node") or {},
        clock=looked.get("clock_offset") or {},
        problem=str(looked.get("problem") or ""),
    )


def judge(looked: Mapping[str, Data], settings: Data) -> list[Finding]:
    """Return every finding on every host.

    :param looked: by inventory name the result of node_info. A host that was not looked at (``--limit``) is left out.
    :param settings: ``nodes`` and ``tang`` (names), ``cluster_name``, ``state_dir``, ``network``, ``gateway``, ``dns``,
        ``bridges``, ``vlans``, ``guests``, ``networks``, ``vlan_bridge``, ``pools``, ``volumes``, ``local_volumes``,
        ``numbers`` (by variable), ``secrets``, ``tang_servers``, ``releases``, ``kvm``, and the limits
        ``memory_min_mib``, ``disk_min_bytes``, ``clock_limit``.
    """
    nodes = [_host(name, looked[name]) for name in settings["nodes"] if name in looked]
    tang = [_host(name, looked[name]) for name in settings["tang"] if name in looked]
    site = Site(nodes, tang, settings)
    findings = [finding for check in SITE_CHECKS for finding in check(site)]
    for host in site.hosts:
        findings += reachable(host, settings)
        if host.node:
            checks = HOST_CHECKS + (NODE_CHECKS if host in nodes else ())
            findings += [finding for check in checks for finding in check(host, settings)]
    order = {name: index for index, name in enumerate([CLUSTER, *settings["nodes"], *settings["tang"]])}
    return sorted(findings, key=lambda finding: order[finding.host])


def preflight_findings(looked: Mapping[str, Data], settings: Data) -> list[dict[str, str]]:
    """Return what :func:`judge` finds as plain data."""
    return [asdict(finding) for finding in judge(looked, settings)]


def preflight_report(findings: Sequence[Data]) -> str:
    """Return the findings as text, by host."""
    hosts = list(dict.fromkeys(finding["host"] for finding in findings))
    things = "1 thing stands" if len(findings) == 1 else f"{len(findings)} things stand"
    lines = [f"{things} in the way; nothing was changed."]
    for host in hosts:
        lines += ["", host]
        for finding in findings:
            if finding["host"] == host:
                lines += [f"  - {finding['variable']}: {finding['found']}", f"    Remedy: {finding['remedy']}"]
    return "\n".join(lines)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"preflight_findings": preflight_findings, "preflight_report": preflight_report}
