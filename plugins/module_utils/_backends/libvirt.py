# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt: guests, networks and storage pools of one node, over one connection.

Libvirt keeps XML; this backend patches the XML that is there with what was declared and leaves
the rest alone. What patching would change is what differs: the same code compares and predicts.
"""

from __future__ import annotations

import copy
import glob
import os
import pwd
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet

SYSTEM_URI = "qemu:///system"
# The network that Debian's package brings says nothing about use.
USED_MARKS = ("/etc/libvirt/qemu/*.xml", "/etc/libvirt/storage/*.xml", "/var/lib/libvirt/qemu/save/*.save")
IMAGE_OWNER = "libvirt-qemu"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


# --- connection ---------------------------------------------------------------------------------


def connect(uri: str) -> Any:
    """Return an open connection.

    :raises NotYet: libvirt is not installed, or does not run and was never used.
    :raises ClusterError: it was used before and does not answer.
    """
    try:
        import libvirt
    except ImportError as error:
        raise NotYet("python3-libvirt is not installed on this host; run the role hypervisor first") from error
    # Errors arrive as exceptions; the default handler would print them into the module's output as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        if uri == SYSTEM_URI and not any(glob.glob(mark) for mark in USED_MARKS):
            raise NotYet("libvirtd does not run on this host and was never used") from error
        raise ClusterError(f"libvirt does not answer at {uri} ({error}); see: systemctl status libvirtd") from error


def explained(call: Any, *arguments: Any) -> Any:
    """Call into libvirt and turn its exception into a :class:`ClusterError`."""
    import libvirt

    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        raise ClusterError(str(error)) from error


# --- names and sizes that are the same on every node --------------------------------------------


def guest_uuid(cluster: str, name: str) -> str:
    """Return the UUID that ``name`` has in ``cluster``, whichever node computes it."""
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, f"{cluster}.personal.cluster"), name))


def nic_mac(guest: str, number: int) -> str:
    """Return the MAC address of NIC ``number`` (from 0) of the guest with UUID ``guest``."""
    return "52:54:00:" + uuid.uuid5(uuid.UUID(guest), f"nic{number}").bytes[:3].hex(":")


def parse_size(text: str) -> int:
    """Return bytes of ``512M``, ``20G``, ``4096``; units are powers of 1024.

    :raises ClusterError: not a size.
    """
    number, unit = text.strip().removesuffix("iB").removesuffix("B").rstrip(), ""
    if number and number[-1].upper() in UNITS:
        number, unit = number[:-1].rstrip(), number[-1].upper()
    if not number.isdigit() or int(number) == 0:
        raise ClusterError(f"{text!r} is not a size; write for example 512M or 20G")
    return int(number) * UNITS[unit]


def show_size(size: int) -> str:
    """Return bytes in the largest unit that divides them."""
    for unit in ("T", "G", "M", "K"):
        if size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]} {unit}iB"
    return f"{size} B"


# --- what is declared ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A declared disk; ``path`` is its file on the node, ``size`` bytes or nothing when the file must exist."""

    target: str
    path: str
    pool: Optional[str]
    size: Optional[int]
    device: str
    format: str
    bus: str
    cache: str
    error_policy: str


@dataclass(frozen=True)
class Nic:
    """A declared network card; ``vlan`` is the name of a portgroup."""

    mac: str
    network: str
    vlan: Optional[str]
    model: str


@dataclass(frozen=True)
class Guest:
    """A declared guest. What is ``None`` is left as it is."""

    name: str
    uuid: str
    state: str
    domain_type: Optional[str]
    memory: Optional[int]
    vcpus: Optional[int]
    cpu: Optional[str]
    machine: Optional[str]
    kernel: Optional[str]
    initrd: Optional[str]
    cmdline: Optional[str]
    serial_log: Optional[str]
    graphics: str
    guest_agent: bool
    autostart: Optional[bool]
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    apply: str
    shutdown_timeout: int
    force_stop: bool
    delete_disks: tuple[str, ...]


def guest_from(item: Mapping[str, Any], cluster: str, pools: Mapping[str, str]) -> Guest:
    """Return a guest from the module's parameters.

    :param pools: name to directory; a pool that is not there yet stands for itself in paths.
    :raises ClusterError: a size cannot be read.
    """
    identity = item["uuid"] or guest_uuid(cluster, item["name"])
    direct = ("name", "state", "domain_type", "vcpus", "cpu", "machine", "kernel", "initrd", "cmdline", "serial_log")
    more = ("graphics", "guest_agent", "autostart", "apply", "shutdown_timeout", "force_stop")
    return Guest(
        uuid=identity,
        memory=parse_size(item["memory"]) if item["memory"] else None,
        disks=tuple(_disk_from(item["name"], number, disk, pools) for number, disk in enumerate(item["disks"])),
        nics=tuple(
            Nic((nic["mac"] or nic_mac(identity, number)).lower(), nic["network"], nic["vlan"], nic["model"])
            for number, nic in enumerate(item["nics"])
        ),
        delete_disks=tuple(item["delete_disks"]),
        **{name: item[name] for name in direct + more},
    )


