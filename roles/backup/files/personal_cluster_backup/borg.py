# SPDX-License-Identifier: GPL-3.0-or-later
"""The Borg repository: archives in, archives out. Any exit code but zero is a failure."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from .config import Config
from .errors import BackupError
from .lease import touched

SHORT_SECONDS = 1800
LOCK_WAIT_SECONDS = 600
OUR_HOSTS = "personal-cluster-"
# The role itself works on the repository without the lease; its module kills a borg that takes a quarter of this.
ROLE_HOSTS = "backup-role-"
ROLE_SECONDS = 3600
# Borg never outlives the run, however that ends: nobody would watch its lease.
BORG = ("setpriv", "--pdeathsig", "KILL", "borg")


def mount_type(path: str) -> str:
    """Return the type of the filesystem that ``path`` is on."""
    best, kind = "", ""
    real = os.path.realpath(path)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            parts = line.split(" ")
            point = parts[1].replace("\\040", " ")
            if (point == "/" or real == point or real.startswith(point + "/")) and len(point) >= len(best):
                best, kind = point, parts[2]
    return kind


def error_of(line: str) -> str:
    """Return the message of a line of borg's JSON log if it reports an error, else an empty text."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("levelname") not in ("ERROR", "CRITICAL"):
        return ""
    return " ".join(part for part in (str(entry.get("message", "")), str(entry.get("msgid") or "")) if part)


