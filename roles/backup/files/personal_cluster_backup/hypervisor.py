# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt, as far as a backup needs it; the only module that imports it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import libvirt

from .errors import BackupError
from .guests import Guest, parse

JOB_END_SECONDS = 120.0
# What libvirt answers when there is no such guest, or no backup job of it; all else is no answer.
ABSENT = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_BACKUP)


class Hypervisor:
    """The libvirt daemon of this node."""

    def __init__(self, uri: str) -> None:
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        try:
            self._connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise BackupError(f"cannot connect to libvirt at {uri}: {error}; is libvirtd running?") from error

    def guests(self) -> list[Guest]:
        """Return all guests that run or are defined here, by name."""
        found = [self._guest(domain) for domain in self._connection.listAllDomains()]
        return sorted((guest for guest in found if guest), key=lambda guest: guest.name)

    def find(self, name: str) -> Guest | None:
        """Return the guest of that name, or None."""
        domain = self._do(name, "find it", lambda found: found, none=ABSENT)
        return self._guest(domain) if domain else None

    def _guest(self, domain: Any) -> Guest | None:
        try:
            persistent = bool(domain.isPersistent())
            flags = libvirt.VIR_DOMAIN_XML_SECURE | (libvirt.VIR_DOMAIN_XML_INACTIVE if persistent else 0)
            active = bool(domain.isActive())
            return parse(
                domain.XMLDesc(flags),
                live=domain.XMLDesc(0) if active else "",
                domain_id=domain.ID() if active else 0,
                persistent=persistent,
                autostart=bool(domain.autostart()) if persistent else False,
                memory_saved=bool(domain.hasManagedSaveImage(0)) if persistent else False,
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise BackupError(f"libvirt cannot describe guest {domain.name()}: {error}") from error

    def _do(self, name: str, what: str, call: Callable[[Any], Any], none: Sequence[int] = ()) -> Any:
        """Ask libvirt; errors with a code in ``none`` mean that there is nothing."""
        try:
            return call(self._connection.lookupByName(name))
        except libvirt.libvirtError as error:
            if error.get_error_code() in none:
                return None
            raise BackupError(f"guest {name}: cannot {what}: {error}") from error

    def freeze(self, name: str, limit: int) -> int:
        """Freeze the guest's filesystems; return how many.

        :param limit: seconds in which the agent must answer.
        """

        def call(domain: Any) -> int:
            domain.agentSetResponseTimeout(limit)
            return int(domain.fsFreeze())

        return int(self._do(name, "freeze its filesystems", call))

    def thaw(self, name: str) -> None:
        """Thaw the guest's filesystems."""
        self._do(name, "thaw its filesystems", lambda domain: domain.fsThaw())

    def begin(self, name: str, xml: str) -> None:
        """Start a backup job."""
        self._do(name, "begin a backup", lambda domain: domain.backupBegin(xml, None, 0))

    def job(self, name: str) -> str:
        """Return the XML of the guest's backup job, or an empty text."""
        return str(self._do(name, "see its backup job", lambda domain: domain.backupGetXMLDesc(), none=ABSENT) or "")

    def abort(self, name: str) -> None:
        """End the guest's backup job and wait for its end; a guest or job that is gone is no failure."""
        limit = time.monotonic() + JOB_END_SECONDS
        asked = False
        while self.job(name):
            if not asked:
                self._do(name, "end the backup job", lambda domain: domain.abortJob())
                asked = True
            if time.monotonic() > limit:
                raise BackupError(f"guest {name}: its backup job does not end; try virsh domjobabort {name}")
            time.sleep(0.2)

    def define(self, xml: str, autostart: bool) -> None:
        """Define a guest."""
        try:
            self._connection.defineXML(xml).setAutostart(int(autostart))
        except libvirt.libvirtError as error:
            raise BackupError(f"libvirt does not accept the restored definition: {error}") from error

    def start(self, name: str) -> None:
        """Start a guest."""
        self._do(name, "start", lambda domain: domain.create())
