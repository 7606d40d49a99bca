# SPDX-License-Identifier: GPL-3.0-or-later
"""The instant of a backup: all disks of a guest offered over NBD as they were at one moment."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from .config import Config
from .errors import BackupError, RunsElsewhere
from .guests import Disk, Guest, backup_socket, backup_xml

SOCKET_NAME = "personal-cluster-backup.sock"
WATCH_SECONDS = 5.0
SERVER_START_SECONDS = 60.0
QEMU_WRITE_LOCK_BYTE = 101


class Domains(Protocol):
    """What a capture asks of libvirt; :class:`hypervisor.Hypervisor` in earnest."""

    def find(self, name: str) -> Guest | None:
        """Return the guest of that name."""
        ...

    def freeze(self, name: str, limit: int) -> int:
        """Freeze the guest's filesystems."""
        ...

    def thaw(self, name: str) -> None:
        """Thaw them."""
        ...

    def begin(self, name: str, xml: str) -> None:
        """Start a backup job."""
        ...

    def job(self, name: str) -> str:
        """Return the XML of the backup job."""
        ...

    def abort(self, name: str) -> None:
        """End the backup job."""
        ...


@dataclass
class Capture:
    """An instant of a guest: NBD address by disk, whether its filesystems were frozen, and what went wrong since."""

    uris: dict[str, str]
    method: str
    frozen: bool = False
    failures: list[str] = field(default_factory=list)

    def check(self) -> None:
        """:raises BackupError: the instant did not hold to the end."""
        if self.failures:
            raise BackupError(self.failures[0])


class Guardian:
    """A process that outlives a killed run: it thaws the guest in time and clears up after the run.

    It is forked, in a session of its own, and hears of the run through a pipe: ``t`` (thawed), ``q`` (all is well,
    go); the pipe's end without ``q`` means that the run was killed.
    """

    def __init__(self, config: Config, guest: str) -> None:
        reading, self._writing = os.pipe()
        if os.fork() == 0:
            os.close(self._writing)
            _guard(config, guest, reading)
        os.close(reading)

    def thawed(self) -> None:
        """Tell that the guest is not frozen any more."""
        os.write(self._writing, b"t")

    def dismiss(self) -> None:
        """Tell that nothing is left to clear up."""
        os.write(self._writing, b"q")
        os.close(self._writing)


def _guard(config: Config, guest: str, reading: int) -> None:
    """The guardian's life; never returns."""
    os.setsid()
    # Whoever reads the run's output may be gone too, and writing to nobody kills.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    limit: float | None = time.monotonic() + config.freeze_limit
    while True:
        wait = None if limit is None else max(0.0, limit - time.monotonic())
        ready, _, _ = select.select([reading], [], [], wait)
        said = os.read(reading, 16) if ready else b""
        if not ready:
            subprocess.run(["virsh", "-c", config.libvirt_uri, "domfsthaw", guest], capture_output=True, check=False)
            limit = None
        elif b"q" in said:
            os._exit(0)
        elif b"t" in said:
            limit = None
        else:
            os.execv(sys.executable, [sys.executable, sys.argv[0], "--config", config.path, "cleanup"])


def marker(config: Config, guest: str) -> str:
    """Return the file that says that we froze this guest."""
    return os.path.join(config.run_dir, "frozen-" + quote(guest, safe=""))


@contextlib.contextmanager
def live(config: Config, domains: Domains, guest: Guest, say: Callable[[str], None]) -> Iterator[Capture]:
    """Give all disks of a running guest as they are now; end the job afterwards, whatever happened."""
    socket = _socket(config, guest)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    guardian = Guardian(config, guest.name)
    try:
        frozen = _begin_frozen(config, domains, guest, backup_xml(guest, socket, config.scratch_dir), say)
        guardian.thawed()
        uris = {disk.target: f"nbd+unix:///{disk.target}?socket={quote(socket)}" for disk in guest.disks}
        capture = Capture(uris, "live", frozen)
        with _watched(config, domains, guest, capture):
            try:
                yield capture
            except BackupError:
                capture.check()
                raise
        if not domains.job(guest.name):
            capture.failures.append(f"guest {guest.name}: its backup job ended before everything was read")
        capture.check()
    finally:
        domains.abort(guest.name)
        clear_scratch(config, guest)
        guardian.dismiss()


def _socket(config: Config, guest: Guest) -> str:
    """Return a path in the guest's own state directory, the one place where its AppArmor profile lets QEMU bind."""
    found = glob.glob(os.path.join(config.qemu_state_dir, f"domain-{guest.domain_id}-*"))
    if len(found) != 1:
        raise BackupError(f"guest {guest.name}: no state directory for it in {config.qemu_state_dir}")
    return os.path.join(found[0], SOCKET_NAME)


def _begin_frozen(config: Config, domains: Domains, guest: Guest, xml: str, say: Callable[[str], None]) -> bool:
    """Begin the backup job while the guest's filesystems are frozen, if its agent answers."""
    if not guest.agent:
        domains.begin(guest.name, xml)
        return False
    mark = marker(config, guest.name)
    with open(mark, "w", encoding="utf-8"):
        pass
    frozen = False
    begun = time.monotonic()
    try:
        try:
            count = domains.freeze(guest.name, config.freeze_limit)
            # None is fine: the agent ran the guest's own freeze hooks then, for a database on a raw disk for example.
            frozen = True
            say(f"{guest.name}: frozen, {count} filesystem(s)")
        except BackupError as error:
            say(f"{error}; its disks are captured as after a power cut")
        domains.begin(guest.name, xml)
        if frozen and time.monotonic() - begun >= config.freeze_limit:
            frozen = False
            say(f"{guest.name}: it took too long, and was thawed before its disks were captured")
    finally:
        thaw(domains, guest.name, say)
        os.unlink(mark)
    return frozen


