# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at LUKS devices: one `cryptsetup luksDump` per LUKS device, one `wipefs` for all that carry none.

No look writes to a device, not even where one copy of a header could be mended by the other.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.headers import (
    BINARY_HEADER,
    LABEL_AT,
    MAGIC,
    VERSION_AT,
    areas,
    dumped,
    head,
    is_luks2,
    is_torn,
    latest,
    metadata,
    sequence,
    text_of,
    unmended,
    uuid_of,
    uuids,
    volume_keys,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.kernel import Kernel, Mapper
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    KEY_SECONDS,
    LUKS,
    NO_KEY,
    NO_KEYSLOT,
    PREFERRED,
    Binding,
    Disk,
    Json,
    Key,
    Rival,
)
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

BY_UUID = "/dev/disk/by-uuid"
CLEVIS = "clevis"
CLEVIS_KDF = ("pbkdf2", 1000)
UUID_LENGTH = 36
# What the name of a header ends with that was put aside, after its UUID; in it is the beginning of its SHA-256.
ASIDE = "-aside-{}.raw"
ASIDE_SECONDS = 30 * 86400
# How the names of backups end, of those that are being made, and of what was put aside.
COPIES = (".img", ".new", ".raw")
# Other files may lie in the same directory.
IS_COPY = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-|$)")
COPY_MODE = 0o400
NETWORKED = ("9p", "ceph", "cifs", "fuse", "nfs", "nfs4", "smb3")


