# SPDX-License-Identifier: GPL-3.0-or-later
"""Borg repositories: created, checked, unlocked, exported and deleted through borg's own JSON log.

Decisions are made on the ``msgid`` of the log, never on the exit code: a repository that does not
exist, one that cannot be reached and one with another passphrase all end with exit code 2.
"""

from __future__ import annotations

import configparser
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed, Run

ABSENT = "Repository.DoesNotExist"
UNREACHABLE = "unreachable"
SAFE_VERSION = (1, 2, 5)
# What `borg init` has made when it is killed before its first commit. Archives would have brought index and hints.
UNFINISHED = re.compile(r"config(\.old|-\w+\.tmp)?|README|nonce|data|lock\.exclusive|lock\.roster")
UNFINISHED_BYTES = 64 * 1024
# What the role backup and its program call themselves in locks.
BACKUP_HOSTS = ("personal-cluster-", "backup-role-")
SETTINGS = ("append_only", "storage_quota", "additional_free_space")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_ALWAYS_FATAL = {
    "Cache.RepositoryReplay": "is older than what this host saw last: an old copy was put in its place, or "
    "two copies share one id; put the newest copy back",
    "Cache.EncryptionMethodMismatch": "changed its encryption since this host saw it last: "
    "it was replaced by another one",
    "Repository.InvalidRepository": "exists but is not a borg repository; move it away or choose another path",
    "Repository.InvalidRepositoryConfig": "has a damaged config file; restore that file from another copy",
    "NoManifestError": "has no manifest; delete it if nothing was ever saved in it, as when borg init was killed, "
    "else bring its files back, or see what borg check --repair finds",
    "NoPassphraseFailure": "needs a passphrase and none was given: set passphrase, passphrase_file or passcommand",
}


