# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring one guest back: everything is extracted and verified before the old disk is touched."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from . import capture, manifest, run, sets
from .borg import Repository
from .config import Config
from .errors import BackupError

if TYPE_CHECKING:
    from .hypervisor import Hypervisor

CHUNK = 4 * 1024 * 1024
ZEROES = bytes(CHUNK)
PROGRESS_SECONDS = 10.0
ASK_SECONDS = 30
CONVERT_SECONDS = 43200
RESTORING = ".restoring"
FORMATS = ("raw", "qcow2")


def choose(found: list[sets.BackupSet], guest: str, stamp: str) -> sets.BackupSet:
    """Return the set of that name, or the newest one.

    :raises BackupError: there is none; the message lists what there is.
    """
    complete = [item for item in found if item.guest == guest and item.complete]
    if not complete:
        others = sorted({item.guest for item in found if item.complete})
        raise BackupError(f"no complete set of guest {guest}; there are sets of: {', '.join(others) or 'no guest'}")
    for item in reversed(complete):
        if stamp in ("", item.stamp):
            return item
    raise BackupError(f"guest {guest} has no set {stamp}; it has {', '.join(item.stamp for item in complete)}")


def restore(config: Config, name: str, stamp: str, start: bool, say: Callable[[str], None]) -> None:
    """Restore guest ``name`` on this node.

    :raises BackupError: refused, or failed; before the last disk is verified nothing has changed.
    """
    with run.node_lock(config, say), run.repository(config, say) as repository:
        hypervisor = run.connect(config)
        refuse_running(hypervisor, name)
        refuse_running_elsewhere(config, name, say)
        with tempfile.TemporaryDirectory(dir=config.run_dir) as folder:
            about, xml = fetch(repository, name, stamp, folder)
            say(f"{name}: restoring set {about.stamp}")
            refuse_disks(about, xml)
            refuse_used(hypervisor, about)
            for disk in about.disks:
                extract_disk(repository, disk, say)
            # That took hours, perhaps: the guest may have been started since, also on another node.
            refuse_used(hypervisor, about)
            refuse_running_elsewhere(config, name, say)
            suffix = ".before-restore-" + sets.new_stamp(datetime.now(UTC))
            for disk in about.disks:
                put_in_place(config, disk.source, suffix, say)
            restore_firmware(about, folder, suffix)
        hypervisor.define(xml, about.autostart)
        if start:
            hypervisor.start(name)
        say(f"{name}: {'runs' if start else 'is defined'}, from set {about.stamp}")


def fetch(repository: Repository, name: str, stamp: str, folder: str) -> tuple[manifest.Manifest, str]:
    """Bring all of a set but its disks into ``folder``; return its manifest and domain XML."""
    chosen = choose(sets.group(repository.names()), name, stamp)
    repository.extract(sets.archive_name(name, chosen.stamp, sets.MANIFEST), folder)
    return manifest.read(folder)


def refuse_running(hypervisor: Hypervisor, name: str) -> None:
    """:raises BackupError: the guest runs on this node, or would go on from its saved memory."""
    guest = hypervisor.find(name)
    if guest and guest.active:
        raise BackupError(f"guest {name} runs on this node; shut it down first")
    if guest and guest.memory_saved:
        raise BackupError(
            f"guest {name} has its memory saved, which fits the present disks only: start it and shut it down, "
            f"or give the memory up with virsh managedsave-remove {name}"
        )


def refuse_running_elsewhere(config: Config, name: str, say: Callable[[str], None]) -> None:
    """Ask the other nodes, since a brick that restarts forgets who holds an image: in time, all of them may have.

    :raises BackupError: the guest runs on another node. One that does not answer is told to ``say``.
    """
    for node, address in sorted(config.other_nodes.items()):
        uri = f"qemu+tls://{address}/system"
        argv = ["timeout", str(ASK_SECONDS), "virsh", "--readonly", "--connect", uri, "domstate", "--", name]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode == 0 and done.stdout.strip() != "shut off":
            raise BackupError(f"guest {name} is {done.stdout.strip()} on {node}; shut it down there first")
        if done.returncode and "failed to get domain" not in done.stderr:
            said = (done.stderr.strip().splitlines() or ["it took too long"])[-1]
            say(f"{node} does not tell whether {name} runs there ({said}); only what holds its disks is looked at")


def refuse_used(hypervisor: Hypervisor, about: manifest.Manifest) -> None:
    """:raises BackupError: the guest runs, or somebody else uses one of its disks, on this node or another."""
    refuse_running(hypervisor, about.guest)
    others = [guest for guest in hypervisor.guests() if guest.name != about.guest]
    owners = {disk.source: guest.name for guest in others for disk in guest.disks}
    for path in (disk.source for disk in about.disks):
        if path in owners:
            raise BackupError(f"{path} is a disk of guest {owners[path]} by now; detach it there first")
        if os.path.exists(path) and capture.write_locked(path):
            where = "perhaps on another node; shut that machine down first"
            raise BackupError(f"{path} is open for writing: a running machine holds it, {where}")


