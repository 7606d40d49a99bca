# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight judges, as plain data: hosts, their disks, the volumes, and the findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Data = Mapping[str, Any]
CLUSTER = "cluster"
COPIES = 3
DISK_KEYS = {"device", "name", "volume"}


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
        return [_disk(place, item) for place, item in mappings("cluster_disks", self.declared.get("disks"))]

    @property
    def nics(self) -> dict[str, str]:
        """By bridge the declared network card, lower case; without bridges whose card is no name or address."""
        declared = self.declared.get("nics")
        nics = declared.items() if isinstance(declared, Mapping) else ()
        return {str(bridge): nic.lower() for bridge, nic in nics if nic and isinstance(nic, str)}


def mappings(variable: str, declared: Any) -> list[tuple[str, Data]]:
    """Return what a list that was declared has of mappings, each with its place."""
    items = enumerate(declared) if isinstance(declared, list) else ()
    return [(f"{variable}[{index}]", item) for index, item in items if isinstance(item, Mapping)]


def no_mappings(host: str, variable: str, declared: Any, example: str) -> list[Finding]:
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
            Volume(str(item.get("name") or ""), whole(item.get("replica") or COPIES) or 0, item.get("allow") or [])
            for _place, item in mappings("storage_volumes", self.settings["volumes"])
        ]

    @property
    def volume_names(self) -> list[str]:
        """Everything that needs a disk on every node: the Gluster volumes, and what is local to each node."""
        return [*(volume.name for volume in self.volumes if volume.name), *self.settings["local_volumes"]]


Check = Callable[[Site], Iterator[Finding]]
HostCheck = Callable[[Host, Data], Iterator[Finding]]


def whole(value: Any) -> int | None:
    """Return a number as Ansible's modules would take it; None for what is no whole number."""
    return int(value) if isinstance(value, int | str) and re.fullmatch(r"-?[0-9]+", str(value)) else None
