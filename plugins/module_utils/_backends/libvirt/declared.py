# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared: guests with their disks and NICs, from the parameters of virt_domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import (
    guest_uuid,
    nic_mac,
    parse_size,
)


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


def disk_place(guest: str, number: int, item: Mapping[str, Any], pools: Mapping[str, str]) -> tuple[str, str]:
    """Return target and path of disk ``number`` (from 0) of ``guest``, declared in full or in part."""
    letters = "vd" if (item.get("bus") or "virtio") == "virtio" else "sd"
    target = item.get("target") or letters + "abcdefghijklmnop"[number]
    folder = pools.get(item.get("pool") or "", f"<pool {item.get('pool')}>")
    return target, item.get("path") or f"{folder}/{item.get('name') or f'{guest}-{target}.img'}"


def _disk_from(guest: str, number: int, item: Mapping[str, Any], pools: Mapping[str, str]) -> Disk:
    target, path = disk_place(guest, number, item, pools)
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