class Reader:
    """Reads devices and the backups of their headers; ``parse`` reads a clevis token."""

    def __init__(
        self, run: Run, parse: Callable[[Json], Json], backup_dir: str, kernel: Optional[Kernel] = None
    ) -> None:
        self._run = run
        self._parse = parse
        self.backup_dir = Path(backup_dir)
        self.kernel = kernel or Kernel()

    def keeping(self, backup_dir: str) -> Reader:
        """Return a reader of the backups in another directory; this one when it is empty."""
        return Reader(self._run, self._parse, backup_dir, self.kernel) if backup_dir else self

    def disks(self, names: Mapping[str, str], *, dump: bool = True) -> dict[str, Disk]:
        """Return each device by its path, one that is not there included.

        :param names: each device with its declared name; without one, every backup of its header is looked for.
        :param dump: ask cryptsetup; without it a LUKS2 device is unread.
        :raises NotYet: a device carries LUKS, and cryptsetup is not installed.
        """
        heads = {device: head(device) for device in names}
        others = [device for device, found in heads.items() if found is not None and not is_luks2(found)]
        signatures = wipefs(self._run, others)
        below = self.kernel.below(self.kernel.filesystem(self.backup_dir)[0])
        mappers = self.kernel.mappers()
        disks = {}
        for device, found in heads.items():
            if found is None:
                disks[device] = Disk("missing")
                continue
            disk = self._disk(device, names[device], found, signatures.get(device, []), dump)
            beneath = self.kernel.number(device) in below
            disks[device] = replace(self._mapped(device, disk, mappers), holds_backups=beneath)
        return disks

    def _mapped(self, device: str, disk: Disk, mappers: list[Mapper]) -> Disk:
        """Return a disk with its mapper: that of its UUID, and above this very disk unless a file stands for it."""
        number = self.kernel.number(device)
        alike = [mapper for mapper in mappers if mapper.uuid == disk.uuid.replace("-", "")]
        own = [mapper for mapper in alike if not number or number in mapper.below]
        twin = next((mapper.name for mapper in alike if mapper not in own), "")
        if not own:
            return replace(disk, twin=twin)
        return replace(disk, mapper=own[0].name, mapper_users=self.kernel.users(own[0].number), twin=twin)

    def mappers(self) -> dict[str, str]:
        """Return the UUID of the LUKS header behind each open mapper."""
        return {mapper.name: mapper.uuid for mapper in self.kernel.mappers()}

    def signatures(self, device: str) -> tuple[str, ...]:
        """Return the types of all signatures on a device."""
        return types(wipefs(self._run, [device])[device])

    def users(self, device: str) -> tuple[str, ...]:
        """Return what holds a device."""
        return self.kernel.users_of(device)

    def opens(self, device: str, key: Key, slot: Optional[int] = None) -> bool:
        """Tell whether a key opens a keyslot, or any of them; a file that is not there opens none."""
        if not key or (key.file and not os.path.exists(key.file)):
            return False
        argv = ["cryptsetup", "open", "--test-passphrase", "--type", "luks2", *key.arguments]
        argv += [] if slot is None else ["--key-slot", str(slot)]
        with unmended(device) as path:
            return fits(self._run, [*argv, path], key)

    def _disk(self, device: str, name: str, found: bytes, signatures: list[Json], dump: bool) -> Disk:
        number = self.kernel.number(device)
        size = self.kernel.size(number) if number else os.stat(device).st_size
        if not is_luks2(found):
            uuids = {row.get("uuid") or "" for row in signatures if row["type"] == LUKS}
            uuid = uuids.pop() if len(uuids) == 1 else ""
            outlived = tuple(str(path) for path in backups_of(self.backup_dir, name))
            return Disk(_kind(found, signatures), size, types(signatures), self.users(device), uuid, outlived=outlived)
        whole = latest(metadata(device)) or found
        disk = Disk("unread", size, uuid=uuid_of(whole), label=text_of(whole[LABEL_AT]))
        if not dump:
            return disk
        data, noted = dumped(self._run, device), self.format_note(name, disk.uuid).exists()
        if not data:
            return replace(disk, kind="unfinished" if noted else "damaged", users=self.users(device))
        keyslots, tokens, bindings = self._metadata(device, data)
        if noted and not keyslots and not tokens:
            return replace(disk, kind="unfinished", users=self.users(device))
        saved, sha256 = self._backup(name, disk.uuid, device, data)
        return replace(
            disk,
            kind="luks2",
            sector_size=_sector_size(data),
            keyslots=keyslots,
            unassigned=_unassigned(data),
            reencryption=_reencryption(data),
            tokens=tokens,
            bindings=bindings,
            saved=bool(saved),
            backup=saved,
            sha256=sha256,
            torn=is_torn(metadata(device)),
            leftover=self._leftover(name, disk.uuid, data),
            rivals=self._rivals(device, disk.uuid, data, saved) if name else (),
            stale=self._stale(disk.uuid) if name else (),
        )

    def metadata(self, device: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Binding, ...]]:
        """Return keyslots, tokens and clevis bindings of a LUKS2 device."""
        data = dumped(self._run, device)
        if not data:
            raise ClusterError(f"{device}: both copies of its header are damaged; see restore_header.yml")
        return self._metadata(device, data)

    def _metadata(self, device: str, data: Json) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Binding, ...]]:
        keyslots = tuple(sorted(int(slot) for slot in data["keyslots"]))
        tokens = tuple(sorted(int(token) for token in data["tokens"]))
        apart = {str(slot) for slot in _unassigned(data)}
        # What a token yields for a keyslot of another key opens nothing: that is none of ours.
        ours = [token for token in tokens if apart.isdisjoint(data["tokens"][str(token)]["keyslots"])]
        try:
            bindings = tuple(self._binding(token, data["tokens"][str(token)], data["keyslots"]) for token in ours)
        except ClusterError as error:
            raise ClusterError(f"{device}: {error}") from error
        return keyslots, tokens, _marked([binding for binding in bindings if binding])

    def _binding(self, number: int, token: Json, keyslots: Json) -> Optional[Binding]:
        if token["type"] != CLEVIS:
            return None
        found = self._parse(token)
        policy, keys = found["policy"], tuple(found["tang_keys"])
        live = [slot for slot in token["keyslots"] if slot in keyslots]
        if not live:
            return Binding(number, None, policy, keys)
        slot = keyslots[live[0]]
        return Binding(number, int(live[0]), policy, keys, slot.get("priority") == PREFERRED, _by_clevis(slot))

    def backup(self, name: str, uuid: str) -> Path:
        """Return where the backup of a header belongs."""
        return self.backup_dir / f"{name}-{uuid}.img"

    def note(self, name: str, uuid: str) -> Path:
        """Return where the keyslot is noted that a bind is about to use."""
        return self.backup_dir / f"{name}-{uuid}.binding"

    def format_note(self, name: str, uuid: str) -> Path:
        """Return where it is noted that a device is being formatted, and nothing is on it yet."""
        return self.backup_dir / f"{name}-{uuid}.formatting"

    def _leftover(self, name: str, uuid: str, data: Json) -> Optional[int]:
        """Return the keyslot that a bind was killed in: noted, made as clevis makes them, and without a token."""
        note = self.note(name, uuid)
        slot = note.read_text().strip() if name and note.exists() else ""
        bound = any(slot in token["keyslots"] for token in data["tokens"].values())
        return int(slot) if _by_clevis(data["keyslots"].get(slot, {})) and not bound else None

    def remains(self, uuid: str) -> list[Path]:
        """Return all files that hold a header, those that a killed run had not finished included."""
        named = {path for path in self.backup_dir.glob(f"*-{glob.escape(uuid)}*") if path.suffix in COPIES}
        others = {path for path in self.backup_dir.glob("*.raw") if path not in named}
        return sorted(named | {path for path in others if uuid in uuids(metadata(str(path)))})

    def _stale(self, uuid: str) -> tuple[str, ...]:
        limit = time.time() - ASIDE_SECONDS
        raw = [path for path in self.remains(uuid) if path.suffix == ".raw"]
        return tuple(str(path) for path in raw if path.stat().st_mtime < limit)

    def backups(self, uuid: str) -> list[Path]:
        """Return all backups of a header, whatever the name of its device was."""
        return sorted(self.backup_dir.glob(f"*-{glob.escape(uuid)}.img"))

    def _rivals(self, device: str, uuid: str, data: Json, saved: str) -> tuple[Rival, ...]:
        others = [path for path in self.backups(uuid) if str(path) != saved]
        asides = sorted(self.backup_dir.glob(f"*-{glob.escape(uuid)}{ASIDE.format('*')}"))
        found = [self._rival(path, _aside(path), device, data) for path in others]
        found += [self._rival(path, path, device, data) for path in asides]
        return tuple(rival for rival in found if rival.newer or rival.lost or rival.other_key)

    def _rival(self, path: Path, aside: Path, device: str, data: Json) -> Rival:
        there = dumped(self._run, str(path))
        rival = Rival(str(path), str(aside), newer=sequence(metadata(str(path))) > sequence(metadata(device)))
        if not there:
            return rival
        if volume_keys(there) != volume_keys(data):
            return replace(rival, other_key=True)
        present, kept = areas(device, data).values(), areas(str(path), there)
        return replace(rival, lost=tuple(slot for slot in _keys(there) if kept[str(slot)] not in present))

    def misplaced(self) -> list[str]:
        """Return why the backups would not be there when a disk has lost its header."""
        kind = self.kernel.filesystem(self.backup_dir)[1]
        if kind not in NETWORKED and not kind.startswith("fuse."):
            return []
        return [
            f"header_backup_dir {self.backup_dir} is on {kind}, which may lie on these very disks, and is not there "
            "before the network; name a directory on the system disk"
        ]

    def exposed(self) -> tuple[str, ...]:
        """Return the copies of headers whose mode is not that which they were given."""
        copies = [path for suffix in (".img", ".raw") for path in self.backup_dir.glob(f"*{suffix}")]
        return tuple(sorted(str(path) for path in copies if IS_COPY.search(path.stem) and _mode(path) != COPY_MODE))

    def elsewhere(self, uuid: str, device: str) -> str:
        """Return the device beside this one that carries a header, as udev knows it; empty when there is none."""
        link = os.path.join(BY_UUID, uuid)
        found = os.path.realpath(link)
        return found if os.path.exists(link) and found != os.path.realpath(device) else ""

    def _backup(self, name: str, uuid: str, device: str, data: Json) -> tuple[str, str]:
        """Return path and SHA-256 of the whole backup of the present header, empty texts when there is none.

        What a header says has a checksum. What its keyslots hold has none, and is compared.
        """
        for path in [self.backup(name, uuid)] if name else self.backups(uuid):
            if not path.exists() or path.stat().st_size != _header_size(data):
                continue
            if metadata(str(path)) == metadata(device) and areas(str(path), data) == areas(device, data):
                return str(path), digest_of(path)
        return "", ""


