# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup run: every guest of this node, then retention, then the figures."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import capture, gluster, lease, manifest, metrics, sets
from .borg import Repository
from .config import Config
from .errors import BackupError, RunsElsewhere
from .guests import Disk, Guest

if TYPE_CHECKING:
    from .hypervisor import Hypervisor

Say = Callable[[str], None]
NODE_LOCK = "lock"
NODE_LOCK_SECONDS = 60.0
PERSON_SECONDS = 900.0


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    config: Config
    hypervisor: Hypervisor
    repository: Repository
    say: Say


@contextlib.contextmanager
def opened(config: Config, say: Say) -> Iterator[Tools]:
    """Hold this node's lock and the repository's lease, clear up after dead runs, and give the tools."""
    with node_lock(config, say):
        hypervisor = connect(config)
        clear_up(config, hypervisor, say)
        with repository(config, say, config.lease_wait) as opened_repository:
            yield Tools(config, hypervisor, opened_repository, say)


def connect(config: Config) -> Hypervisor:
    """Connect to libvirt. It is imported here: a list of sets needs none."""
    from .hypervisor import Hypervisor

    return Hypervisor(config.libvirt_uri)


@contextlib.contextmanager
def repository(config: Config, say: Say, wait: float = PERSON_SECONDS) -> Iterator[Repository]:
    """Hold the repository's lease and give the repository.

    :param wait: seconds to wait for the node that works on it now.
    """
    Repository(config, -1, say).check_mount()
    path = config.repository + ".lease"

    def vet(descriptor: int, left: str) -> None:
        Repository(config, descriptor, say).refuse_another(left)

    with (
        lease.held(path, wait, config.node, say, vet) as descriptor,
        lease.shown(path, config.dead_after, say),
    ):
        found = Repository(config, descriptor, say)
        found.break_stale_locks()
        yield found


@contextlib.contextmanager
def node_lock(config: Config, say: Say) -> Iterator[None]:
    """Hold the lock that lets one backup or restore at a time work on this node.

    What clears up after a killed run holds it too; so it is waited for, shortly.
    """
    os.makedirs(config.run_dir, mode=0o700, exist_ok=True)
    with lease.held(os.path.join(config.run_dir, NODE_LOCK), NODE_LOCK_SECONDS, config.node, say):
        yield


def clear_up(config: Config, hypervisor: Hypervisor, say: Say) -> None:
    """Undo what a killed run left: a backup job without an owner, a frozen guest, scratch files."""
    for guest in hypervisor.guests():
        if not guest.active:
            continue
        job = hypervisor.job(guest.name)
        if job and capture.is_ours(job):
            say(f"guest {guest.name}: ending the backup job of a dead run")
            hypervisor.abort(guest.name)
        mark = capture.marker(config, guest.name)
        if os.path.exists(mark):
            say(f"guest {guest.name}: thawing it after a dead run")
            capture.thaw(hypervisor, guest.name, say)
            os.unlink(mark)
    if os.path.isdir(config.scratch_dir):
        for entry in os.scandir(config.scratch_dir):
            if entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def run(config: Config, wanted: Sequence[str], say: Say) -> bool:
    """Back up the guests of this node, or only those in ``wanted``; return whether all was saved."""
    started = time.time()
    try:
        failed, times = _run(config, wanted, say)
    except BackupError:
        if not wanted:
            times = metrics.last_good_of(metrics.read(config.metrics_file))
            outcome = metrics.Outcome(started, time.time(), len(times), False)
            metrics.write(config.metrics_file, metrics.render(outcome, times))
        raise
    whole = None if wanted else metrics.Outcome(started, time.time(), failed, not failed)
    metrics.write(config.metrics_file, metrics.render(whole, times, metrics.read(config.metrics_file)))
    return not failed


def _run(config: Config, wanted: Sequence[str], say: Say) -> tuple[int, dict[str, float]]:
    """Return how many guests could not be saved, and by guest the time of its newest complete set."""
    with opened(config, say) as tools:
        found = [guest for guest in tools.hypervisor.guests() if guest.name not in config.exclude]
        if missing := sorted(set(wanted) - {guest.name for guest in found}):
            raise BackupError(f"no such guest on this node: {', '.join(missing)}")
        known = sets.group(tools.repository.names())
        failed = 0
        for guest in found:
            if not wanted or guest.name in wanted:
                failed += not save(tools, guest, known, asked=guest.name in wanted)
        newest = {name: item.time.timestamp() for name, item in tidy(tools).items()}
    return failed, {guest.name: newest.get(guest.name, 0.0) for guest in found}


def tidy(tools: Tools) -> dict[str, sets.BackupSet]:
    """Delete what may go, compact, and return the newest complete set of each guest."""
    config, found = tools.config, sets.group(tools.repository.names())
    going = sets.expendable(found, datetime.now(UTC), config.keep_daily, config.keep_within_days)
    if going:
        for item in going:
            tools.say(
                f"deleting set {item.stamp} of {item.guest} ({'expired' if item.complete else 'never completed'})"
            )
        tools.repository.delete([archive for item in going for archive in item.archives])
    tools.repository.compact()
    return sets.last_good(found)