def thaw(domains: Domains, name: str, say: Callable[[str], None]) -> None:
    """Thaw a guest; one that cannot be thawed was not frozen, or its agent is gone: said, no failure."""
    try:
        domains.thaw(name)
    except BackupError as error:
        say(str(error))


@contextlib.contextmanager
def _watched(config: Config, domains: Domains, guest: Guest, capture: Capture) -> Iterator[None]:
    """End the job before the scratch space is full: QEMU would stop the guest's writes."""
    over = threading.Event()

    def watch() -> None:
        while True:
            used = used_percent(config.scratch_dir)
            if used >= config.scratch_limit_percent:
                capture.failures.append(
                    f"guest {guest.name}: {config.scratch_dir} is {used} % full; the capture was given up for the guest"
                )
                domains.abort(guest.name)
                return
            if over.wait(WATCH_SECONDS):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def used_percent(path: str) -> int:
    """Return how full the filesystem of ``path`` is."""
    about = os.statvfs(path)
    return 100 - 100 * about.f_bavail // max(1, about.f_blocks)


def clear_scratch(config: Config, guest: Guest) -> None:
    """Remove the guest's scratch files."""
    for path in glob.glob(os.path.join(config.scratch_dir, f"{guest.uuid}.*")):
        os.unlink(path)


def is_ours(job_xml: str) -> bool:
    """Whether a backup job was begun by us."""
    return os.path.basename(backup_socket(job_xml)) == SOCKET_NAME


@contextlib.contextmanager
def offline(config: Config, domains: Domains, guest: Guest) -> Iterator[Capture]:
    """Give the disks of a guest that is shut off; fail if anybody used them meanwhile."""
    before = {disk.target: _idle_fingerprint(guest, disk) for disk in guest.disks}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=config.run_dir))
        uris = {disk.target: stack.enter_context(_served(disk, folder)) for disk in guest.disks}
        capture = Capture(uris, "offline")
        yield capture
    now = domains.find(guest.name)
    if now and now.active:
        raise BackupError(f"guest {guest.name} was started during its backup; the next run captures it while it runs")
    changed = [disk.target for disk in guest.disks if _idle_fingerprint(guest, disk) != before[disk.target]]
    if changed:
        raise BackupError(f"guest {guest.name}: {', '.join(changed)} was written during the backup; run it again")


def _idle_fingerprint(guest: Guest, disk: Disk) -> str:
    """Return what changes when an image is written.

    :raises RunsElsewhere: somebody has the disk open for writing.
    """
    if write_locked(disk.source):
        raise RunsElsewhere(f"guest {guest.name}: disk {disk.target} is open for writing")
    about = os.stat(disk.source)
    return f"{about.st_size} {about.st_mtime_ns}"


def write_locked(path: str) -> bool:
    """Whether a QEMU on any node has the image open for writing.

    QEMU says so with a read lock on one byte of the image, which the volume shows to all nodes. Opening the image with
    QEMU's own tools does not tell: they read a raw image in use without complaint. Nor does asking for the lock
    (F_OFD_GETLK): GlusterFS answers that from one brick, and a brick that was away has forgotten who holds what. So the
    byte is taken for a moment, which every brick must allow.
    """
    taken, free = (
        struct.pack("hhqqi4x", kind, os.SEEK_SET, QEMU_WRITE_LOCK_BYTE, 1, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK)
    )
    with open(path, "r+b", buffering=0) as image:
        try:
            fcntl.fcntl(image, fcntl.F_OFD_SETLK, taken)
        except (BlockingIOError, PermissionError):
            return True
        # FUSE releases a file some time after it was closed; a guest that starts meanwhile would be refused.
        fcntl.fcntl(image, fcntl.F_OFD_SETLK, free)
    return False


@contextlib.contextmanager
def _served(disk: Disk, folder: str) -> Iterator[str]:
    """Serve a disk over NBD, read only and without a lock, so that the guest can be started meanwhile."""
    socket = os.path.join(folder, disk.target)
    name = disk.source.replace(",", ",,")
    protocol = "host_device" if disk.kind == "block" else "file"
    image = f"driver={disk.format},file.driver={protocol},file.filename={name},force-share=on"
    argv = ["qemu-nbd", "--read-only", "--persistent", f"--socket={socket}", f"--export-name={disk.target}"]
    with subprocess.Popen([*argv, "--image-opts", image], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            limit = time.monotonic() + SERVER_START_SECONDS
            while not os.path.exists(socket):
                if server.poll() is not None or time.monotonic() > limit:
                    said = (
                        server.stderr.read().decode(errors="replace").strip() if server.stderr and server.poll() else ""
                    )
                    raise BackupError(f"cannot read {disk.source}: {said or 'qemu-nbd does not start'}")
                time.sleep(0.05)
            yield f"nbd+unix:///{disk.target}?socket={quote(socket)}"
        finally:
            server.terminate()
