# SPDX-License-Identifier: GPL-3.0-or-later
"""Patching a guest's XML with its declaration.

Libvirt keeps XML; what was declared is patched into the XML that is there, and the rest is left
alone. What patching would change is what differs: the same code compares and predicts.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import Disk, Guest, Nic
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.elements import (
    child,
    kibibytes,
    set_attributes,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import show_size

AGENT_CHANNEL = "org.qemu.guest_agent.0"


@dataclass(frozen=True)
class Change:
    """A difference between XML and declaration."""

    sentence: str


@dataclass(frozen=True)
class LiveChange(Change):
    """A difference that a running guest can take: the device as it shall be, and whether it is new there."""

    element: ET.Element
    new: bool


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
    child(root, "name").text = guest.name
    child(root, "uuid").text = guest.uuid
    if any(disk.device == "cdrom" for disk in guest.disks):
        # A blank disk boots nothing: the disc is next, and installs the guest.
        for device in ("hd", "cdrom"):
            ET.SubElement(child(root, "os"), "boot", dev=device)
    if root.get("type") == "kvm":
        # QEMU's own default lacks what current distributions require of a processor.
        ET.SubElement(root, "cpu", mode="host-model")
    if guest.graphics == "none":
        # A guest without a screen has no use for USB either: fewer devices, a faster boot.
        child(root, "devices").append(ET.Element("controller", type="usb", model="none"))
    return root


def patch(root: ET.Element, guest: Guest) -> list[Change]:
    """Write the declaration into ``root`` and return what differed."""
    changes: list[Change] = []
    _patch_hardware(root, guest, changes)
    _patch_boot(root, guest, changes)
    devices = child(root, "devices")
    _patch_console(devices, guest, changes)
    for disk in guest.disks:
        _patch_disk(devices, disk, changes)
    for nic in guest.nics:
        _patch_nic(devices, nic, changes)
    return changes


def _patch_hardware(root: ET.Element, guest: Guest, changes: list[Change]) -> None:
    if guest.domain_type and set_attributes(root, type=guest.domain_type):
        changes.append(Change(f"type {guest.domain_type}"))
    if guest.memory:
        wanted = guest.memory >> 10
        found = {tag: kibibytes(child(root, tag)) for tag in ("memory", "currentMemory")}
        for tag in found:
            element = child(root, tag)
            element.set("unit", "KiB")
            element.text = str(wanted)
        if set(found.values()) != {wanted}:
            changes.append(Change(f"memory {show_size(guest.memory)}"))
    if guest.vcpus:
        element = child(root, "vcpu")
        if element.text != str(guest.vcpus) or "current" in element.attrib:
            element.text = str(guest.vcpus)
            element.attrib.pop("current", "")
            changes.append(Change(f"{guest.vcpus} vCPU"))
    if guest.cpu and _patch_cpu(child(root, "cpu"), guest.cpu):
        changes.append(Change(f"CPU {guest.cpu}"))
    kind = child(child(root, "os"), "type")
    if guest.machine and not same_machine(kind.get("machine", ""), guest.machine):
        kind.set("machine", guest.machine)
        changes.append(Change(f"machine {guest.machine}"))


def _patch_cpu(element: ET.Element, wanted: str) -> bool:
    if wanted in ("host-passthrough", "host-model", "maximum"):
        return set_attributes(element, mode=wanted)
    differs = set_attributes(element, mode="custom", match="exact")
    model = child(element, "model")
    if model.text != wanted:
        model.text = wanted
        return True
    return differs


def _patch_boot(root: ET.Element, guest: Guest, changes: list[Change]) -> None:
    loader = child(root, "os")
    for tag, value in (("kernel", guest.kernel), ("initrd", guest.initrd), ("cmdline", guest.cmdline)):
        if value is not None:
            element = child(loader, tag)
            if (element.text or "") != value:
                element.text = value
                changes.append(Change(f"{tag} {value}"))


def _patch_console(devices: ET.Element, guest: Guest, changes: list[Change]) -> None:
    serial = devices.find("serial")
    if serial is None:
        serial = ET.SubElement(devices, "serial", type="pty")
        ET.SubElement(serial, "target", port="0")
        changes.append(Change("a serial console"))
    if guest.serial_log and set_attributes(child(serial, "log"), file=guest.serial_log, append="on"):
        changes.append(Change(f"serial log {guest.serial_log}"))
    if guest.guest_agent and devices.find(f"channel/target[@name='{AGENT_CHANNEL}']") is None:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
        changes.append(LiveChange("the guest agent's channel", channel, True))
    if guest.graphics != "none" and devices.find(f"graphics[@type='{guest.graphics}']") is None:
        screen = ET.SubElement(devices, "graphics", type=guest.graphics, autoport="yes")
        ET.SubElement(screen, "listen", type="address", address="127.0.0.1")
        if devices.find("video") is None:
            ET.SubElement(ET.SubElement(devices, "video"), "model", type="virtio")
        changes.append(Change(f"{guest.graphics} on 127.0.0.1"))


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
    moved = set_attributes(child(element, "source"), file=disk.path)
    tuned = set_attributes(child(element, "driver"), **driver)
    if new or moved:
        # A disk can be plugged in at any time, except into SATA; a drive for discs cannot, but its disc can change.
        live = new and disk.bus != "sata" if disk.device == "disk" else not new
        sentence = f"{disk.device} {disk.target} from {disk.path}"
        changes.append(LiveChange(sentence, element, new) if live else Change(sentence))
    elif tuned:
        changes.append(Change(f"{disk.target} with cache={disk.cache}, error_policy={disk.error_policy}"))


def _patch_nic(devices: ET.Element, nic: Nic, changes: list[Change]) -> None:
    element = devices.find(f"interface/mac[@address='{nic.mac}']/..")
    where = f"{nic.network} {nic.vlan}" if nic.vlan else nic.network
    if element is None:
        element = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(element, "mac", address=nic.mac)
        ET.SubElement(element, "source", _network_source(nic))
        ET.SubElement(element, "model", type=nic.model)
        changes.append(LiveChange(f"NIC {nic.mac} on {where}", element, True))
        return
    remodelled = set_attributes(child(element, "model"), type=nic.model)
    source = child(element, "source")
    # A running card is of type 'bridge', with the VLAN and the port that its network gave it: only the network counts.
    moved = {name: source.get(name) for name in ("network", "portgroup") if source.get(name)} != _network_source(nic)
    if moved:
        element.set("type", "network")
        for given in (*element.findall("vlan"), *element.findall("virtualport")):
            element.remove(given)
        source.attrib.clear()
        source.attrib.update(_network_source(nic))
    if remodelled:
        changes.append(Change(f"NIC {nic.mac} as {nic.model}"))
    elif moved:
        changes.append(LiveChange(f"NIC {nic.mac} on {where}", element, False))


def _network_source(nic: Nic) -> dict[str, str]:
    return {"network": nic.network, **({"portgroup": nic.vlan} if nic.vlan else {})}