class Repository:
    """Runs borg; ``lease`` is inherited by every borg process, see :mod:`lease`."""

    def __init__(self, config: Config, lease: int, say: Callable[[str], None]) -> None:
        self._config = config
        self._lease = lease
        self._say = say
        self._path = config.repository

    def _environment(self) -> dict[str, str]:
        config = self._config
        try:
            with open(config.passphrase_file, encoding="utf-8") as file:
                passphrase = file.read().rstrip("\n")
        except OSError as error:
            raise BackupError(f"cannot read the passphrase: {error}") from error
        return {
            **os.environ,
            "BORG_PASSPHRASE": passphrase,
            "BORG_BASE_DIR": config.base_dir,
            "BORG_HOST_ID": config.host_id,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "no",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
            "BORG_EXIT_CODES": "legacy",
            "LC_ALL": "C.UTF-8",
        }

    @contextmanager
    def _process(self, arguments: Sequence[str], limit: float, cwd: str | None = None) -> Iterator[IO[bytes]]:
        """Run borg and give its output; on leaving, wait for its end.

        :raises BackupError: borg failed, or ran longer than ``limit`` seconds.
        """
        argv = [*BORG, "--log-json", "--lock-wait", str(LOCK_WAIT_SECONDS), *arguments]
        errors: list[str] = []
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            cwd=cwd,
            pass_fds=(self._lease,),
        ) as process:
            assert process.stdout and process.stderr
            timer = threading.Timer(limit, process.kill)
            listener = threading.Thread(target=self._listen, args=(process.stderr, errors), daemon=True)
            timer.start()
            listener.start()
            try:
                yield process.stdout
                process.stdout.read()
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
                timer.cancel()
                listener.join()
        if process.returncode:
            said = "; ".join(errors[-3:]) or "it said nothing"
            raise BackupError(f"borg {arguments[0]} failed with exit code {process.returncode}: {said}")

    def _listen(self, stream: IO[bytes], errors: list[str]) -> None:
        for raw in stream:
            line = raw.decode(errors="replace").strip()
            if line.startswith("{"):
                if said := error_of(line):
                    errors.append(said)
            elif line:
                self._say(line)

    def _call(self, *arguments: str, limit: float = SHORT_SECONDS, cwd: str | None = None) -> bytes:
        with self._process(arguments, limit, cwd) as output:
            return output.read()

    def check_mount(self) -> None:
        """Fail unless the repository is where it belongs.

        :raises BackupError: its volume is not mounted.
        """
        wanted = self._config.require_mount
        if wanted and mount_type(self._path) != wanted:
            raise BackupError(f"{self._path} is not on {wanted}: mount its volume first")

    def refuse_another(self, left: str) -> None:
        """Make sure that no other node works on the repository, now that the lease is ours.

        The storage may have forgotten the lease of another node, which shows it for that case. It is looked for only
        where another node left something: its lock in the repository, or its name in the lease.

        :param left: whom the lease's file names: the last holder, if that did not release it.
        :raises BackupError: another node is at work.
        """
        config = self._config
        ours = [holder for holder in self._holders() if holder.startswith(OUR_HOSTS)]
        others = [holder for holder in ours if holder.rpartition(".")[0] != config.host_id]
        if left and left.rpartition(" ")[0] != config.node:
            others.append(left)
        if not others:
            return
        self._say(f"looking for {config.dead_after} s whether {others[0]}, which locked the repository, is dead")
        if touched(self._lease, config.dead_after):
            raise BackupError(
                f"{self._path} is locked by {', '.join(others)}, which is at work although its lease was lost; "
                "try again when that has ended"
            )

    def break_stale_locks(self) -> None:
        """Break locks that runs on any node, or the role, left behind.

        All our writers hold the lease, and it is held by us now: after :meth:`refuse_another` such a lock has no living
        owner. Beside a lock that may have one all stay: Borg breaks them together.
        """
        holders = self._holders()
        long_ago = time.time() - ROLE_SECONDS
        if holders and all(
            holder.startswith(OUR_HOSTS) or (holder.startswith(ROLE_HOSTS) and changed < long_ago)
            for holder, changed in holders.items()
        ):
            self._say(f"breaking the lock that a dead run left in the repository ({', '.join(holders)})")
            self._call("break-lock", self._path)

    def _holders(self) -> dict[str, float]:
        """Return who locked the repository, and by holder when its entry was changed last."""
        found: dict[str, float] = {}
        with suppress(OSError), os.scandir(os.path.join(self._path, "lock.exclusive")) as entries:
            found.update((entry.name, entry.stat().st_mtime) for entry in entries)
        with suppress(OSError, ValueError), open(os.path.join(self._path, "lock.roster"), encoding="utf-8") as file:
            roster, changed = json.load(file), os.fstat(file.fileno()).st_mtime
            found.update((f"{host}.{pid}-{thread}", changed) for who in roster.values() for host, pid, thread in who)
        return found

    def names(self) -> list[str]:
        """Return the names of all archives, unfinished ones included."""
        listed = json.loads(self._call("list", "--json", "--consider-checkpoints", self._path))
        return [str(archive["name"]) for archive in listed["archives"]]

    def create_from_command(self, archive: str, filename: str, command: Sequence[str]) -> None:
        """Save what ``command`` prints as the only file of a new archive; if the command fails there is none."""
        options = ["--compression", self._config.compression, "--chunker-params", self._config.chunker_params]
        options += ["--stdin-name", filename, "--content-from-command"]
        self._call("create", *options, f"{self._path}::{archive}", "--", *command, limit=self._config.capture_limit)

    def create_from_folder(self, archive: str, folder: str) -> None:
        """Save everything in ``folder`` as a new archive."""
        options = ["--compression", self._config.compression, "--files-cache", "disabled"]
        self._call("create", *options, f"{self._path}::{archive}", ".", cwd=folder)

    def extract(self, archive: str, folder: str) -> None:
        """Bring all files of an archive into ``folder``."""
        self._call("extract", f"{self._path}::{archive}", cwd=folder)

    @contextmanager
    def stream(self, archive: str, filename: str) -> Iterator[IO[bytes]]:
        """Give one file of an archive as a stream."""
        arguments = ["extract", "--stdout", f"{self._path}::{archive}", filename]
        with self._process(arguments, self._config.capture_limit) as output:
            yield output

    def delete(self, archives: Sequence[str]) -> None:
        """Delete archives, in one transaction."""
        self._call("delete", self._path, *archives)

    def interactive(self, arguments: Sequence[str]) -> int:
        """Run borg as an operator asks for it; return its exit code."""
        env = {**self._environment(), "BORG_REPO": self._path}
        return subprocess.run([*BORG, *arguments], env=env, pass_fds=(self._lease,), check=False).returncode

    def compact(self) -> None:
        """Give the space of deleted archives back."""
        self._call("compact", self._path, limit=self._config.capture_limit)
