# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing LUKS devices; every step leaves a device that the next run reads correctly."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import Generic, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.headers import (
    BINARY_HEADER,
    HEADER_LIMIT,
    SECOND,
    dumped,
    head,
    is_luks2,
    uuid_of,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    KEY_SECONDS,
    LABEL_LENGTH,
    LUKS,
    Binder,
    Binding,
    Disk,
    Key,
    Policy,
    Rival,
    Servers,
    Wish,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.proving import Prover
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import (
    COPY_MODE,
    Reader,
    fits,
)
from ansible_collections.personal.cluster.plugins.module_utils._durable import sync
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

# cryptsetup's own choice, 16 KiB, has no room for two bindings to three servers, and one is made before the other goes.
METADATA = "64k"
# Room for a LUKS2 header, and a little more.
TRIAL = 20 * 2**20
COPIES = (0, *SECOND)


class Changer(Generic[Policy]):
    """Makes the changes that were planned."""

    def __init__(self, run: Run, reader: Reader, binder: Binder[Policy], prover: Prover[Policy]) -> None:
        self._run = run
        self._reader = reader
        self._binder = binder
        self._prover = prover

    def tool(self, argv: list[str], stdin: Optional[str] = None) -> None:
        """Run a tool that may derive keys."""
        self._run(argv, stdin=stdin, timeout=KEY_SECONDS)

    def _need_policy(self, wish: Wish[Policy], servers: Servers) -> None:
        """See that the device can be bound, before anything is written for it."""
        if wish.policy is None:
            return
        missing = self._binder.missing(wish.policy, servers)
        if missing:
            raise ClusterError(
                f"{wish.device} was left as it is, it could not be bound: no answer from {', '.join(missing)}; "
                "start tang there, or check the network between"
            )
        reason = self._binder.fails(wish.policy)
        if reason:
            raise ClusterError(
                f"{wish.device} was left as it is, it could not be bound: what is bound to its policy would not come "
                f"back: {reason}"
            )

    @staticmethod
    def _need_keyfile(wish: Wish[Policy]) -> None:
        if not wish.key.file:
            return
        if not os.path.isfile(wish.key.file) or not os.path.getsize(wish.key.file):
            what = "is not a file with a key in it" if os.path.exists(wish.key.file) else "does not exist"
            raise ClusterError(
                f"{wish.device} was left as it is: keyfile {wish.key.file} {what}; put it on the node first"
            )

    def _need_backups(self, device: str) -> None:
        try:
            self._reader.backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"{device} was left as it is: header_backup_dir {self._reader.backup_dir} cannot be made: "
                f"{error.strerror}"
            ) from error

    def format(self, wish: Wish[Policy], servers: Servers, expected: tuple[str, ...]) -> None:
        """Format a device that still holds nothing but what is expected."""
        self._need_all(wish, servers)
        # Between planning and now somebody else may have taken the disk.
        signatures, users = self._reader.signatures(wish.device), self._reader.users(wish.device)
        taken = tuple(signature for signature in signatures if signature not in expected) + users
        if taken:
            raise ClusterError(f"{wish.device} is no longer blank: {', '.join(taken)}; nothing was written to it")
        new = str(uuid.uuid4())
        # A header without a key may also be one whose keys somebody destroyed: only what is noted is formatted again.
        self._write_note(self._reader.format_note(wish.name, new), "")
        self._luks_format(wish, wish.device, "--uuid", new)

    def _luks_format(self, wish: Wish[Policy], device: str, *more: str) -> None:
        argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--label", wish.name[:LABEL_LENGTH]]
        argv += [f"--luks2-metadata-size={METADATA}", *more]
        argv += [f"--{option}={value}" for option, value in wish.format.items() if value is not None]
        self.tool([*argv, *wish.key.arguments, device], wish.key.stdin)

    def _try_format(self, wish: Wish[Policy]) -> None:
        """See that cryptsetup takes the parameters, on a file, before anything is wiped for them."""
        with tempfile.NamedTemporaryFile(dir=self._reader.backup_dir, prefix=".try-") as stream:
            stream.truncate(TRIAL)
            self._luks_format(wish, stream.name)

    def _need_all(self, wish: Wish[Policy], servers: Servers) -> None:
        self._need_policy(wish, servers)
        self._need_keyfile(wish)
        self._need_backups(wish.device)

    def wipe(self, wish: Wish[Policy], servers: Servers, signatures: tuple[str, ...]) -> None:
        """Wipe the signatures that were found, when all that follows can be done."""
        self._need_all(wish, servers)
        self._try_format(wish)
        now, users = self._reader.signatures(wish.device), self._reader.users(wish.device)
        if now != signatures or users:
            found = ", ".join((*now, *users)) or "nothing"
            raise ClusterError(f"{wish.device} is no longer what it was, there is {found} now; nothing was wiped")
        self.tool(["wipefs", "--all", "--", wish.device])

    def erase(self, wish: Wish[Policy], signatures: tuple[str, ...]) -> None:
        """Destroy all keyslots, then both copies of the header and what else was found."""
        users, found = self._reader.users(wish.device), head(wish.device) or b""
        if users:
            raise ClusterError(f"{wish.device} was not erased: it is in use by {', '.join(users)}")
        if is_luks2(found) and uuid_of(found) != wish.erase:
            raise ClusterError(f"{wish.device} was not erased: it carries the LUKS2 header {uuid_of(found)} now")
        now = () if is_luks2(found) else self._reader.signatures(wish.device)
        if now != signatures:
            there = ", ".join(now) or "nothing"
            raise ClusterError(f"{wish.device} is no longer what it was, there is {there} now; nothing was erased")
        if dumped(self._run, wish.device):
            self.tool(["cryptsetup", "erase", "--batch-mode", wish.device])
        else:
            _overwrite(wish.device)
        self.tool(["wipefs", "--all", "--types", ",".join(signatures) or LUKS, "--", wish.device])

    @staticmethod
    def forget(path: str) -> None:
        """Remove a copy of a header, and what was noted of it: it would bring keys back to life."""
        for suffix in (Path(path).suffix, ".binding", ".formatting"):
            Path(path).with_suffix(suffix).unlink(missing_ok=True)
        sync(Path(path).parent)

    def bind(self, wish: Wish[Policy], policy: Policy, slot: int, servers: Servers) -> None:
        """Add a binding that unlocks the device, or leave none behind."""
        self._need_policy(wish, servers)
        self._bind_noted(wish, policy, slot)
        if not self._prover.proves(wish.device, slot):
            for binding in self._reader.metadata(wish.device)[2]:
                if binding.keyslot == slot:
                    self._drop(wish.device, binding)
            raise ClusterError(
                f"{wish.device}: the new binding failed its test and was removed; what was there before was kept"
            )

    def _bind_noted(self, wish: Wish[Policy], policy: Policy, slot: int) -> None:
        """Bind, and note the keyslot meanwhile: clevis adds it before its token, and its key dies with clevis."""
        key, note = self._valid(wish), self._note(wish)
        self._need_backups(wish.device)
        self._write_note(note, f"{slot}\n")
        try:
            self._binder.bind(wish.device, slot, policy, key.text, key.file)
        except CommandFailed:
            # What ran too long may still be at work.
            raise
        except ClusterError:
            note.unlink()
            raise
        note.unlink()

    @staticmethod
    def _write_note(note: Path, text: str) -> None:
        note.write_text(text)
        for path in (note, note.parent):
            sync(path)

    def _note(self, wish: Wish[Policy]) -> Path:
        return self._reader.note(wish.name, uuid_of(head(wish.device) or b""))

    def mend(self, device: str) -> None:
        """Mend one copy of a header by the other."""
        self.tool(["cryptsetup", "repair", "--batch-mode", device])

    def remove_leftover(self, wish: Wish[Policy], slot: int) -> None:
        """Remove the keyslot of a bind that was killed."""
        self._kill(wish.device, slot)
        self._note(wish).unlink(missing_ok=True)

    def _valid(self, wish: Wish[Policy]) -> Key:
        """Return the first given key that opens the device, or none: an existing binding authorises then."""
        if wish.keys == [wish.key] and wish.key.text:
            # clevis tries a passphrase before a binding by itself, but a file instead of one.
            return wish.key
        return next((key for key in wish.keys if self._reader.opens(wish.device, key)), Key())

    def add_recovery(self, wish: Wish[Policy], slot: int, disk: Disk) -> None:
        """Add the recovery key and try it; one that does not open is removed again."""
        argv = ["cryptsetup", "luksAddKey", "--batch-mode", "--key-slot", str(slot)]
        pbkdf = {option: value for option, value in wish.format.items() if option.startswith("pbkdf")}
        argv += [f"--{option}={value}" for option, value in pbkdf.items() if value is not None]
        if wish.key.file and self._reader.opens(wish.device, wish.key):
            self.tool([*argv, *wish.key.arguments, wish.device], wish.recovery.text)
        else:
            self.tool([*argv, wish.device], f"{self._secret(wish, disk)}\n{wish.recovery.text}")
        if not self._reader.opens(wish.device, wish.recovery, slot):
            self._kill(wish.device, slot)
            raise ClusterError(f"{wish.device}: the recovery key failed its test and was removed; nothing else was")

    def _secret(self, wish: Wish[Policy], disk: Disk) -> str:
        """Return a passphrase that opens the device: the given one, or what a binding yields."""
        if wish.key.text and self._reader.opens(wish.device, wish.key):
            return wish.key.text
        slots = [one.keyslot for one in disk.live if self._prover.proves(wish.device, one.keyslot)]
        found = next((self._prover.secret(wish.device, slot) for slot in slots if slot is not None), "")
        if not found:
            raise ClusterError(f"{wish.device} got no recovery key: no valid passphrase and no binding decrypts")
        return found

    def remove_key(self, wish: Wish[Policy], slot: int, keeper: Binding) -> None:
        """Remove the passphrase beside a binding that is proven to unlock."""
        if keeper.keyslot is None or not self._prover.proves(wish.device, keeper.keyslot):
            raise ClusterError(
                f"{wish.device}: the binding in keyslot {keeper.keyslot} does not unlock it, so the {wish.key.name} "
                "was not removed; see that its servers answer"
            )
        self._kill(wish.device, slot)

    def unbind(self, device: str, binding: Binding) -> None:
        """Remove a binding from a device that another key opens."""
        self._drop(device, binding)

    def prefer(self, device: str, slot: Optional[int]) -> None:
        """Let a keyslot be tried before the others."""
        self.tool(["cryptsetup", "config", "--priority", "prefer", "--key-slot", str(slot), device])

    def remove_binding(self, device: str, binding: Binding, keeper: Binding) -> None:
        """Remove a binding beside one that is proven to unlock."""
        slot = keeper.keyslot
        if slot is None or not self._prover.proves(device, slot):
            raise ClusterError(
                f"{device}: the binding in keyslot {slot} does not unlock it, so no other one was removed"
            )
        self._drop(device, binding)

    def _drop(self, device: str, binding: Binding) -> None:
        # The keyslot first: a token without a keyslot is seen as an orphan by the next run, the reverse is not.
        if not binding.foreign and not binding.shared:
            self._kill(device, binding.keyslot)
        self.remove_token(device, binding.token)

    def _kill(self, device: str, slot: Optional[int]) -> None:
        self.tool(["cryptsetup", "luksKillSlot", "--batch-mode", device, str(slot)])

    def remove_orphan(self, wish: Wish[Policy], token: int, servers: Servers) -> None:
        """Remove a token without a keyslot before the device is bound, if it can be."""
        self._need_policy(wish, servers)
        self.remove_token(wish.device, token)

    def remove_token(self, device: str, token: int) -> None:
        """Remove a token."""
        self.tool(["cryptsetup", "token", "remove", "--token-id", str(token), device])

    @staticmethod
    def cover(path: str) -> None:
        """Let nobody but root read a copy of a header."""
        Path(path).chmod(COPY_MODE)

    def put_aside(self, rival: Rival) -> None:
        """Keep a backup that the one of the present header would replace."""
        Path(rival.path).rename(rival.aside)
        # How long it has been there counts, not how old it is.
        os.utime(rival.aside)
        sync(self._reader.backup_dir)

    def save(self, wish: Wish[Policy]) -> None:
        """Replace the device's backup: an older one would bring removed keys back to life."""
        self._need_backups(wish.device)
        own = uuid_of(head(wish.device) or b"")
        target = self._reader.backup(wish.name, own)
        new = target.with_suffix(".new")
        new.unlink(missing_ok=True)
        self.tool(["cryptsetup", "luksHeaderBackup", "--header-backup-file", str(new), wish.device])
        new.chmod(COPY_MODE)
        for path in (new, self._reader.backup_dir):
            sync(path)
        new.replace(target)
        for older in self._reader.backups(own):
            if older != target:
                older.unlink()
        self._reader.format_note(wish.name, own).unlink(missing_ok=True)
        sync(self._reader.backup_dir)

    def open(self, wish: Wish[Policy]) -> None:
        """Open a device with what is given, or through its bindings."""
        argv = ["cryptsetup", "open", "--type", "luks2"]
        for key in wish.keys:
            if key.file and not os.path.exists(key.file):
                continue
            names = [wish.device, wish.name]
            if fits(self._run, [*argv, *key.arguments, *names], key):
                return
        if not self._binder.unlock(wish.device, wish.name):
            raise ClusterError(f"{wish.device} was not opened: no valid passphrase and no binding decrypts")


def _overwrite(device: str) -> None:
    """Write zeros wherever keyslots may be, then where a copy of the header may begin: that tells what is there."""
    try:
        with open(device, "r+b") as disk:
            end = min(disk.seek(0, os.SEEK_END), HEADER_LIMIT)
            places = range(0, end, BINARY_HEADER)
            for starts in ([at for at in places if at not in COPIES], [at for at in places if at in COPIES]):
                for start in starts:
                    disk.seek(start)
                    disk.write(bytes(min(BINARY_HEADER, end - start)))
                disk.flush()
                os.fsync(disk.fileno())
    except OSError as error:
        raise ClusterError(
            f"{device} cannot be overwritten: {error.strerror}; its keyslots may still be there; check the disk and "
            "its cable"
        ) from error
