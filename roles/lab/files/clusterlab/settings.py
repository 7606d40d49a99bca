# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab consists of: machines, disks, networks, and where its files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

RELEASES = ("trixie", "bookworm")
SWITCHES = ("br0", "wan0", "vlans")
NETWORK = "10.10.0"


class LabError(Exception):
    """A failure whose message says what is wrong and how to mend it."""


@dataclass(frozen=True)
class Nic:
    """A network card: the switch it is plugged into (``mgmt`` is QEMU's user network) and its PCI slot."""

    switch: str
    slot: int
    mac: str

    @property
    def name(self) -> str:
        """The name that udev gives it inside the machine."""
        return f"enp0s{self.slot}"


@dataclass(frozen=True)
class Disk:
    """A data disk; its serial makes the stable name ``/dev/disk/by-id/virtio-SERIAL``."""

    serial: str
    size_mib: int


@dataclass(frozen=True)
class Machine:
    """One virtual machine."""

    name: str
    number: int
    memory_mib: int
    cpus: int
    nics: tuple[Nic, ...]
    disks: tuple[Disk, ...] = ()

    @property
    def address(self) -> str:
        """The address on the LAN (switch br0)."""
        return f"{NETWORK}.{10 + self.number}"

    @property
    def ssh_port(self) -> int:
        """The port on 127.0.0.1 that leads to this machine's ssh."""
        return port_base() + self.number


def check_node_count() -> None:
    """Refuse a number of nodes that the lab does not have.

    :raises LabError: LAB_NODES is such a number.
    """
    given = os.environ.get("LAB_NODES", "3")
    if given not in NODE_COUNTS:
        raise LabError(f"LAB_NODES is {given!r}; use 6, or leave it out for 3")


def port_base() -> int:
    """Return the port number that ssh forwards count from; LAB_PORT_BASE overrides it.

    :raises LabError: it is none.
    """
    given = os.environ.get("LAB_PORT_BASE", "2200")
    if not given.isdecimal() or not 1024 <= int(given) <= 65000:
        raise LabError(f"LAB_PORT_BASE is {given!r}; use a port from 1024 to 65000, or leave it out for 2200")
    return int(given)


def _nic(number: int, switch: str, slot: int) -> Nic:
    index = ("mgmt", *SWITCHES).index(switch)
    return Nic(switch, slot, f"52:54:00:ab:{number:02x}:{index:02x}")


def _node(number: int, nic_order: tuple[str, ...], disk_order: tuple[str, ...]) -> Machine:
    sizes = {"gv0": 4096, "gv1": 3072, "bmv0": 2048}
    return Machine(
        name=f"node{number}",
        number=number,
        memory_mib=3072,
        cpus=1,
        nics=tuple(_nic(number, switch, 3 + place) for place, switch in enumerate(nic_order)),
        disks=tuple(Disk(serial, sizes[serial]) for serial in disk_order),
    )


# Cards and disks are plugged in a different order into each node, as in real PCs: kernel names must not matter.
ALL: tuple[Machine, ...] = (
    Machine("tang1", 0, 512, 1, (_nic(0, "mgmt", 3), _nic(0, "br0", 4))),
    _node(1, ("mgmt", "br0", "wan0", "vlans"), ("gv0", "gv1", "bmv0")),
    _node(2, ("vlans", "mgmt", "br0", "wan0"), ("bmv0", "gv0", "gv1")),
    _node(3, ("wan0", "vlans", "br0", "mgmt"), ("gv1", "bmv0", "gv0")),
    *(_node(number, ("mgmt", "br0", "wan0", "vlans"), ("gv0", "gv1", "bmv0")) for number in (4, 5, 6)),
)
NODE_COUNTS = {"3": 3, "6": 6}
MACHINES = ALL[: 1 + NODE_COUNTS.get(os.environ.get("LAB_NODES", "3"), 3)]


def machine(name: str) -> Machine:
    """Return the machine called ``name``.

    :raises LabError: there is none.
    """
    for candidate in ALL:
        if candidate.name == name:
            return candidate
    raise LabError(f"no machine is called {name!r}; there are {', '.join(item.name for item in ALL)}")


@dataclass(frozen=True)
class Paths:
    """Where the lab keeps its files, all below one directory that git ignores."""

    top: Path

    @property
    def run(self) -> Path:
        """Sockets, process ids and console logs of what runs now."""
        return self.top / "run"

    @property
    def ssh(self) -> Path:
        """The lab's own ssh keys."""
        return self.top / "ssh"

    @property
    def ssh_config(self) -> Path:
        """An ssh client configuration that knows every machine by its name."""
        return self.top / "ssh_config"

    @property
    def secrets(self) -> Path:
        """Passphrases generated for this lab."""
        return self.top / "secrets"

    @property
    def disks(self) -> Path:
        """The machines' disks."""
        return self.top / "disks"

    @property
    def saved(self) -> Path:
        """Copies of all disks, made while the lab was stopped."""
        return self.top / "saved"

    @property
    def state(self) -> Path:
        """What the playbooks keep of the lab's cluster: its certificate authority and copies of keys."""
        return self.top / "state"

    @property
    def images(self) -> Path:
        """The node images."""
        return self.top / "image"

    def image(self, release: str) -> Path:
        """The node image of a Debian release: root.img, vmlinuz, initrd.img, recipe."""
        return self.images / release

    @property
    def release_file(self) -> Path:
        """Names the release that the disks were made from."""
        return self.disks / "release"


def paths() -> Paths:
    """Return the lab's places; LAB_DIR overrides the default ``.lab`` in the current directory.

    :raises LabError: the path is too long for a socket.
    """
    top = Path(os.environ.get("LAB_DIR") or ".lab").resolve()
    if len(str(top)) > 70:
        raise LabError(f"{top} is too long for a socket path (70 characters at most); set LAB_DIR to a shorter one")
    return Paths(top)