def _aside(path: Path) -> Path:
    """Return where a backup is put that another one must not replace."""
    return path.with_name(path.stem + ASIDE.format(digest_of(path)[:12]))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def backups_of(folder: Path, name: str) -> list[Path]:
    """Return the backups of all headers that had this name, the latest last."""
    found = folder.glob(f"{glob.escape(name)}-{'?' * UUID_LENGTH}.img")
    return sorted(found, key=lambda path: path.stat().st_mtime)


def fits(run: Run, argv: list[str], key: Key) -> bool:
    """Tell whether cryptsetup takes a key for what ``argv`` asks; one of an unbound keyslot opens no disk."""
    try:
        return run(argv, stdin=key.stdin, ok=(0, NO_KEY), timeout=KEY_SECONDS).rc == 0
    except CommandFailed as error:
        if NO_KEYSLOT not in str(error):
            raise
        return False


def _marked(bindings: list[Binding]) -> tuple[Binding, ...]:
    """Mark tokens of a keyslot that an earlier token has: clevis knows the first one only."""
    earlier = [{other.keyslot for other in bindings[:place]} - {None} for place in range(len(bindings))]
    return tuple(replace(one, shared=one.keyslot in known) for one, known in zip(bindings, earlier, strict=True))


def _by_clevis(keyslot: Json) -> bool:
    kdf = keyslot.get("kdf", {})
    return (kdf.get("type"), kdf.get("iterations")) == CLEVIS_KDF