@dataclass(frozen=True)
class Wanted:
    """One element of ``repositories``, as the module's argument spec delivers it."""

    path: str
    state: str = "present"
    encryption: str = "repokey-blake2"
    allow_unencrypted: bool = False
    passphrase: Optional[str] = None
    passphrase_file: Optional[str] = None
    passcommand: Optional[str] = None
    new_passphrase: Optional[str] = None
    expected_id: Optional[str] = None
    relocated_ok: bool = False
    require_mount: Optional[str] = None
    append_only: Optional[bool] = None
    storage_quota: Optional[str] = None
    additional_free_space: Optional[str] = None
    key_export_dest: Optional[str] = None
    base_dir: Optional[str] = None
    host_id: Optional[str] = None
    remote_path: Optional[str] = None
    rsh: Optional[str] = None
    lock_wait: int = 10
    timeout: int = 300

    @property
    def local(self) -> bool:
        """Whether the repository is a directory of this host."""
        return self.path.startswith("/")

    @property
    def settings(self) -> dict[str, int]:
        """The declared values of borg's own per-repository settings, as numbers."""
        given = {
            "append_only": None if self.append_only is None else str(int(self.append_only)),
            "storage_quota": self.storage_quota,
            "additional_free_space": self.additional_free_space,
        }
        return {name: size(value) for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """What one borg command said: the ``msgid`` of its failure (empty: it worked), and its output."""

    msgid: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Repository:
    """A repository as it is."""

    exists: bool
    unfinished: bool = False
    id: str = ""
    encryption: str = ""
    msgid: str = ""
    text: str = ""
    holder: str = ""
    settings: dict[str, int] = field(default_factory=dict)
    key_exported: bool = False
    old_passphrase: bool = False
    relocated: bool = False
    export_on_same_volume: bool = False
    mount_problem: str = ""


@dataclass(frozen=True)
class Repositories:
    """All repositories of one module execution, and borg's version."""

    items: dict[str, Repository]
    version: tuple[int, ...] = ()


def size(text: str) -> int:
    """Return borg's notation of a size (``10G``, powers of 1000) as bytes.

    :raises ClusterError: it is not such a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise ClusterError(f"{text!r} is not a size; write a number with K, M, G, T or P behind it, 500G for example")
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])


def parse_answer(done: Completed) -> Answer:
    """Read borg's JSON log (standard error) and JSON result (standard output)."""
    if done.rc == 0:
        try:
            data = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
        except ValueError as error:
            raise ClusterError(f"borg printed something that is not JSON: {done.stdout[:200]!r}") from error
        return Answer("", "", data)
    errors = [line for line in _log_lines(done.stderr) if line.get("levelname") in ("ERROR", "CRITICAL")]
    for line in reversed(errors):
        if line.get("msgid"):
            return Answer(str(line["msgid"]), str(line.get("message", "")))
    said = str(errors[-1].get("message", "")) if errors else done.stderr.strip()
    return Answer(
        UNREACHABLE, said.strip().splitlines()[-1] if said.strip() else f"borg ended with exit code {done.rc}"
    )


def _log_lines(stderr: str) -> list[dict[str, Any]]:
    lines = []
    for text in stderr.splitlines():
        start = text.find("{")
        if start < 0:
            continue
        try:
            lines.append(json.loads(text[start:]))
        except ValueError:
            continue
    return lines


def parse_version(text: str) -> tuple[int, ...]:
    """Return ``borg 1.2.4`` as ``(1, 2, 4)``."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def mounted_as(path: str, mounts: str) -> tuple[str, str]:
    """Return mount point and filesystem type of ``path``, given the text of ``/proc/self/mounts``."""
    found = ("/", "unknown")
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        parts = line.split(" ")
        point = parts[1].replace("\\040", " ")
        inside = point == "/" or real == point or real.startswith(point + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, parts[2])
    return found


def key_body(text: str) -> str:
    """Return the base64 of a key, without its header line and line ends."""
    return "".join(line.strip() for line in text.splitlines() if not line.startswith("BORG_KEY"))


def plan_one(wanted: Wanted, now: Repository) -> tuple[Repository, list[str], list[str]]:
    """Return predicted state, names of the steps in order, and refusals. Pure."""
    refusals = _refusals(wanted, now)
    if refusals:
        return now, [], refusals
    if wanted.state == "absent":
        return (Repository(exists=False), ["delete"], []) if now.exists else (now, [], [])
    if wanted.state == "unlocked":
        return (replace(now, msgid="", holder=""), ["unlock"], []) if now.msgid == "LockTimeout" else (now, [], [])
    steps = []
    after = now
    if not now.exists:
        steps += ["clear", "create"] if now.unfinished else ["create"]
        after = Repository(exists=True, encryption=wanted.encryption, settings=dict.fromkeys(SETTINGS, 0))
    if now.relocated:
        steps.append("relocate")
    if now.old_passphrase:
        steps.append("passphrase")
    for name, value in wanted.settings.items():
        if after.settings.get(name) != value:
            steps.append(name)
    if wanted.key_export_dest and ("create" in steps or "passphrase" in steps or not now.key_exported):
        steps.append("export")
    after = replace(
        after,
        settings={**after.settings, **wanted.settings},
        key_exported=bool(wanted.key_export_dest) or now.key_exported,
        old_passphrase=False,
        relocated=False,
    )
    return after, steps, []


def _refusals(wanted: Wanted, now: Repository) -> list[str]:
    name = f"repository {wanted.path}"
    if now.mount_problem:
        return [f"{name}: {now.mount_problem}"]
    if now.msgid == "LockTimeout":
        if wanted.state == "unlocked":
            return []
        return [
            f"{name} is locked by {now.holder or 'an unknown process'}; wait for it, or, when that process is dead, "
            + _unlocking(now.holder)
        ]
    if now.msgid in _ALWAYS_FATAL:
        return [f"{name} {_ALWAYS_FATAL[now.msgid]}"]
    if now.msgid == "PassphraseWrong":
        tried = (
            "neither the new nor the old passphrase opens it" if wanted.new_passphrase else "the passphrase is wrong"
        )
        return [f"{name}: {tried}; give the one that it was created with"]
    if now.msgid == "Cache.CacheInitAbortedError":
        return [f"{name} is not encrypted; accept that with encryption=none and allow_unencrypted=true"]
    if now.msgid == "Cache.RepositoryAccessAborted":
        return [
            f"{name} (id {now.id or 'unknown'}) was at another place when this host saw it last; "
            "if it was moved on purpose set relocated_ok=true and expected_id to its id"
        ]
    if now.msgid:
        return [f"{name} cannot be reached ({now.msgid}: {now.text}); nothing is created in its place"]
    return _refusals_of_reachable(wanted, now, name)


def _unlocking(holder: str) -> str:
    by_hand = "run once with state=unlocked"
    if holder and all(name.startswith(BACKUP_HOSTS) for name in holder.split(", ")):
        return (
            "run personal-cluster-backup list on a node, which breaks locks of dead runs, and of a dead role after an "
            f"hour; before that is installed, {by_hand}"
        )
    return by_hand


def _refusals_of_reachable(wanted: Wanted, now: Repository, name: str) -> list[str]:
    refusals = []
    if now.exists and wanted.expected_id and now.id != wanted.expected_id:
        refusals.append(f"{name} has the id {now.id}, expected_id is {wanted.expected_id}: it is another repository")
    if not now.exists and wanted.expected_id and wanted.state != "absent":
        refusals.append(f"{name} does not exist but expected_id says that it did; bring it back, or drop expected_id")
    if wanted.state == "absent":
        if now.exists and not wanted.expected_id:
            refusals.append(f"{name} would be deleted with all its archives; allow it with expected_id={now.id}")
        return refusals
    if wanted.state == "unlocked":
        return refusals if now.exists else [f"{name} does not exist; there is no lock to break"]
    if now.exists and now.encryption != wanted.encryption:
        refusals.append(
            f"{name} is encrypted with {now.encryption}, {wanted.encryption} is wanted; borg cannot change that: "
            f"declare {now.encryption} or create another repository"
        )
    if wanted.encryption == "none" and not wanted.allow_unencrypted:
        refusals.append(f"{name}: encryption=none needs allow_unencrypted=true")
    if wanted.settings and not wanted.local:
        refusals.append(f"{name}: {', '.join(wanted.settings)} can be set only on the host that holds the repository")
    if wanted.key_export_dest and wanted.encryption == "none":
        refusals.append(f"{name}: an unencrypted repository has no key; drop key_export_dest")
    if wanted.key_export_dest and now.export_on_same_volume:
        refusals.append(
            f"{name}: key_export_dest {wanted.key_export_dest} is on the repository's own volume, "
            "which the key must survive; choose another"
        )
    return refusals


class Borg:
    """Runs borg on one repository."""

    def __init__(self, wanted: Wanted, run: Run) -> None:
        self.wanted = wanted
        self._run = run

    def environment(self, passphrase: Optional[str], base_dir: Optional[str] = None) -> dict[str, str]:
        """Return what borg is told by environment: secrets, its directories, and that no question is answered yes."""
        wanted = self.wanted
        env = {
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "no",
            "BORG_EXIT_CODES": "legacy",
        }
        if wanted.encryption == "none" and wanted.allow_unencrypted:
            env["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"
        if passphrase is not None:
            env["BORG_PASSPHRASE"] = passphrase
        elif wanted.passcommand:
            env["BORG_PASSCOMMAND"] = wanted.passcommand
        if wanted.host_id:
            env["BORG_HOST_ID"] = wanted.host_id
        if base_dir or wanted.base_dir:
            env["BORG_BASE_DIR"] = str(base_dir or wanted.base_dir)
        return env

    def passphrase(self) -> Optional[str]:
        """Return the present passphrase, or None when a command provides it."""
        wanted = self.wanted
        if wanted.passphrase is not None or not wanted.passphrase_file:
            return wanted.passphrase
        try:
            with open(wanted.passphrase_file, encoding="utf-8") as file:
                return file.read().rstrip("\n")
        except FileNotFoundError as error:
            raise NotYet(f"the passphrase file {wanted.passphrase_file} does not exist on this host") from error
        except OSError as error:
            raise ClusterError(f"cannot read the passphrase file {wanted.passphrase_file}: {error}") from error

    def call(self, arguments: Sequence[str], env: dict[str, str]) -> Answer:
        """Run borg once, with its answers as JSON."""
        wanted = self.wanted
        argv = ["borg", "--log-json", "--lock-wait", str(wanted.lock_wait)]
        if wanted.remote_path:
            argv += ["--remote-path", wanted.remote_path]
        if wanted.rsh:
            argv += ["--rsh", wanted.rsh]
        return parse_answer(self._run([*argv, *arguments], timeout=wanted.timeout, ok=None, env=env))

    def must(self, arguments: Sequence[str], env: dict[str, str]) -> Answer:
        """Run borg once; a failure ends the module."""
        answer = self.call(arguments, env)
        if answer.msgid:
            raise ClusterError(f"borg {arguments[0]} failed on {self.wanted.path}: {answer.text} ({answer.msgid})")
        return answer

    def probe(self, env: dict[str, str]) -> Answer:
        """Return id and encryption without bringing any cache up to date."""
        return self.call(["list", "--json", "--last", "1", self.wanted.path], env)

    def read(self) -> Repository:
        """Look at the repository."""
        wanted = self.wanted
        problem = self._mount_problem()
        if problem:
            return Repository(exists=False, mount_problem=problem)
        self._need_borg()
        old = False
        if wanted.new_passphrase:
            answer = self.probe(self.environment(wanted.new_passphrase))
            if answer.msgid == "PassphraseWrong":
                answer = self.probe(self.environment(self.passphrase()))
                old = not answer.msgid
        else:
            answer = self.probe(self.environment(self.passphrase()))
        relocated = False
        if answer.msgid == "Cache.RepositoryAccessAborted":
            answer, relocated = self._relocated(answer)
        return self._seen(answer, old, relocated)

    def _relocated(self, answer: Answer) -> tuple[Answer, bool]:
        """Ask again with an empty base directory: the id is seen, the move is not accepted by that."""
        with tempfile.TemporaryDirectory(prefix="borg-probe-") as base_dir:
            fresh = self.probe(self.environment(self.passphrase(), base_dir))
        seen = str(fresh.data.get("repository", {}).get("id", ""))
        if self.wanted.relocated_ok and seen and seen == self.wanted.expected_id:
            return fresh, True
        return Answer(answer.msgid, answer.text, fresh.data), False

    def _seen(self, answer: Answer, old: bool, relocated: bool) -> Repository:
        unfinished = answer.msgid == "NoManifestError" and self._unfinished()
        if unfinished:
            answer = Answer(ABSENT, "")
        exists = answer.msgid != ABSENT
        reachable = not answer.msgid
        return Repository(
            exists=exists,
            unfinished=unfinished,
            id=str(answer.data.get("repository", {}).get("id", "")),
            encryption=str(answer.data.get("encryption", {}).get("mode", "")),
            msgid="" if answer.msgid == ABSENT else answer.msgid,
            text="" if answer.msgid == ABSENT else answer.text,
            holder=self._holder() if answer.msgid == "LockTimeout" else "",
            settings=self._settings() if exists and reachable else {},
            key_exported=reachable and self._key_exported(old),
            old_passphrase=old,
            relocated=relocated,
            export_on_same_volume=self._same_volume(),
        )

    def _unfinished(self) -> bool:
        """Whether all that is there is what an interrupted `borg init` left: nothing was ever saved in it."""
        if not self.wanted.local or not all(UNFINISHED.fullmatch(name) for name in os.listdir(self.wanted.path)):
            return False
        # Borg notes each manifest that it saw: where there was one, files are lost.
        if self._notes(self._config()["id"], "manifest-timestamp"):
            return False
        data = os.path.join(self.wanted.path, "data")
        segments = [os.path.join(top, name) for top, _, names in os.walk(data) for name in names]
        return sum(os.stat(segment).st_size for segment in segments) <= UNFINISHED_BYTES

    def _need_borg(self) -> None:
        if shutil.which("borg"):
            return
        if os.path.exists(os.path.join(self.wanted.path, "config")) or self._known():
            raise ClusterError(f"borg is not installed but repository {self.wanted.path} exists; install borgbackup")
        raise NotYet("borg is not installed on this host")

    def _mount_problem(self) -> str:
        wanted = self.wanted
        if not wanted.require_mount:
            return ""
        with open("/proc/self/mounts", encoding="utf-8") as file:
            point, fstype = mounted_as(wanted.path, file.read())
        if fstype == wanted.require_mount:
            return ""
        if os.path.exists(wanted.path):
            return (
                f"it exists on {fstype} (mounted at {point}), not on {wanted.require_mount}; mount the volume over it"
            )
        if self._known():
            return f"its volume ({wanted.require_mount}) is not mounted; mount it first"
        raise NotYet(f"{os.path.dirname(wanted.path)} is not mounted as {wanted.require_mount} on this host")

    def _known(self) -> bool:
        """Whether this host ever used the repository: borg keeps a note of every place it saw."""
        for note in self._notes("*", "location"):
            with open(note, encoding="utf-8") as file:
                if file.read().strip() == self.wanted.path:
                    return True
        return False

    def _notes(self, repository: str, name: str) -> list[str]:
        base_dir = self.wanted.base_dir or os.path.expanduser("~")
        return glob.glob(os.path.join(base_dir, ".config/borg/security", repository, name))

    def _holder(self) -> str:
        """Return ``host.pid-thread`` of the lock's holder, where the repository is local."""
        if not self.wanted.local:
            return ""
        try:
            names = sorted(os.listdir(os.path.join(self.wanted.path, "lock.exclusive")))
        except OSError:
            names = []
        return ", ".join(names) or self._shared_holders()

    def _shared_holders(self) -> str:
        try:
            with open(os.path.join(self.wanted.path, "lock.roster"), encoding="utf-8") as file:
                roster = json.load(file)
        except (OSError, ValueError):
            return ""
        return ", ".join(f"{host}.{pid}-{thread}" for who in roster.values() for host, pid, thread in who)

    def _config(self) -> configparser.SectionProxy:
        parser = configparser.ConfigParser(interpolation=None)
        path = os.path.join(self.wanted.path, "config")
        if not parser.read(path, encoding="utf-8") or "repository" not in parser:
            raise ClusterError(f"cannot read {path}; is the repository damaged?")
        return parser["repository"]

    def _settings(self) -> dict[str, int]:
        if not self.wanted.local:
            return {}
        config = self._config()
        return {name: size(config.get(name, "0")) for name in SETTINGS}

    def _key_exported(self, old_passphrase: bool) -> bool:
        dest = self.wanted.key_export_dest
        if not dest:
            return False
        try:
            with open(dest, encoding="utf-8") as file:
                exported = key_body(file.read())
        except FileNotFoundError:
            return False
        if self.wanted.local and "key" in self._config():
            return exported == key_body(self._config()["key"])
        passphrase = self.passphrase() if old_passphrase else self.present_passphrase()
        with tempfile.TemporaryDirectory(prefix="borg-key-") as folder:
            return exported == key_body(self._export(os.path.join(folder, "key"), passphrase))

    def _same_volume(self) -> bool:
        dest = self.wanted.key_export_dest
        if not dest or not self.wanted.local:
            return False
        return os.stat(_existing(dest)).st_dev == os.stat(_existing(self.wanted.path)).st_dev

    def present_passphrase(self) -> Optional[str]:
        """Return the passphrase that holds after the passphrase was changed."""
        return self.wanted.new_passphrase or self.passphrase()

    def _export(self, path: str, passphrase: Optional[str]) -> str:
        self.must(["key", "export", self.wanted.path, path], self.environment(passphrase))
        with open(path, encoding="utf-8") as file:
            return file.read()

    # the steps

    def clear(self) -> None:
        """Remove what an interrupted `borg init` left."""
        if not self._unfinished():
            raise ClusterError(f"repository {self.wanted.path} is in use by now; run again when that has ended")
        shutil.rmtree(self.wanted.path)

    def create(self) -> None:
        """Create the repository; another host that was faster is no failure."""
        wanted = self.wanted
        answer = self.call(["init", "--encryption", wanted.encryption, wanted.path], self._env_after())
        if answer.msgid and answer.msgid != "Repository.AlreadyExists":
            raise ClusterError(f"borg init failed on {wanted.path}: {answer.text} ({answer.msgid})")

    def relocate(self) -> None:
        """Accept that the repository is at another place than before."""
        env = {**self.environment(self.passphrase()), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        self.must(["list", "--json", "--last", "1", self.wanted.path], env)

    def change_passphrase(self) -> None:
        """Replace the passphrase by the new one."""
        env = {**self.environment(self.passphrase()), "BORG_NEW_PASSPHRASE": str(self.wanted.new_passphrase)}
        self.must(["key", "change-passphrase", self.wanted.path], env)

    def configure(self, name: str, value: int) -> None:
        """Set one of borg's own settings of the repository."""
        self.must(["config", self.wanted.path, name, str(value)], self._env_after())

    def unlock(self) -> None:
        """Break the lock."""
        self.must(["break-lock", self.wanted.path], self._env_after())

    def delete(self) -> None:
        """Delete the repository and everything in it."""
        env = {**self._env_after(), "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "YES"}
        self.must(["delete", self.wanted.path], env)

    def export(self) -> None:
        """Write the key, readable by root alone, in one piece."""
        dest = str(self.wanted.key_export_dest)
        folder = os.path.dirname(dest)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".borg-key-", dir=folder) as hidden:
            path = os.path.join(hidden, "key")
            if not self._export(path, self.present_passphrase()).startswith("BORG_KEY "):
                raise ClusterError(f"borg exported something that is not a key of {self.wanted.path}")
            os.chmod(path, 0o600)
            os.replace(path, dest)

    def _env_after(self) -> dict[str, str]:
        return self.environment(self.present_passphrase())

    def step(self, name: str) -> Step:
        """Return the step of that name, with its sentence."""
        wanted, path = self.wanted, self.wanted.path
        if name in SETTINGS:
            value = wanted.settings[name]
            return Step(f"repository {path}: set {name} to {value}", partial(self.configure, name, value))
        return {
            "clear": Step(f"repository {path}: remove what an interrupted borg init left", self.clear),
            "create": Step(f"repository {path}: create it, encryption {wanted.encryption}", self.create),
            "relocate": Step(f"repository {path}: accept its new place", self.relocate),
            "passphrase": Step(f"repository {path}: change its passphrase", self.change_passphrase),
            "export": Step(f"repository {path}: export its key to {wanted.key_export_dest}", self.export),
            "unlock": Step(f"repository {path}: break its lock", self.unlock),
            "delete": Step(f"repository {path}: delete it with all its archives", self.delete),
        }[name]


def _existing(path: str) -> str:
    """Return the nearest ancestor of ``path`` that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


class BorgRepositories:
    """All repositories of one module execution."""

    def __init__(self, repositories: list[dict[str, Any]], run: Run) -> None:
        self._borgs = [Borg(Wanted(**item), run) for item in repositories]
        self._run = run

    def read(self) -> Repositories:
        """Look at every repository."""
        items = {borg.wanted.path: borg.read() for borg in self._borgs}
        return Repositories(items, parse_version(self._run(["borg", "--version"]).stdout))

    def blank(self) -> Repositories:
        """Return the state in which none of the repositories exists."""
        return Repositories({borg.wanted.path: Repository(exists=False) for borg in self._borgs})

    def plan(self, state: Repositories) -> Plan[Repositories]:
        """Return what is to be done, repository by repository."""
        plan = Plan(predicted=Repositories({}, state.version))
        for borg in self._borgs:
            after, steps, refusals = plan_one(borg.wanted, state.items[borg.wanted.path])
            plan.predicted.items[borg.wanted.path] = after
            plan.refusals += refusals
            plan.steps += [borg.step(name) for name in steps]
        if state.version and state.version < SAFE_VERSION:
            shown = ".".join(map(str, state.version))
            plan.warnings.append(
                f"borg {shown} accepts archives that somebody with write access to the repository has forged "
                "(CVE-2023-36811, mended in 1.2.5); keep write access to the repository to root"
            )
        return plan

    def view(self, state: Repositories) -> dict[str, Any]:
        """Return the repositories as plain data."""
        return {"repositories": {borg.wanted.path: _view(borg.wanted, state) for borg in self._borgs}}


def _view(wanted: Wanted, state: Repositories) -> dict[str, Any]:
    now = state.items[wanted.path]
    if not now.exists:
        return {"state": "absent"}
    view: dict[str, Any] = {"state": "present", "id": now.id or "(new)", "encryption": now.encryption, **now.settings}
    if wanted.key_export_dest:
        view["key_exported"] = now.key_exported
    if now.msgid:
        view["problem"] = now.msgid
    if now.old_passphrase:
        view["passphrase"] = "old"
    return view
