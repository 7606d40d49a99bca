# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests and their disks, out of libvirt's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

SOURCE_ATTRIBUTES = ("file", "dev", "name", "volume")


@dataclass(frozen=True)
class Disk:
    """A disk that is backed up; ``kind`` is libvirt's source type, only ``file`` can be restored."""

    target: str
    source: str
    format: str
    kind: str


@dataclass(frozen=True)
class Guest:
    """A guest of this node.

    ``xml`` is the definition to restore, ``domain_id`` is 0 when it does not run. ``memory_saved``: its next start goes
    on from the memory that ``virsh managedsave`` wrote.
    """

    name: str
    uuid: str
    xml: str
    domain_id: int = 0
    persistent: bool = True
    autostart: bool = False
    memory_saved: bool = False
    agent: bool = False
    disks: tuple[Disk, ...] = ()
    skipped: tuple[str, ...] = ()
    nvram: str = ""
    problems: tuple[str, ...] = field(default=())

    @property
    def active(self) -> bool:
        """Whether it runs on this node, paused included."""
        return self.domain_id > 0


def parse(
    xml: str,
    *,
    live: str = "",
    domain_id: int = 0,
    persistent: bool = True,
    autostart: bool = False,
    memory_saved: bool = False,
) -> Guest:
    """Return the guest of a domain XML.

    :param xml: the definition that a restore defines again.
    :param live: the XML of the running domain; its disks count then.
    """
    root = ElementTree.fromstring(xml)
    running = ElementTree.fromstring(live or xml)
    disks, skipped, problems = [], [], []
    for element in running.findall("./devices/disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        if element.get("device", "disk") != "disk" or element.find("readonly") is not None:
            skipped.append(name)
            continue
        disk = _disk(element, name)
        disks.append(disk)
        if not disk.source:
            problems.append(f"disk {name} has no source that can be read")
    return Guest(
        name=root.findtext("name") or "",
        uuid=root.findtext("uuid") or "",
        xml=xml,
        domain_id=domain_id,
        persistent=persistent,
        autostart=autostart,
        memory_saved=memory_saved,
        agent=_agent_connected(running),
        disks=tuple(disks),
        skipped=tuple(skipped),
        nvram=(running.findtext("./os/nvram") or "").strip(),
        problems=tuple(problems),
    )


def _disk(element: ElementTree.Element, target: str) -> Disk:
    source, driver = element.find("source"), element.find("driver")
    where = (
        next((source.get(key, "") for key in SOURCE_ATTRIBUTES if source.get(key)), "") if source is not None else ""
    )
    kind = element.get("type", "file")
    return Disk(target, where, driver.get("type", "raw") if driver is not None else "raw", kind)


def _agent_connected(root: ElementTree.Element) -> bool:
    targets = root.findall("./devices/channel/target")
    return any(item.get("name") == "org.qemu.guest_agent.0" and item.get("state") == "connected" for item in targets)


def backup_xml(guest: Guest, socket: str, scratch_dir: str) -> str:
    """Return the XML for libvirt's backup in pull mode: all disks of the guest at one instant."""
    root = ElementTree.Element("domainbackup", mode="pull")
    ElementTree.SubElement(root, "server", transport="unix", socket=socket)
    disks = ElementTree.SubElement(root, "disks")
    for disk in guest.disks:
        item = ElementTree.SubElement(
            disks, "disk", name=disk.target, backup="yes", type="file", exportname=disk.target
        )
        ElementTree.SubElement(item, "driver", type="qcow2")
        ElementTree.SubElement(item, "scratch", file=f"{scratch_dir}/{guest.uuid}.{disk.target}")
    for target in guest.skipped:
        ElementTree.SubElement(disks, "disk", name=target, backup="no")
    return ElementTree.tostring(root, encoding="unicode")


def backup_socket(xml: str) -> str:
    """Return the socket of a running backup job, from its XML."""
    server = ElementTree.fromstring(xml).find("server")
    return server.get("socket", "") if server is not None else ""