def _disk_from(guest: str, number: int, item: Mapping[str, Any], pools: Mapping[str, str]) -> Disk:
    target = item["target"] or {"virtio": "vd", "sata": "sd", "scsi": "sd"}[item["bus"]] + "abcdefghijklmnop"[number]
    path = item["path"]
    if path is None:
        folder = pools.get(item["pool"], f"<pool {item['pool']}>")
        path = f"{folder}/{item['name'] or f'{guest}-{target}.img'}"
    return Disk(
        target=target,
        path=path,
        pool=None if item["path"] else item["pool"],
        size=parse_size(item["size"]) if item["size"] else None,
        device=item["device"],
        format=item["format"],
        bus=item["bus"],
        cache=item["cache"],
        error_policy=item["error_policy"],
    )


# --- patching -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A difference between XML and declaration.

    ``kind`` tells whether a running guest can take it: ``attach`` and ``update`` can, ``boot``
    needs a restart. ``element`` is the device as it shall be.
    """

    kind: str
    sentence: str
    element: Optional[ET.Element] = None


def _child(parent: ET.Element, tag: str) -> ET.Element:
    found = parent.find(tag)
    return ET.SubElement(parent, tag) if found is None else found


def _set(element: ET.Element, **wanted: str) -> bool:
    """Set attributes; return whether one differed."""
    differs = any(element.get(name) != value for name, value in wanted.items())
    element.attrib.update(wanted)
    return differs


def _kibibytes(element: Optional[ET.Element]) -> int:
    # Libvirt prints memory in KiB, whatever unit it was defined with.
    return int(element.text) if element is not None and element.text else 0


def same_machine(actual: str, wanted: str) -> bool:
    """Return whether ``actual`` is ``wanted`` or the versioned form of an alias such as ``q35``."""
    aliases = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
    return actual == wanted or (wanted in aliases and actual.startswith(aliases[wanted]))


def blank_domain(guest: Guest) -> ET.Element:
    """Return the XML that a new guest starts from, before its declaration is patched in."""
    # No HPET: Linux and Windows keep better time without it under KVM and boot faster when emulated.
    text = f"""<domain type="{guest.domain_type or "kvm"}">
      <name/><uuid/><memory unit="KiB">1048576</memory><vcpu placement="static">1</vcpu>
      <os><type arch="x86_64" machine="{guest.machine or "q35"}">hvm</type></os>
      <features><acpi/><apic/></features>
      <clock offset="utc"><timer name="hpet" present="no"/></clock>
      <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash>
      <devices/>
    </domain>"""
    root = ET.fromstring(text)
    _child(root, "name").text = guest.name
    _child(root, "uuid").text = guest.uuid
    if any(disk.device == "cdrom" for disk in guest.disks):
        # A blank disk boots nothing: the disc is next, and installs the guest.
        for device in ("hd", "cdrom"):
            ET.SubElement(_child(root, "os"), "boot", dev=device)
    if guest.graphics == "none":
        # A guest without a screen has no use for USB either: fewer devices, a faster boot.
        _child(root, "devices").append(ET.Element("controller", type="usb", model="none"))
    return root


def patch(root: ET.Element, guest: Guest) -> list[Change]:
    """Write the declaration into ``root`` and return what differed."""
    changes: list[Change] = []
    _patch_hardware(root, guest, changes)
    _patch_boot(root, guest, changes)
    devices = _child(root, "devices")
    _patch_console(devices, guest, changes)
    for disk in guest.disks:
        _patch_disk(devices, disk, changes)
    for nic in guest.nics:
        _patch_nic(devices, nic, changes)
    return changes


def _patch_hardware(root: ET.Element, guest: Guest, changes: list[Change]) -> None:
    if guest.domain_type and _set(root, type=guest.domain_type):
        changes.append(Change("boot", f"type {guest.domain_type}"))
    if guest.memory:
        wanted = guest.memory >> 10
        found = {tag: _kibibytes(_child(root, tag)) for tag in ("memory", "currentMemory")}
        for tag in found:
            element = _child(root, tag)
            element.set("unit", "KiB")
            element.text = str(wanted)
        if set(found.values()) != {wanted}:
            changes.append(Change("boot", f"memory {show_size(guest.memory)}"))
    if guest.vcpus:
        element = _child(root, "vcpu")
        if element.text != str(guest.vcpus) or "current" in element.attrib:
            element.text = str(guest.vcpus)
            element.attrib.pop("current", "")
            changes.append(Change("boot", f"{guest.vcpus} vCPU"))
    if guest.cpu and _patch_cpu(_child(root, "cpu"), guest.cpu):
        changes.append(Change("boot", f"CPU {guest.cpu}"))
    kind = _child(_child(root, "os"), "type")
    if guest.machine and not same_machine(kind.get("machine", ""), guest.machine):
        kind.set("machine", guest.machine)
        changes.append(Change("boot", f"machine {guest.machine}"))


def _patch_cpu(element: ET.Element, wanted: str) -> bool:
    if wanted in ("host-passthrough", "host-model", "maximum"):
        return _set(element, mode=wanted)
    differs = _set(element, mode="custom", match="exact")
    model = _child(element, "model")
    if model.text != wanted:
        model.text = wanted
        return True
    return differs


def _patch_boot(root: ET.Element, guest: Guest, changes: list[Change]) -> None:
    loader = _child(root, "os")
    for tag, value in (("kernel", guest.kernel), ("initrd", guest.initrd), ("cmdline", guest.cmdline)):
        if value is not None:
            element = _child(loader, tag)
            if (element.text or "") != value:
                element.text = value
                changes.append(Change("boot", f"{tag} {value}"))


def _patch_console(devices: ET.Element, guest: Guest, changes: list[Change]) -> None:
    serial = devices.find("serial")
    if serial is None:
        serial = ET.SubElement(devices, "serial", type="pty")
        ET.SubElement(serial, "target", port="0")
        changes.append(Change("boot", "a serial console"))
    if guest.serial_log and _set(_child(serial, "log"), file=guest.serial_log, append="on"):
        changes.append(Change("boot", f"serial log {guest.serial_log}"))
    if guest.guest_agent and devices.find(f"channel/target[@name='{AGENT_CHANNEL}']") is None:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
        changes.append(Change("attach", "the guest agent's channel", channel))
    if guest.graphics != "none" and devices.find(f"graphics[@type='{guest.graphics}']") is None:
        screen = ET.SubElement(devices, "graphics", type=guest.graphics, autoport="yes")
        ET.SubElement(screen, "listen", type="address", address="127.0.0.1")
        if devices.find("video") is None:
            ET.SubElement(ET.SubElement(devices, "video"), "model", type="virtio")
        changes.append(Change("boot", f"{guest.graphics} on 127.0.0.1"))


def _patch_disk(devices: ET.Element, disk: Disk, changes: list[Change]) -> None:
    element = devices.find(f"disk/target[@dev='{disk.target}']/..")
    new = element is None
    if element is None:
        element = ET.SubElement(devices, "disk", type="file", device=disk.device)
        ET.SubElement(element, "target", dev=disk.target, bus=disk.bus)
        if disk.device == "cdrom":
            ET.SubElement(element, "readonly")
    driver = {"name": "qemu", "type": disk.format, "cache": disk.cache, "error_policy": disk.error_policy}
    if disk.device == "cdrom":
        # QEMU refuses an error policy on a drive that is never written.
        del driver["error_policy"]
    moved = _set(_child(element, "source"), file=disk.path)
    tuned = _set(_child(element, "driver"), **driver)
    if new:
        # A drive for discs is part of the machine; a virtio disk can be plugged in at any time.
        kind = "attach" if disk.device == "disk" and disk.bus != "sata" else "boot"
        changes.append(Change(kind, f"{disk.device} {disk.target} from {disk.path}", element))
    elif moved:
        kind = "update" if disk.device == "cdrom" else "boot"
        changes.append(Change(kind, f"{disk.device} {disk.target} from {disk.path}", element))
    elif tuned:
        changes.append(Change("boot", f"{disk.target} with cache={disk.cache}, error_policy={disk.error_policy}"))


def _patch_nic(devices: ET.Element, nic: Nic, changes: list[Change]) -> None:
    element = devices.find(f"interface/mac[@address='{nic.mac}']/..")
    where = f"{nic.network} {nic.vlan}" if nic.vlan else nic.network
    if element is None:
        element = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(element, "mac", address=nic.mac)
        ET.SubElement(element, "source", _network_source(nic))
        ET.SubElement(element, "model", type=nic.model)
        changes.append(Change("attach", f"NIC {nic.mac} on {where}", element))
        return
    remodelled = _set(_child(element, "model"), type=nic.model)
    source = _child(element, "source")
    # A running card is of type 'bridge', with the VLAN and the port that its network gave it: only the network counts.
    moved = {name: source.get(name) for name in ("network", "portgroup") if source.get(name)} != _network_source(nic)
    if moved:
        element.set("type", "network")
        for given in (*element.findall("vlan"), *element.findall("virtualport")):
            element.remove(given)
        source.attrib.clear()
        source.attrib.update(_network_source(nic))
    if remodelled:
        changes.append(Change("boot", f"NIC {nic.mac} as {nic.model}", element))
    elif moved:
        changes.append(Change("update", f"NIC {nic.mac} on {where}", element))


def _network_source(nic: Nic) -> dict[str, str]:
    return {"network": nic.network, **({"portgroup": nic.vlan} if nic.vlan else {})}


# --- what is there ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A domain of this node; ``state`` is running, paused or shutdown; ``live`` is the XML of the running one."""

    name: str
    uuid: str
    state: str
    autostart: bool
    inactive: str
    live: Optional[str] = None

    @property
    def active(self) -> bool:
        """Return whether a QEMU process exists."""
        return self.state in ("running", "paused")


