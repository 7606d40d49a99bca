# SPDX-License-Identifier: GPL-3.0-or-later
"""The key directory of a tang server: which keys it advertises, rotations by name, purges of what nobody needs.

tangd reads the directory at each request. It advertises the keys in ``*.jwk``, and answers with those in ``.*.jwk``
too; other names mean nothing to it. A private part of a key goes from file to file, and nowhere else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing, sync
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

KEYGEN = "/usr/libexec/tangd-keygen"
OWNER = "_tang"
KEY_MODE = 0o440
SUFFIX = ".jwk"
# Neither ends like a key, so tangd passes over them.
JOURNAL = "personal-cluster.rotations"
WORK_PREFIX = ".personal-cluster-new-"
# clevis before 15 named keys by SHA-1; tangd finds a key by either.
HASHES = ("S256", "S1")
PUBLIC = ("kty", "crv", "x", "y", "n", "e")
USES = ("signing", "exchange")
NEW = "new"


@dataclass(frozen=True)
class Key:
    """One key file; ``saved`` when the backup directory holds the same bytes."""

    file: str
    use: str
    thumbprints: Mapping[str, str]
    owner: str = OWNER
    group: str = OWNER
    mode: int = KEY_MODE
    saved: bool = False

    @property
    def kid(self) -> str:
        """The name of the key in advertisements and bindings."""
        return self.thumbprints["S256"]

    @property
    def advertised(self) -> bool:
        """Whether new bindings are made with it."""
        return not self.file.startswith(".")


@dataclass(frozen=True)
class State:
    """All keys, the keys that each rotation retires, and what killed runs left."""

    keys: tuple[Key, ...] = ()
    rotations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remains: tuple[str, ...] = ()


def use_of(jwk: Mapping[str, Any]) -> str:
    """Return what tangd takes a key for."""
    operations = jwk.get("key_ops", [])
    if "sign" in operations or (not operations and str(jwk.get("alg", "")).startswith("ES")):
        return "signing"
    if "deriveKey" in operations or (not operations and jwk.get("alg") == "ECMR"):
        return "exchange"
    return "other"


def _named(name: Callable[[], str], number: int) -> str:
    """Return the name of a user or a group; the number where it has none."""
    try:
        return name()
    except KeyError:
        return str(number)


class TangKeys:
    """The keys of one tang host; see the module tang_keys for the parameters."""

    def __init__(
        self,
        directory: str,
        backup_dir: str,
        run: Run,
        rotation: Optional[str] = None,
        purge: bool = False,
        in_use: Collection[str] = (),
    ) -> None:
        self._directory = Path(directory)
        self._backup_dir = Path(backup_dir)
        self._run = run
        self._rotation = rotation
        self._purge = purge
        self._in_use = frozenset(in_use)

    # Looking

    def read(self) -> State:
        """Read every key once.

        :raises NotYet: there is no key directory.
        """
        if not self._directory.is_dir():
            raise NotYet(f"{self._directory} is not there; run the role tang on this host first")
        paths = sorted(path for path in self._directory.iterdir() if path.name.endswith(SUFFIX) and path.is_file())
        jwks = [self._jwk(path) for path in paths]
        thumbprints = self._thumbprints(jwks)
        keys = tuple(self._key(*found) for found in zip(paths, jwks, thumbprints, strict=True))
        remains = tuple(sorted(map(str, self._directory.glob(f"{WORK_PREFIX}*"))))
        return State(keys, self._journal(), remains)

    def blank(self) -> State:
        """Return a host without tang."""
        return State()

    @staticmethod
    def _jwk(path: Path) -> dict[str, Any]:
        try:
            jwk: dict[str, Any] = json.loads(path.read_text())
            jwk["kty"]
        except (ValueError, KeyError, TypeError):
            # The error itself would quote the file.
            raise ClusterError(f"{path} is not a key, and tangd passes over it; restore it, or move it away") from None
        return jwk

    def _thumbprints(self, jwks: list[dict[str, Any]]) -> list[dict[str, str]]:
        if not jwks:
            return []
        public = json.dumps({"keys": [{name: jwk[name] for name in PUBLIC if name in jwk} for jwk in jwks]})
        columns = [self._run(["jose", "jwk", "thp", "-i-", "-a", name], stdin=public).stdout.split() for name in HASHES]
        return [dict(zip(HASHES, row, strict=True)) for row in zip(*columns, strict=True)]

    def _key(self, path: Path, jwk: Mapping[str, Any], thumbprints: dict[str, str]) -> Key:
        about = path.stat()
        backup = self._backup(thumbprints["S256"])
        saved = backup.is_file() and backup.read_bytes() == path.read_bytes()
        owner, group = _named(path.owner, about.st_uid), _named(path.group, about.st_gid)
        return Key(path.name, use_of(jwk), thumbprints, owner, group, about.st_mode & 0o7777, saved)

    def _backup(self, kid: str) -> Path:
        return self._backup_dir / f"{kid}{SUFFIX}"

    def _journal(self) -> dict[str, tuple[str, ...]]:
        path = self._directory / JOURNAL
        try:
            return {name: tuple(kids) for name, kids in json.loads(path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError) as error:
            raise ClusterError(
                f"{path} does not tell which rotations were made; restore it, or move it away to rotate anew"
            ) from error

    # Planning

    def plan(self, state: State) -> Plan[State]:
        """Clean up, then rotate or purge."""
        plan: Plan[State] = Plan(state, refusals=list(self._refusals(state)))
        for path in state.remains:
            plan.steps.append(Step(f"remove {path}, left by a killed run", partial(shutil.rmtree, path)))
        keys = [self._plan_access(plan, key) for key in state.keys]
        rotations = dict(state.rotations)
        if self._rotation is not None:
            keys = self._plan_rotation(plan, self._rotation, keys, rotations)
        if self._purge:
            for key in keys:
                if not key.advertised:
                    sentence = f"delete the hidden {key.use} key {key.kid}"
                    plan.steps.append(Step(sentence, partial(self._delete, key)))
            keys = [key for key in keys if key.advertised]
        plan.predicted = State(tuple(keys), rotations)
        return plan

    def _refusals(self, state: State) -> Iterator[str]:
        if self._rotation == "":
            yield "the rotation has no name; give it one, such as the month"
        if self._rotation is not None and self._purge:
            yield "a rotation and a purge are two runs: clients are bound to the new keys in between"
        if self._purge:
            for key in state.keys:
                needed = self._in_use.intersection(key.thumbprints.values())
                if needed and not key.advertised:
                    yield f"a client still needs the hidden {key.use} key {min(needed)}; bind it again first"
        hidden = {key.file: key.kid for key in state.keys if not key.advertised}
        for key in state.keys:
            if self._rotation and key.advertised and hidden.get(self._hidden(key), key.kid) != key.kid:
                yield f"{self._directory / self._hidden(key)} holds another key than its name says; rename it"

    def _plan_access(self, plan: Plan[State], key: Key) -> Key:
        if (key.owner, key.group, key.mode) == (OWNER, OWNER, KEY_MODE):
            return key
        path = self._directory / key.file
        sentence = f"set owner and mode of {path} to {OWNER}:{OWNER} {KEY_MODE:04o}"
        plan.steps.append(Step(sentence, partial(self._give, path)))
        return replace(key, owner=OWNER, group=OWNER, mode=KEY_MODE)

    def _plan_rotation(
        self, plan: Plan[State], rotation: str, keys: list[Key], rotations: dict[str, tuple[str, ...]]
    ) -> list[Key]:
        """Name what is to go before anything is made: what a killed run made is told from it by the next one."""
        if rotation not in rotations:
            rotations[rotation] = tuple(sorted(key.kid for key in keys if key.advertised))
            sentence = f"note that the rotation {rotation} retires {', '.join(rotations[rotation]) or 'no key'}"
            plan.steps.append(Step(sentence, partial(self._note, dict(rotations))))
        retired = [key for key in keys if key.advertised and key.kid in rotations[rotation]]
        stay = [key for key in keys if key not in retired]
        for key in retired:
            if not key.saved:
                sentence = f"back up the {key.use} key {key.kid} to {self._backup_dir}"
                plan.steps.append(Step(sentence, partial(self._save, key)))
        uses = [use for use in USES if not [key for key in stay if key.advertised and key.use == use]]
        if uses:
            sentence = f"make {' and '.join(f'a new {use} key' for use in uses)}"
            plan.steps.append(Step(sentence, partial(self._make, uses)))
        for key in retired:
            plan.steps.append(Step(f"hide the {key.use} key {key.kid}", partial(self._hide, key)))
        hidden = [replace(key, file=self._hidden(key), saved=True) for key in retired]
        new = [Key(f"{NEW}{SUFFIX}", use, dict.fromkeys(HASHES, NEW)) for use in uses]
        return sorted([*stay, *hidden, *new], key=lambda key: key.file)

    @staticmethod
    def _hidden(key: Key) -> str:
        return f".{key.kid}{SUFFIX}"

    # Changing

    def _give(self, path: Path) -> None:
        try:
            shutil.chown(path, OWNER, OWNER)
        except LookupError as error:
            raise ClusterError(f"there is no user {OWNER} on this host; run the role tang first") from error
        path.chmod(KEY_MODE)

    def _note(self, rotations: Mapping[str, tuple[str, ...]]) -> None:
        with replacing(self._directory / JOURNAL, 0o644) as stream:
            stream.write((json.dumps(rotations, indent=2) + "\n").encode())

    def _save(self, key: Key) -> None:
        self._backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(self._backup(key.kid), 0o400) as stream:
            stream.write((self._directory / key.file).read_bytes())

    def _make(self, uses: Collection[str]) -> None:
        """Let tangd's own program make the keys, out of tangd's sight until they are whole."""
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=WORK_PREFIX) as work:
            self._run([KEYGEN, work])
            for path in sorted(Path(work).glob(f"*{SUFFIX}")):
                if use_of(self._jwk(path)) in uses:
                    self._give(path)
                    sync(path)
                    path.replace(self._directory / path.name)
        sync(self._directory)

    def _hide(self, key: Key) -> None:
        (self._directory / key.file).replace(self._directory / self._hidden(key))
        sync(self._directory)

    def _delete(self, key: Key) -> None:
        (self._directory / key.file).unlink()
        sync(self._directory)

    # Showing

    def view(self, state: State) -> dict[str, Any]:
        """Return the public side of all keys."""
        shown = [
            {
                "kid": key.kid,
                "thumbprints": dict(key.thumbprints),
                "use": key.use,
                "advertised": key.advertised,
                "file": key.file,
                "owner": f"{key.owner}:{key.group}",
                "mode": f"{key.mode:04o}",
                "backup": str(self._backup(key.kid)) if key.saved else None,
            }
            for key in state.keys
        ]
        return {"tang_keys": shown, "rotations": {name: list(kids) for name, kids in state.rotations.items()}}
