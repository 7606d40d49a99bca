# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there: the domains, pools and networks of one node."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import (
    connect,
    explained,
    has_left,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.elements import attribute, kibibytes
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet


@dataclass(frozen=True)
class Domain:
    """A domain of this node; ``state`` is running, paused or shutdown; ``live`` is the XML of the running one.

    ``disk_failed`` says that it is paused because of an I/O error.
    """

    name: str
    uuid: str
    state: str
    autostart: bool
    inactive: str
    live: Optional[str] = None
    disk_failed: bool = False

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

    ``networks`` maps a network to its portgroups, ``files`` each file that a declared guest
    has or shall have to its size in bytes, or nothing when it is missing or ``unseen``: its storage
    does not answer; ``qcow2`` are those of the declared disks that begin as qcow2.
    """

    domains: Mapping[str, Domain] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    networks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    files: Mapping[str, Optional[int]] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()
    qcow2: frozenset[str] = frozenset()
    fresh: bool = False


@dataclass(frozen=True)
class Attached:
    """What a domain has at a target; ``path`` is nothing when that is not a file."""

    path: Optional[str]
    device: str
    format: Optional[str]


def read_domains(connection: Any) -> dict[str, Domain]:
    """Return all domains of the connection, but one that leaves while they are read, as at the end of a migration."""
    found = {}
    for domain in explained(connection.listAllDomains):
        try:
            found[domain.name()] = _read_domain(domain)
        except ClusterError as error:
            if not has_left(error):
                raise
    return found


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
        disk_failed=disk_failed(domain),
    )


def disk_failed(domain: Any) -> bool:
    """Say whether a domain is paused because of an I/O error."""
    import libvirt

    number, reason = explained(domain.state)
    if number != libvirt.VIR_DOMAIN_PAUSED:
        return False
    if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        return True
    # A disk that fails in the moment of a resume may leave libvirt without a reason; QEMU knows it.
    return bool(reason == libvirt.VIR_DOMAIN_PAUSED_UNKNOWN and explained(domain.diskErrors))


def read_pools(connection: Any) -> dict[str, Pool]:
    """Return all directory pools of the connection."""
    pools = {}
    for pool in explained(connection.listAllStoragePools):
        root = ET.fromstring(explained(pool.XMLDesc))
        pools[pool.name()] = Pool(root.findtext("target/path") or "", bool(explained(pool.isActive)))
    return pools


def read_networks(connection: Any) -> dict[str, frozenset[str]]:
    """Return all networks of the connection with their portgroups."""
    return {it.name(): portgroups(explained(it.XMLDesc)) for it in explained(connection.listAllNetworks)}


def portgroups(xml: str) -> frozenset[str]:
    """Return the names of a network's portgroups."""
    return frozenset(group.get("name", "") for group in ET.fromstring(xml).iter("portgroup"))


def disk_files(xml: str) -> list[str]:
    """Return the files of a domain's disks and discs."""
    return [source.get("file", "") for source in ET.fromstring(xml).iterfind("devices/disk/source[@file]")]


def attached(xml: str) -> dict[str, Attached]:
    """Return a domain's disks and drives by their target."""
    return {
        attribute(disk, "target", "dev") or "": Attached(
            attribute(disk, "source", "file"), disk.get("device", "disk"), attribute(disk, "driver", "type")
        )
        for disk in ET.fromstring(xml).iterfind("devices/disk")
    }


def begins_as_qcow2(path: str) -> bool:
    """Return whether a file that can be read begins like a qcow2 image."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"QFI\xfb"
    except OSError:
        return False


def summary(domain: Domain) -> dict[str, Any]:
    """Return a domain as plain data, from its inactive XML: as it is after its next boot."""
    root = ET.fromstring(domain.inactive)
    machine = root.find("os/type")
    shown: dict[str, Any] = {
        "uuid": domain.uuid,
        "state": domain.state,
        "autostart": domain.autostart,
        "type": root.get("type"),
        "memory_mib": kibibytes(root.find("memory")) >> 10,
        "vcpus": int(root.findtext("vcpu") or 1),
        "machine": machine.get("machine") if machine is not None else None,
        "disks": {},
        "nics": {},
    }
    for tag in ("kernel", "initrd", "cmdline"):
        if root.find(f"os/{tag}") is not None:
            shown[tag] = root.findtext(f"os/{tag}")
    for disk in root.iterfind("devices/disk"):
        shown["disks"][attribute(disk, "target", "dev")] = {
            "file": attribute(disk, "source", "file"),
            "device": disk.get("device"),
            "format": attribute(disk, "driver", "type"),
            "cache": attribute(disk, "driver", "cache"),
            "error_policy": attribute(disk, "driver", "error_policy"),
        }
    for nic in root.iterfind("devices/interface"):
        shown["nics"][attribute(nic, "mac", "address")] = {
            "network": attribute(nic, "source", "network"),
            "vlan": attribute(nic, "source", "portgroup"),
        }
    return shown


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