def _unassigned(data: Json) -> tuple[int, ...]:
    """Return the keyslots whose key is not that of the data: unbound ones, and what a reencryption needs."""
    used = {slot for digest in data["digests"].values() if digest["segments"] for slot in digest["keyslots"]}
    return tuple(sorted(int(slot) for slot in data["keyslots"] if slot not in used))


def _keys(data: Json) -> tuple[int, ...]:
    """Return the keyslots that open the data, and belong to no token of clevis."""
    bound = {slot for token in data["tokens"].values() if token["type"] == CLEVIS for slot in token["keyslots"]}
    apart = _unassigned(data)
    return tuple(sorted(int(slot) for slot in data["keyslots"] if slot not in bound and int(slot) not in apart))


def _reencryption(data: Json) -> str:
    """Return what a header demands of a cryptsetup while its data is being reencrypted, else an empty text."""
    demands = data["config"].get("requirements", {}).get("mandatory", [])
    return next((demand for demand in demands if "reencrypt" in demand), "")


def _header_size(data: Json) -> int:
    """Return the size of a LUKS2 header in bytes: two copies of its binary and its JSON part, and the keyslots."""
    config = data["config"]
    return 2 * (BINARY_HEADER + int(config["json_size"])) + int(config["keyslots_size"])


def _sector_size(data: Json) -> int:
    """Return the size of an encryption sector in bytes; segments that are not encrypted have none."""
    return max((int(segment.get("sector_size", 0)) for segment in data["segments"].values()), default=0)


def _kind(found: bytes, signatures: list[Json]) -> str:
    """Return what a device is that does not begin with a LUKS2 header."""
    if found.startswith(MAGIC) and int.from_bytes(found[VERSION_AT], "big") == 1:
        return "luks1"
    # One of the two copies of a LUKS2 header: the other was overwritten, perhaps by what else is there now, or wiped by
    # a run that was killed.
    if LUKS in types(signatures):
        return "damaged"
    return "foreign" if signatures else "blank"


def wipefs(run: Run, devices: list[str]) -> dict[str, list[Json]]:
    """Return the signatures on each device as wipefs describes them."""
    if not devices:
        return {}
    # wipefs prints the last part of the path alone: only the kernel's own names are distinct there.
    real = {device: os.path.realpath(device) for device in devices}
    text = run(["wipefs", "--no-act", "--json", "--", *real.values()]).stdout
    rows = json.loads(text)["signatures"] if text.strip() else []
    return {device: [row for row in rows if row["device"] == os.path.basename(path)] for device, path in real.items()}


def types(signatures: list[Json]) -> tuple[str, ...]:
    """Return the kinds of signatures, each once."""
    return tuple(sorted({row["type"] for row in signatures}))