def save(tools: Tools, guest: Guest, known: Sequence[sets.BackupSet], *, asked: bool) -> bool:
    """Back up one guest; a failure is said and does not stop the run."""
    last = sets.last_good(known).get(guest.name)
    try:
        if not guest.active and not asked and last and is_current(guest, last, datetime.now(UTC)):
            tools.say(f"{guest.name}: shut off and saved today already, in set {last.stamp}")
            return True
        stamp, seconds = _save(tools, guest)
    except RunsElsewhere as error:
        tools.say(f"{guest.name}: left to the node that runs it ({error})")
        return True
    except (BackupError, OSError) as error:
        tools.say(f"{guest.name}: FAILED: {error}")
        return False
    tools.say(f"{guest.name}: saved as set {stamp} in {seconds:.0f} s")
    return True


def is_current(guest: Guest, last: sets.BackupSet, now: datetime) -> bool:
    """Whether a guest that is shut off was saved today, perhaps by another node, and not written since."""
    with contextlib.suppress(OSError):
        written = max((os.stat(disk.source).st_mtime for disk in guest.disks), default=0.0)
        return last.stamp[:8] == sets.new_stamp(now)[:8] and written < last.time.timestamp()
    return False


def _save(tools: Tools, guest: Guest) -> tuple[str, float]:
    config, begun = tools.config, time.monotonic()
    if guest.problems:
        raise BackupError("; ".join(guest.problems))
    gluster.gate(config.volumes, config.heal_wait, tools.say)
    stamp = sets.new_stamp(datetime.now(UTC))
    tools.say(f"{guest.name}: capturing {len(guest.disks)} disk(s), set {stamp}")
    how = "live" if guest.active and guest.disks else "offline"
    disks: tuple[manifest.SavedDisk, ...] = ()
    frozen = False
    if guest.disks:
        make_scratch(config)
        taken = (
            capture.live(config, tools.hypervisor, guest, tools.say)
            if guest.active
            else capture.offline(config, tools.hypervisor, guest)
        )
        with taken as instant:
            frozen = instant.frozen
            tools.say(f"{guest.name}: captured {instant.method}, {'frozen' if frozen else 'not frozen'}")
            if guest.memory_saved:
                tools.say(f"{guest.name}: its memory is saved beside its disks, which are as after a power cut")
            disks = tuple(_save_disk(tools, guest, disk, stamp, instant.uris[disk.target]) for disk in guest.disks)
    _save_manifest(tools, guest, stamp, how, frozen, disks)
    return stamp, time.monotonic() - begun


def make_scratch(config: Config) -> None:
    """Make the directory for what guests overwrite while they are read: it holds their data in plain text.

    :raises BackupError: the volume that it belongs on is not mounted.
    """
    if config.scratch_mount and not os.path.ismount(config.scratch_mount):
        raise BackupError(f"{config.scratch_mount} is not mounted; scratch files of captures belong on it")
    os.makedirs(config.scratch_dir, exist_ok=True)
    # QEMU, which is not root, opens the files in it.
    os.chmod(config.scratch_dir, 0o711)


def _save_disk(tools: Tools, guest: Guest, disk: Disk, stamp: str, uri: str) -> manifest.SavedDisk:
    archive, filename = sets.archive_name(guest.name, stamp, disk.target), f"{disk.target}.raw"
    with tempfile.TemporaryDirectory(dir=tools.config.run_dir) as folder:
        report = os.path.join(folder, "report.json")
        label = f"{guest.name}: {disk.target}"
        command = [sys.executable, sys.argv[0], "read", "--uri", uri, "--report", report, "--label", label]
        tools.repository.create_from_command(archive, filename, command)
        with open(report, encoding="utf-8") as file:
            said = json.load(file)
    tools.say(f"{label}: {said['size'] >> 20} MiB saved")
    return manifest.SavedDisk(
        target=disk.target,
        source=disk.source,
        kind=disk.kind,
        format=disk.format,
        archive=archive,
        file=filename,
        size=said["size"],
        sha256=said["sha256"],
    )


def _save_manifest(
    tools: Tools, guest: Guest, stamp: str, how: str, frozen: bool, disks: tuple[manifest.SavedDisk, ...]
) -> None:
    """Write the archive that makes the set complete.

    :raises BackupError: an archive of the set is gone: to a node that got a lost lease, the set was never completed.
    """
    if gone := sorted({disk.archive for disk in disks}.difference(tools.repository.names())):
        raise BackupError(f"{', '.join(gone)} is gone from the repository, deleted by another node; back it up again")
    about = manifest.Manifest(
        guest=guest.name,
        uuid=guest.uuid,
        node=tools.config.node,
        stamp=stamp,
        method=how,
        frozen=frozen,
        running=guest.active,
        autostart=guest.autostart,
        nvram=guest.nvram if guest.nvram and os.path.exists(guest.nvram) else "",
        tpm=os.path.isdir(manifest.tpm_state(guest.uuid)),
        disks=disks,
    )
    with tempfile.TemporaryDirectory(dir=tools.config.run_dir) as folder:
        manifest.write(folder, about, guest)
        tools.repository.create_from_folder(sets.archive_name(guest.name, stamp, sets.MANIFEST), folder)