@dataclass(frozen=True)
class Pool:
    """A storage pool: its directory and whether it is active."""

    path: str
    active: bool


@dataclass(frozen=True)
class Node:
    """What one read of a node returns.

    ``networks`` maps a network to its portgroups, ``files`` each declared file to its size in
    bytes, or nothing when it is missing.
    """

    domains: Mapping[str, Domain] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    networks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    files: Mapping[str, Optional[int]] = field(default_factory=dict)
    fresh: bool = False


def read_domains(connection: Any) -> dict[str, Domain]:
    """Return all domains of the connection."""
    return {domain.name(): _read_domain(domain) for domain in explained(connection.listAllDomains)}


def _read_domain(domain: Any) -> Domain:
    import libvirt

    number = explained(domain.state)[0]
    active = bool(explained(domain.isActive))
    state = "shutdown"
    if active:
        state = "paused" if number in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED) else "running"
    persistent = bool(explained(domain.isPersistent))
    return Domain(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=state,
        autostart=bool(explained(domain.autostart)) if persistent else False,
        inactive=explained(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE),
        live=explained(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_SECURE) if active else None,
    )


def read_pools(connection: Any) -> dict[str, Pool]:
    """Return all directory pools of the connection."""
    pools = {}
    for pool in explained(connection.listAllStoragePools):
        root = ET.fromstring(explained(pool.XMLDesc))
        pools[pool.name()] = Pool(root.findtext("target/path") or "", bool(explained(pool.isActive)))
    return pools


