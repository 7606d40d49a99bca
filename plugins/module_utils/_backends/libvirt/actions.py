# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of a plan: images created, guests defined, changed, started and stopped."""

from __future__ import annotations

import os
import pwd
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import explained
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import Disk, Guest
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.patching import LiveChange
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import (
    disk_failed,
    read_networks,
)
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

IMAGE_OWNER = "libvirt-qemu"
# Seconds for which a guest is watched that was resumed after its disk had failed: it tries at once what had failed.
WATCHED = 5


class Actions:
    """What a plan's steps do; each looks its domain up again, for a step before it may have made it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def _lookup(self, guest: Guest) -> Any:
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
            explained(self._lookup(guest).blockResize, disk.target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        else:
            os.truncate(disk.path, size)

    def define(self, guest: Guest, xml: str) -> None:
        """Define a guest, after making sure that its NICs do not end on a trunk by mistake."""
        import libvirt

        problems = nic_problems(guest, read_networks(self._connection))
        if problems:
            raise ClusterError("; ".join(problems))
        explained(self._connection.defineXMLFlags, xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def change_live(self, guest: Guest, change: LiveChange) -> None:
        """Plug a device into a running guest, or change it."""
        import libvirt

        xml = ET.tostring(change.element, encoding="unicode")
        domain = self._lookup(guest)
        call = domain.attachDeviceFlags if change.new else domain.updateDeviceFlags
        explained(call, xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_autostart(self, guest: Guest) -> None:
        """Set or clear the mark that starts the guest with the node."""
        explained(self._lookup(guest).setAutostart, int(bool(guest.autostart)))

    def start(self, guest: Guest) -> None:
        """Start a guest, paused when that is what was declared."""
        import libvirt

        flags = libvirt.VIR_DOMAIN_START_PAUSED if guest.state == "paused" else 0
        explained(self._lookup(guest).createWithFlags, flags)

    def pause(self, guest: Guest) -> None:
        """Suspend a guest."""
        explained(self._lookup(guest).suspend)

    def resume(self, guest: Guest) -> None:
        """Let a suspended guest go on, and see whether one whose disk had failed does: it is paused again if not."""
        domain = self._lookup(guest)
        watched = WATCHED if disk_failed(domain) else 0
        explained(domain.resume)
        limit = time.monotonic() + watched
        while time.monotonic() < limit and not disk_failed(domain):
            time.sleep(0.5)

    def stop(self, guest: Guest) -> None:
        """Ask a guest to shut down; end it after the timeout when that is allowed."""
        domain = self._lookup(guest)
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
        explained(self._lookup(guest).undefineFlags, flags)


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
