#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the pools and guests of this node that are marked for autostart and are not active.

libvirtd tries once, when it starts; after a power cut the shared storage is mounted later. This
program does what is possible now and fails while something is left, so that systemd calls it again.

A guest that has run since the boot is not started again: somebody shut it down. A file in the directory of notes, which
is empty after a boot, stands for each guest that ran when this program looked, or that it started.
"""

from __future__ import annotations

import argparse
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import libvirt


def missing_files(xml: str) -> list[str]:
    """Return the disk images and kernels of a guest that are not there."""
    root = ET.fromstring(xml)
    paths = [source.get("file", "") for source in root.iterfind("devices/disk[@device='disk']/source[@file]")]
    paths += [root.findtext(f"os/{tag}") or "" for tag in ("kernel", "initrd")]
    return [path for path in paths if path and not os.path.exists(path)]


def start_pools(connection: Any, mounts: dict[str, str]) -> list[str]:
    """Start the pools and return what stands in the way of the rest."""
    problems = []
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE):
        mount = mounts.get(pool.name())
        if not pool.autostart():
            continue
        if mount and not os.path.ismount(mount):
            problems.append(f"pool {pool.name()}: {mount} is not mounted")
            continue
        try:
            pool.create()
            print(f"pool {pool.name()} started")
        except libvirt.libvirtError as error:
            problems.append(f"pool {pool.name()}: {error}")
    return problems


def note(domain: Any, notes: Path) -> list[str]:
    """Note that a guest has run since the boot, and return what stands in the way of that."""
    try:
        notes.mkdir(parents=True, exist_ok=True)
        (notes / domain.UUIDString()).touch()
    except OSError as error:
        return [f"guest {domain.name()} runs, and is started again when it is shut down: {error}"]
    return []


def start_guests(connection: Any, notes: Path) -> list[str]:
    """Start the guests that have not run since the boot, and return what stands in the way of the rest."""
    problems = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        problems += note(domain, notes)
    flags = libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE | libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART
    for domain in connection.listAllDomains(flags):
        if os.path.lexists(notes / domain.UUIDString()):
            continue
        missing = missing_files(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        if missing:
            problems.append(f"guest {domain.name()}: not there: {', '.join(missing)}")
            continue
        try:
            domain.create()
            print(f"guest {domain.name()} started")
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive():
                problems.append(f"guest {domain.name()}: {error}")
                continue
        # Not before: a run that is killed in between must not leave a guest off that never ran.
        problems += note(domain, notes)
    return problems


def main() -> int:
    """Read the arguments, start what can be started, and return the exit code."""
    parser = argparse.ArgumentParser(description="Start the pools and guests that are marked for autostart.")
    parser.add_argument("--mount", action="append", default=[], help="POOL=MOUNTPOINT that the pool needs; repeatable")
    parser.add_argument(
        "--notes", type=Path, default="/run/personal-cluster-guests", help="which guests ran since the boot"
    )
    arguments = parser.parse_args()
    mounts = dict(item.split("=", 1) for item in arguments.mount)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open("qemu:///system")
        problems = start_pools(connection, mounts) + start_guests(connection, arguments.notes)
    except libvirt.libvirtError as error:
        problems = [f"libvirtd: {error}"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