def portgroups(xml: str) -> frozenset[str]:
    """Return the names of a network's portgroups."""
    return frozenset(group.get("name", "") for group in ET.fromstring(xml).iter("portgroup"))


def disk_files(xml: str) -> list[str]:
    """Return the files of a domain's disks and discs."""
    return [source.get("file", "") for source in ET.fromstring(xml).iterfind("devices/disk/source[@file]")]


def summary(domain: Domain) -> dict[str, Any]:
    """Return a domain as plain data, from its inactive XML: as it is after its next boot."""
    root = ET.fromstring(domain.inactive)
    machine = root.find("os/type")
    shown: dict[str, Any] = {
        "uuid": domain.uuid,
        "state": domain.state,
        "autostart": domain.autostart,
        "type": root.get("type"),
        "memory_mib": _kibibytes(root.find("memory")) >> 10,
        "vcpus": int(root.findtext("vcpu") or 1),
        "machine": machine.get("machine") if machine is not None else None,
        "disks": {},
        "nics": {},
    }
    for tag in ("kernel", "initrd", "cmdline"):
        if root.find(f"os/{tag}") is not None:
            shown[tag] = root.findtext(f"os/{tag}")
    for disk in root.iterfind("devices/disk"):
        shown["disks"][_attribute(disk, "target", "dev")] = {
            "file": _attribute(disk, "source", "file"),
            "device": disk.get("device"),
            "format": _attribute(disk, "driver", "type"),
            "cache": _attribute(disk, "driver", "cache"),
            "error_policy": _attribute(disk, "driver", "error_policy"),
        }
    for nic in root.iterfind("devices/interface"):
        shown["nics"][_attribute(nic, "mac", "address")] = {
            "network": _attribute(nic, "source", "network"),
            "vlan": _attribute(nic, "source", "portgroup"),
        }
    return shown