def refuse_disks(about: manifest.Manifest, xml: str) -> None:
    """:raises BackupError: a disk is of a kind that cannot be restored, or its directory is missing."""
    problems = []
    for disk in about.disks:
        if disk.kind != "file" or disk.format not in FORMATS:
            problems.append(f"disk {disk.target} is {disk.kind}/{disk.format}; extract archive {disk.archive} by hand")
        elif not os.path.isdir(os.path.dirname(disk.source)):
            problems.append(f"{os.path.dirname(disk.source)} does not exist on this node; mount it or create it")
    if not ElementTree.fromstring(xml).findtext("name"):
        problems.append("the saved definition has no name")
    if problems:
        raise BackupError("; ".join(problems))


def extract_disk(repository: Repository, disk: manifest.SavedDisk, say: Callable[[str], None]) -> None:
    """Bring a disk to ``SOURCE.restoring``, verified, in the format that its guest expects."""
    final = disk.source + RESTORING
    raw = final if disk.format == "raw" else final + ".raw"
    with open(raw, "wb") as file, repository.stream(disk.archive, disk.file) as stream:
        size, digest = copy_sparse(stream, file, disk, say)
    if (size, digest) != (disk.size, disk.sha256):
        os.unlink(raw)
        raise BackupError(f"disk {disk.target} of archive {disk.archive} is not what was saved (hash differs)")
    say(f"{disk.target}: {size >> 20} MiB extracted, hash verified")
    if raw != final:
        try:
            convert(raw, final, disk.format)
        finally:
            os.unlink(raw)


def convert(raw: str, final: str, image_format: str) -> None:
    """Make an image on stable storage out of a raw one, or none."""
    argv = ["qemu-img", "convert", "-f", "raw", "-O", image_format, raw, final]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONVERT_SECONDS, check=False)
        if done.returncode:
            raise BackupError(f"cannot convert {raw}: {done.stderr.decode(errors='replace').strip()}")
        # qemu-img does not wait for that.
        with open(final, "r+b") as file:
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(final)
        raise


def copy_sparse(
    stream: IO[bytes], file: IO[bytes], disk: manifest.SavedDisk, say: Callable[[str], None]
) -> tuple[int, str]:
    """Copy, leaving holes for zeroes, to stable storage; return size and SHA-256."""
    digest, size, told = hashlib.sha256(), 0, time.monotonic()
    while data := stream.read(CHUNK):
        digest.update(data)
        size += len(data)
        if data == ZEROES[: len(data)]:
            file.seek(len(data), os.SEEK_CUR)
        else:
            file.write(data)
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            say(f"{disk.target}: {size * 100 // max(1, disk.size)} % of {disk.size >> 20} MiB extracted")
    file.truncate(size)
    file.flush()
    os.fsync(file.fileno())
    return size, digest.hexdigest()


def put_in_place(config: Config, path: str, suffix: str, say: Callable[[str], None]) -> None:
    """Put ``PATH.restoring`` in the place of ``PATH``, which is kept beside it."""
    mode = 0o600
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode & 0o777
        os.rename(path, path + suffix)
        say(f"the old disk is kept as {path}{suffix}")
    if config.image_owner:
        shutil.chown(path + RESTORING, pwd.getpwnam(config.image_owner).pw_uid, grp.getgrnam(config.image_owner).gr_gid)
    os.chmod(path + RESTORING, mode)
    os.rename(path + RESTORING, path)


def restore_firmware(about: manifest.Manifest, folder: str, suffix: str) -> None:
    """Put UEFI variables and the state of the emulated TPM back, keeping what is there."""
    if about.nvram:
        replace(os.path.join(folder, manifest.NVRAM_FILE), about.nvram, suffix)
    if about.tpm:
        replace(os.path.join(folder, manifest.TPM_FOLDER), manifest.tpm_state(about.uuid), suffix)


def replace(source: str, path: str, suffix: str) -> None:
    """Move a file or folder to ``path`` with the owner that its predecessor had, which is kept beside it."""
    owner = None
    with contextlib.suppress(FileNotFoundError):
        owner = os.stat(path)
        os.rename(path, path + suffix)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.move(source, path)
    if owner:
        for each in [path, *(os.path.join(top, name) for top, _, names in os.walk(path) for name in names)]:
            os.chown(each, owner.st_uid, owner.st_gid)