def _attribute(parent: ET.Element, tag: str, name: str) -> Optional[str]:
    found = parent.find(tag)
    return None if found is None else found.get(name)


def info(uri: str, check: bool) -> dict[str, Any]:
    """Return every domain of this node, for virt_domain_info.

    :raises NotYet: libvirt is not there, and this is not check mode.
    """
    try:
        connection = connect(uri)
    except NotYet:
        if not check:
            raise
        return {"available": False, "domains": {}}
    return {"available": True, "domains": {name: summary(it) for name, it in sorted(read_domains(connection).items())}}


# --- guests -------------------------------------------------------------------------------------


class Domains:
    """The declared guests of one node; see the module virt_domain for the items."""

    def __init__(self, items: Sequence[Mapping[str, Any]], cluster: str, elsewhere: Mapping[str, str], uri: str):
        self._items = items
        self._cluster = cluster
        self._elsewhere = elsewhere
        self._uri = uri
        self._connection: Any = None

    def read(self) -> Node:
        """Read all domains, pools and networks, and look at the declared files."""
        if self._connection is None:
            self._connection = connect(self._uri)
        pools = read_pools(self._connection)
        node = Node(
            domains=read_domains(self._connection),
            pools=pools,
            networks=self._networks(),
        )
        return replace(node, files={path: _size(path) for guest in self._guests(node) for path in _files(guest)})

    def _networks(self) -> dict[str, frozenset[str]]:
        return {it.name(): portgroups(explained(it.XMLDesc)) for it in explained(self._connection.listAllNetworks)}

    def blank(self) -> Node:
        """Return a node without domains, pools and networks."""
        return Node(fresh=True)

    def _guests(self, node: Node) -> list[Guest]:
        folders = {name: pool.path for name, pool in node.pools.items()}
        return [guest_from(item, self._cluster, folders) for item in self._items]

    def plan(self, state: Node) -> Plan[Node]:
        """Plan each guest on its own."""
        domains, files = dict(state.domains), dict(state.files)
        plan: Plan[Node] = Plan(state)
        guests = self._guests(state)
        _refuse_double(guests, plan.refusals)
        for guest in guests:
            _GuestPlan(self, plan, guest, state, domains, files).make()
        plan.predicted = replace(state, domains=domains, files=files)
        return plan

    def view(self, state: Node) -> dict[str, Any]:
        """Return the declared guests, and what of them waits for a restart."""
        shown: dict[str, Any] = {}
        pending: dict[str, list[str]] = {}
        for guest in self._guests(state):
            domain = state.domains.get(guest.name)
            if domain is None:
                continue
            shown[guest.name] = summary(domain)
            if guest.machine and same_machine(str(shown[guest.name]["machine"]), guest.machine):
                shown[guest.name]["machine"] = guest.machine
            waiting = [change.sentence for change in live_changes(domain, guest)[1]]
            if waiting and guest.state != "absent":
                pending[guest.name] = waiting
        return {"domains": shown, "pending": pending}

    # The steps; each looks its domain up again, for a step before it may have made it.

    def lookup(self, guest: Guest) -> Any:
        """Return libvirt's object of a guest."""
        return explained(self._connection.lookupByName, guest.name)

    def create_image(self, disk: Disk, size: int) -> None:
        """Create a sparse image that must not exist."""
        folder = os.path.dirname(disk.path)
        if disk.path.startswith("<") or not os.path.isdir(folder):
            raise ClusterError(f"there is no place for {disk.path}: pool {disk.pool} is not there or not mounted")
        owner = pwd.getpwnam(IMAGE_OWNER)
        # O_EXCL: another node may create it in this moment; then it is theirs and stays as it is.
        handle = os.open(disk.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(handle, size)
            os.fchown(handle, owner.pw_uid, owner.pw_gid)
            os.fsync(handle)
        finally:
            os.close(handle)

    def grow_image(self, guest: Guest, disk: Disk, size: int, active: bool) -> None:
        """Make a raw image larger, under the eyes of the guest when it runs."""
        import libvirt

        if active:
            explained(self.lookup(guest).blockResize, disk.target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        else:
            os.truncate(disk.path, size)

    def define(self, guest: Guest, xml: str) -> None:
        """Define a guest, after making sure that its NICs do not end on a trunk by mistake."""
        import libvirt

        problems = nic_problems(guest, self._networks())
        if problems:
            raise ClusterError("; ".join(problems))
        explained(self._connection.defineXMLFlags, xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def change_live(self, guest: Guest, change: Change) -> None:
        """Plug a device into a running guest, or change it."""
        import libvirt

        assert change.element is not None
        xml = ET.tostring(change.element, encoding="unicode")
        domain = self.lookup(guest)
        call = domain.attachDeviceFlags if change.kind == "attach" else domain.updateDeviceFlags
        explained(call, xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_autostart(self, guest: Guest) -> None:
        """Set or clear the mark that starts the guest with the node."""
        explained(self.lookup(guest).setAutostart, int(bool(guest.autostart)))

    def start(self, guest: Guest) -> None:
        """Start a guest, paused when that is what was declared."""
        import libvirt

        flags = libvirt.VIR_DOMAIN_START_PAUSED if guest.state == "paused" else 0
        explained(self.lookup(guest).createWithFlags, flags)

    def pause(self, guest: Guest) -> None:
        """Suspend a guest."""
        explained(self.lookup(guest).suspend)

    def resume(self, guest: Guest) -> None:
        """Let a suspended guest go on."""
        explained(self.lookup(guest).resume)

    def stop(self, guest: Guest) -> None:
        """Ask a guest to shut down; end it after the timeout when that is allowed."""
        domain = self.lookup(guest)
        explained(domain.shutdown)
        limit = time.monotonic() + guest.shutdown_timeout
        while explained(domain.isActive):
            if time.monotonic() > limit:
                if not guest.force_stop:
                    raise ClusterError(
                        f"guest {guest.name} did not shut down within {guest.shutdown_timeout} s; "
                        "shut it down from inside, or set force_stop: true to end it like a pulled plug"
                    )
                explained(domain.destroy)
                return
            time.sleep(1)

    def undefine(self, guest: Guest) -> None:
        """Remove a guest's definition and what libvirt keeps beside it; its disks stay."""
        import libvirt

        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
        explained(self.lookup(guest).undefineFlags, flags)

    def elsewhere(self, guest: Guest) -> Optional[str]:
        """Return the other node that has the guest."""
        return self._elsewhere.get(guest.name)


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _files(guest: Guest) -> list[str]:
    named = (guest.kernel, guest.initrd, *(disk.path for disk in guest.disks), *guest.delete_disks)
    return [path for path in named if path]


def _refuse_double(guests: Sequence[Guest], refusals: list[str]) -> None:
    names = [guest.name for guest in guests]
    refusals += [
        f"guest {name} is declared twice" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    owner: dict[str, str] = {}
    for guest in guests:
        for disk in guest.disks:
            if disk.device == "disk" and owner.setdefault(disk.path, guest.name) != guest.name:
                refusals.append(f"{disk.path} is declared for guest {owner[disk.path]} and for guest {guest.name}")


def nic_problems(guest: Guest, networks: Mapping[str, frozenset[str]]) -> list[str]:
    """Return what is wrong with a guest's NICs; libvirt would put an unknown VLAN on the untagged trunk."""
    problems = []
    for nic in guest.nics:
        where = f"guest {guest.name}: NIC {nic.mac}"
        groups = networks.get(nic.network)
        if groups is None:
            problems.append(f"{where}: this node has no network {nic.network}")
        elif nic.vlan and nic.vlan not in groups:
            problems.append(f"{where}: network {nic.network} has no VLAN {nic.vlan}, only {', '.join(sorted(groups))}")
        elif groups and not nic.vlan:
            problems.append(f"{where}: network {nic.network} carries VLANs, name one of {', '.join(sorted(groups))}")
    return problems


def live_changes(domain: Domain, guest: Guest) -> tuple[list[Change], list[Change]]:
    """Return what a running guest can take now, and what waits for its next boot."""
    if domain.live is None:
        return [], []
    root = ET.fromstring(domain.live)
    changes = patch(root, guest)
    now = [change for change in changes if change.kind != "boot" and guest.apply != "next_boot"]
    return now, [change for change in changes if change not in now]


class _GuestPlan:
    """Plans one guest into the plan of its node."""

    def __init__(
        self,
        host: Domains,
        plan: Plan[Node],
        guest: Guest,
        state: Node,
        domains: dict[str, Domain],
        files: dict[str, Optional[int]],
    ):
        self.host, self.plan, self.guest, self.state = host, plan, guest, state
        self.domains, self.files = domains, files

    def make(self) -> None:
        """Add refusals, or steps and their prediction."""
        domain = self.domains.get(self.guest.name)
        refusals = [*self._identity_refusals(domain), *self._disk_refusals(domain)]
        if refusals:
            self.plan.refusals += refusals
        elif self.guest.state == "absent":
            self._remove(domain)
        else:
            self._images(domain)
            domain = self._define(domain)
            domain = self._live(domain)
            self.domains[self.guest.name] = self._run_state(self._autostart(domain))

    def _add(self, sentence: str, call: Any, *arguments: Any) -> None:
        self.plan.steps.append(Step(sentence, partial(call, *arguments)))

    def _identity_refusals(self, domain: Optional[Domain]) -> list[str]:
        guest = self.guest
        other = self.host.elsewhere(guest)
        if other and guest.state != "absent":
            return [f"guest {guest.name} is on {other}; it must not be on two nodes"]
        refusals = []
        if domain is not None and domain.uuid != guest.uuid:
            refusals.append(
                f"guest {guest.name} exists with UUID {domain.uuid}, wanted is {guest.uuid}; "
                f"declare uuid: {domain.uuid} to adopt it, or undefine it"
            )
        same = [it.name for it in self.state.domains.values() if it.uuid == guest.uuid and it.name != guest.name]
        refusals += [f"guest {name} already has the UUID {guest.uuid} of guest {guest.name}" for name in same]
        if domain is None and guest.state != "absent" and not (guest.memory and guest.vcpus):
            refusals.append(f"guest {guest.name} does not exist yet: memory and vcpus must be given")
        return refusals

    def _disk_refusals(self, domain: Optional[Domain]) -> list[str]:
        guest, refusals = self.guest, []
        if guest.state == "absent":
            return self._delete_refusals(domain)
        for path in guest.delete_disks:
            refusals.append(f"guest {guest.name}: delete_disks names {path}, but state is not absent")
        for disk in guest.disks:
            size = self.files.get(disk.path)
            for other in self._users(disk.path) if disk.device == "disk" else []:
                refusals.append(f"guest {guest.name}: disk {disk.path} belongs to guest {other}")
            if size is None and disk.size is None and not self.state.fresh:
                refusals.append(f"guest {guest.name}: {disk.path} does not exist; give its size to create it")
            if size is None and disk.size and disk.format != "raw":
                refusals.append(f"guest {guest.name}: {disk.path} does not exist; only raw images are created here")
            if size and disk.size and disk.format == "raw" and size > disk.size:
                refusals.append(
                    f"guest {guest.name}: {disk.path} has {show_size(size)}, declared are {show_size(disk.size)}; "
                    "an image is never shrunk, declare its real size"
                )
        return refusals

    def _delete_refusals(self, domain: Optional[Domain]) -> list[str]:
        refusals = []
        mine = {} if domain is None else _deletable(domain.inactive)
        for path in self.guest.delete_disks:
            if domain is not None and path not in mine:
                refusals.append(f"guest {self.guest.name}: {path} is none of its disks")
            for other in self._users(path):
                refusals.append(f"guest {self.guest.name}: {path} also belongs to guest {other}")
        return refusals

    def _users(self, path: str) -> list[str]:
        return [
            it.name
            for it in self.state.domains.values()
            if it.name != self.guest.name and path in disk_files(it.inactive)
        ]

    def _remove(self, domain: Optional[Domain]) -> None:
        guest = self.guest
        if domain is not None:
            if domain.active:
                self._add(f"shut down guest {guest.name}", self.host.stop, guest)
            self._add(f"undefine guest {guest.name}", self.host.undefine, guest)
            del self.domains[guest.name]
        for path in guest.delete_disks:
            if self.files.get(path) is not None:
                self._add(f"delete the disk {path} of guest {guest.name}", os.unlink, path)
                self.files[path] = None

    def _images(self, domain: Optional[Domain]) -> None:
        for disk in self.guest.disks:
            size, wanted = self.files.get(disk.path), disk.size
            if wanted is None or disk.device != "disk":
                continue
            if size is None:
                place = f"{os.path.basename(disk.path)} in pool {disk.pool}" if disk.pool else disk.path
                self._add(f"create image {place}, {show_size(wanted)}", self.host.create_image, disk, wanted)
            elif size < wanted and disk.format == "raw":
                active = domain is not None and domain.active
                sentence = f"grow {disk.path} from {show_size(size)} to {show_size(wanted)}"
                self._add(sentence, self.host.grow_image, self.guest, disk, wanted, active)
            self.files[disk.path] = max(size or 0, wanted)

    def _define(self, domain: Optional[Domain]) -> Domain:
        guest = self.guest
        root = blank_domain(guest) if domain is None else ET.fromstring(domain.inactive)
        changes = patch(root, guest)
        if domain is not None and not changes:
            return domain
        if not self.state.fresh and self.state.networks:
            self.plan.warnings += nic_problems(guest, self.state.networks)
        xml = ET.tostring(root, encoding="unicode")
        sentence = (
            f"define guest {guest.name}"
            if domain is None
            else f"redefine guest {guest.name}: {', '.join(change.sentence for change in changes)}"
        )
        self._add(sentence, self.host.define, guest, xml)
        if domain is None:
            return Domain(guest.name, guest.uuid, "shutdown", False, xml)
        return replace(domain, inactive=xml)

    def _live(self, domain: Domain) -> Domain:
        guest = self.guest
        now, waiting = live_changes(domain, guest)
        if waiting and guest.apply == "live":
            rest = ", ".join(change.sentence for change in waiting)
            self.plan.refusals.append(f"guest {guest.name} runs and cannot take live: {rest}; use live_or_pending")
            return domain
        for change in now:
            verb = "plug into" if change.kind == "attach" else "change in"
            self._add(f"{verb} running guest {guest.name}: {change.sentence}", self.host.change_live, guest, change)
        return replace(domain, live=_with_devices(domain.live, now)) if domain.live and now else domain

    def _autostart(self, domain: Domain) -> Domain:
        wanted = self.guest.autostart
        if wanted is None or wanted == domain.autostart:
            return domain
        verb = "start" if wanted else "do not start"
        self._add(f"{verb} guest {self.guest.name} with the node", self.host.set_autostart, self.guest)
        return replace(domain, autostart=wanted)

    def _run_state(self, domain: Domain) -> Domain:
        guest, wanted = self.guest, self.guest.state
        if wanted == "defined" or wanted == domain.state:
            return domain
        if wanted == "shutdown":
            self._add(f"shut down guest {guest.name}", self.host.stop, guest)
            return replace(domain, state=wanted, live=None)
        if not domain.active:
            how = " paused" if wanted == "paused" else ""
            self._add(f"start guest {guest.name}{how}", self.host.start, guest)
            return replace(domain, state=wanted)
        verb, call = ("pause", self.host.pause) if wanted == "paused" else ("resume", self.host.resume)
        self._add(f"{verb} guest {guest.name}", call, guest)
        return replace(domain, state=wanted)


def _with_devices(live: str, changes: Sequence[Change]) -> str:
    """Return live XML with plugged devices added; a changed one is replaced where it stands."""
    root = ET.fromstring(live)
    devices = _child(root, "devices")
    for change in changes:
        assert change.element is not None
        for old in list(devices):
            if _key(old) == _key(change.element) != (change.element.tag, None):
                devices.remove(old)
        devices.append(copy.deepcopy(change.element))
    return ET.tostring(root, encoding="unicode")


def _key(device: ET.Element) -> tuple[str, Optional[str]]:
    """Return what tells a disk or a NIC from others of its kind."""
    tags = {"disk": ("target", "dev"), "interface": ("mac", "address"), "channel": ("target", "name")}
    return (device.tag, _attribute(device, *tags[device.tag])) if device.tag in tags else (device.tag, None)


def _deletable(xml: str) -> dict[str, str]:
    """Return the files of disks that may be deleted with their guest, with their target."""
    found = {}
    for disk in ET.fromstring(xml).iterfind("devices/disk"):
        path = _attribute(disk, "source", "file")
        if (
            path
            and disk.get("device", "disk") == "disk"
            and disk.find("readonly") is None
            and disk.find("shareable") is None
        ):
            found[path] = _attribute(disk, "target", "dev") or ""
    return found


# --- networks and pools -------------------------------------------------------------------------


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
    base = _set(_child(root, "forward"), mode="bridge")
    base |= _set(_child(root, "bridge"), name=item["bridge"])
    base |= _set(_child(root, "virtualport"), type="openvswitch")
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
            {it.name(): _kept(it, 1) for it in explained(self._connection.listAllNetworks)},
            {it.name(): _kept(it, 1) for it in explained(self._connection.listAllStoragePools)},
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
                    "bridge": _attribute(root, "bridge", "name"),
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


def _kept(it: Any, inactive: int) -> Kept:
    return Kept(explained(it.XMLDesc, inactive), bool(explained(it.isActive)), bool(explained(it.autostart)))


def _start(lookup: Any, before: Any) -> None:
    if before is not None:
        before()
    explained(lookup().create)


def _autostart(lookup: Any) -> None:
    explained(lookup().setAutostart, 1)


# --- migration ----------------------------------------------------------------------------------


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
            {_attribute(nic, "source", "network") or "" for nic in root.iterfind("devices/interface")}
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
