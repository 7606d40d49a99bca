# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups of a header survive: older headers, damage, and keys that were lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.binder import Clevis
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import Policy
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.devices import LuksDevices
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.headers import BINARY_HEADER, UUID_AT
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import Key, Wish
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.restoring import DiskHeader, Wanted
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.showing import info
from ansible_collections.personal.cluster.plugins.module_utils._errors import Refused
from ansible_collections.personal.cluster.plugins.module_utils._lock import SECONDS, lock_file, locked_within
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
from encryption import (
    CHEAP,
    CHECKSUM,
    PASSPHRASE,
    RECOVERY,
    SECOND_COPY,
    Tang,
    blank_disk,
    digest,
    metadata,
    opens,
    overwrite,
)
from harness import needs

needs("cryptsetup", "clevis", "socat", "tang-show-keys")

CHEAP_KEYS = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Hold the lock of the module, which nothing here takes: a run clears away what another clevis works in."""
    handle = os.open(lock_file("luks_clevis_bind"), os.O_RDWR | os.O_CREAT, 0o600)
    assert locked_within(handle, SECONDS)
    yield
    os.close(handle)


@pytest.fixture
def wish(tmp_path: Path) -> Wish[Policy]:
    """A blank file that stands for a disk, and is to be encrypted."""
    disk = blank_disk(tmp_path / "gv0.img")
    options = {name.replace("_", "-"): value for name, value in CHEAP.items()}
    return Wish(str(disk), "luks-gv0", "present", format=options, key=Key(PASSPHRASE))


@pytest.fixture
def tang(tmp_path: Path) -> Iterator[Tang]:
    """A server."""
    server = Tang.at(tmp_path / "tang")
    server.start()
    yield server
    server.stop()


def bound(wish: Wish[Policy], *servers: Tang) -> Wish[Policy]:
    return replace(wish, policy=Policy.of({"tang": [server.entry() for server in servers], "threshold": 1}))


def converge(wanted: Wish[Policy], *, check: bool = False) -> dict[str, Any]:
    """Do what the module does, without the seconds that starting one takes."""
    run = Runner()
    binder = Clevis(run, 2)
    reader = Reader(run, binder.parse, str(Path(wanted.device).parent / "headers"))
    return _engine.converge(LuksDevices([wanted], binder, run, reader), check=check, done=[])


def settle(wanted: Wish[Policy]) -> dict[str, Any]:
    """Check, run, run again; what check mode lists is what the run does, and nothing is left after it."""
    disk = Path(wanted.device)
    before = digest(disk)
    foreseen = converge(wanted, check=True)
    assert digest(disk) == before, "check mode wrote to a disk"
    done = converge(wanted)
    assert foreseen["actions"] == done["actions"]
    assert converge(wanted)["actions"] == []
    return done


def cryptsetup(*argv: str | Path, stdin: str = PASSPHRASE) -> None:
    subprocess.run(["cryptsetup", "--batch-mode", *argv], input=stdin.encode(), check=True)


def saved(wanted: Wish[Policy]) -> Path:
    """Bring a disk to its declared state, and return the backup of its header."""
    return Path(settle(wanted)["devices"][wanted.device]["header_backup"]["path"])


def former_of(wanted: Wish[Policy]) -> Path:
    """Return a copy of the header that a disk has now."""
    copy = Path(wanted.device).with_suffix(".former")
    shutil.copy(saved(wanted), copy)
    return copy


def bring_back(header: Path, wanted: Wish[Policy]) -> None:
    cryptsetup("luksHeaderRestore", "--header-backup-file", header, wanted.device)


def changed_passphrase(wanted: Wish[Policy]) -> Wish[Policy]:
    """Put another passphrase in the place of the first, as somebody does by hand who then changes the vault."""
    file = Path(wanted.device).with_suffix(".key")
    file.write_text(RECOVERY)
    cryptsetup("luksChangeKey", "--key-file", "-", *CHEAP_KEYS, wanted.device, file)
    return replace(wanted, key=Key(RECOVERY))


def test_an_older_header_does_not_replace_the_backup_of_a_newer_one(wish: Wish[Policy]) -> None:
    former = former_of(wish)
    later = changed_passphrase(wish)
    backup = saved(later)
    newer = digest(backup)
    bring_back(former, wish)
    done = settle(wish)
    aside = backup.with_name(f"{backup.stem}-aside-{newer[:12]}.raw")
    assert done["actions"][0] == f"keep {backup}, which is newer than the header of {wish.device}, as {aside}"
    assert digest(aside) == newer and digest(backup) == digest(former)
    (warning,) = done["warnings"]
    assert f"{wish.device} carries an older header" in warning and f"--header-backup-file {aside} " in warning
    # The way that the warning tells.
    bring_back(aside, wish)
    again = settle(later)
    assert opens(backup, RECOVERY) and "warnings" not in again


def test_an_older_header_is_told_though_a_run_was_killed_in_between(wish: Wish[Policy]) -> None:
    former = former_of(wish)
    backup = saved(changed_passphrase(wish))
    bring_back(former, wish)
    aside = backup.with_name(f"{backup.stem}-aside-{digest(backup)[:12]}.raw")
    # What a run that was killed, or had no room for its backup, has done so far.
    backup.rename(aside)
    (warning,) = settle(wish)["warnings"]
    assert f"{wish.device} carries an older header" in warning and f"--header-backup-file {aside} " in warning
    assert "warnings" not in converge(wish)


def test_a_header_with_the_volume_key_of_before_a_reencryption_is_refused(wish: Wish[Policy]) -> None:
    former = former_of(wish)
    cryptsetup("reencrypt", "--force-offline-reencrypt", "--key-file", "-", *CHEAP_KEYS, wish.device)
    backup = saved(wish)
    later = digest(backup)
    bring_back(former, wish)
    for wanted in (wish, replace(wish, recovery=Key(RECOVERY))):
        with pytest.raises(Refused, match=f"an older header than {backup}, with another volume key"):
            converge(wanted)
    aside = backup.with_name(f"{backup.stem}-aside-{digest(former)[:12]}.raw")
    assert digest(backup) == later and sorted(backup.parent.iterdir()) == [aside, backup]
    bring_back(backup, wish)
    assert settle(wish)["actions"] == []


def test_a_header_with_another_volume_key_is_kept_however_often_the_disk_was_changed(wish: Wish[Policy]) -> None:
    former = former_of(wish)
    cryptsetup("reencrypt", "--force-offline-reencrypt", "--key-file", "-", *CHEAP_KEYS, wish.device)
    backup = saved(wish)
    later = digest(backup)
    bring_back(former, wish)
    for priority in ("prefer", "normal") * 7:
        cryptsetup("config", "--priority", priority, "--key-slot", "0", wish.device)
    done = settle(wish)
    aside = backup.with_name(f"{backup.stem}-aside-{later[:12]}.raw")
    assert done["actions"][0] == f"keep {backup}, which has another volume key than {wish.device}, as {aside}"
    assert digest(aside) == later


def tear(disk: Path, before: bytes, place: str) -> None:
    """Damage a copy of a header, or leave it as it was before a change, as a run that is killed does."""
    start = SECOND_COPY if place.startswith("second") else 0
    if place.endswith("older"):
        with disk.open("r+b") as stream:
            stream.seek(start)
            stream.write(before[start : start + SECOND_COPY])
    else:
        overwrite(disk, start + {"sum": CHECKSUM, "uuid": UUID_AT.start, "text": BINARY_HEADER}[place.split()[1]], 8)


@pytest.mark.parametrize("place", ["first sum", "first uuid", "first text", "second text", "second older"])
def test_a_look_mends_no_header(wish: Wish[Policy], tang: Tang, place: str) -> None:
    wish, disk = bound(wish, tang), Path(wish.device)
    backup = saved(wish)
    before = disk.read_bytes()
    if place.endswith("older"):
        backup = saved(changed_passphrase(wish))
        wish = replace(wish, key=Key(RECOVERY))
    tear(disk, before, place)
    torn = digest(disk)
    reader, binder = Reader(Runner(), Clevis(Runner(), 2).parse, str(backup.parent)), Clevis(Runner(), 2)
    found = info(reader, binder, [wish.device], prove=True, key=wish.key)
    shown = found["devices"][wish.device]
    assert digest(disk) == torn
    assert (shown["torn"], shown["opens"], shown["unlocks"]) == (True, True, True)
    assert shown["uuid"] == backup.stem[-36:]
    assert f"{disk} carries a header of which one copy is not whole" in found["warnings"][0]
    asked = replace(wish, recovery=Key("a third one"))
    assert converge(asked, check=True)["changed"] and digest(disk) == torn
    done = settle(wish)
    assert done["actions"] == [
        f"mend one copy of the header of {disk} by the other",
        f"back up the LUKS header of {disk} to {backup.parent}",
    ]
    assert found["warnings"] == done["warnings"]
    assert metadata(backup) == metadata(disk) and "warnings" not in converge(wish)


@pytest.mark.parametrize("damaged", ["1", "2"])
def test_a_disk_unlocks_as_it_does_at_boot(wish: Wish[Policy], tang: Tang, damaged: str) -> None:
    settle(bound(wish, tang))
    entry = json.dumps(tang.entry())
    argv = ["clevis", "luks", "bind", "-f", "-k", "-", "-s", "2", "-d", wish.device, "tang", entry]
    subprocess.run(argv, input=PASSPHRASE.encode(), check=True)
    overwrite(Path(wish.device), keyslot(wish.device, damaged), 64)
    boot = f". clevis-luks-common-functions; clevis_luks_unlock_device {wish.device}"
    key = subprocess.run(["bash", "-c", boot], capture_output=True, text=True, check=True).stdout
    opened = opens(Path(wish.device), key)
    reader, binder = Reader(Runner(), Clevis(Runner(), 2).parse, "/nonexistent"), Clevis(Runner(), 2)
    found = info(reader, binder, [wish.device], prove=True)["devices"][wish.device]
    assert (found["unlocks"], opened) == (damaged == "2", damaged == "2")


@pytest.mark.parametrize("place", ["keyslot", "text"])
def test_a_backup_that_rots_is_none(wish: Wish[Policy], place: str) -> None:
    backup = saved(wish)
    start = keyslot(wish.device) if place == "keyslot" else BINARY_HEADER
    overwrite(backup, start, 64)
    reader = Reader(Runner(), Clevis(Runner(), 2).parse, str(backup.parent))
    assert reader.disks({wish.device: ""})[wish.device].saved is False
    done = settle(wish)
    assert done["actions"][-1] == f"back up the LUKS header of {wish.device} to {backup.parent}"
    assert opens(backup) and "warnings" not in done


def damage(disk: str) -> None:
    overwrite(Path(disk), keyslot(disk), 64)


def kill(disk: str) -> None:
    cryptsetup("luksKillSlot", disk, "0", stdin="")


@pytest.mark.parametrize("lose", [damage, kill])
def test_the_last_backup_with_a_passphrase_is_kept(wish: Wish[Policy], tang: Tang, lose: Callable[[str], None]) -> None:
    wish = bound(wish, tang)
    backup = saved(wish)
    whole = digest(backup)
    lose(wish.device)
    done = settle(wish)
    aside = backup.with_name(f"{backup.stem}-aside-{whole[:12]}.raw")
    assert done["actions"][0] == f"keep {backup}, which has keyslot 0, lost since on {wish.device}, as {aside}"
    assert opens(aside) and not opens(backup)
    told = f"{wish.device} has lost keyslot 0, which {aside} has, and no given key opens it"
    for result in (done, converge(wish), converge(replace(wish, key=Key()), check=True)):
        assert told in result["warnings"][0]
    # The way that the warning tells.
    bring_back(aside, wish)
    settle(wish)
    assert opens(Path(wish.device)) and "warnings" not in converge(wish)


def test_a_passphrase_that_never_was_in_a_header_is_told(wish: Wish[Policy], tang: Tang) -> None:
    wish = bound(wish, tang)
    backup = saved(wish)
    kill(wish.device)
    backup.unlink()
    settle(wish)
    (warning,) = converge(wish)["warnings"]
    assert f"{wish.device} has no keyslot but those of its bindings: the passphrase opens nothing" in warning
    asked = replace(wish, recovery=Key(RECOVERY))
    assert "warnings" not in settle(asked) and opens(Path(wish.device), RECOVERY)


def test_a_passphrase_that_was_changed_by_hand_is_no_lost_one(wish: Wish[Policy]) -> None:
    backup = saved(wish)
    later = changed_passphrase(wish)
    done = settle(later)
    assert len(done["actions"]) == 2 and "warnings" not in done and "warnings" not in converge(later)
    assert opens(backup, RECOVERY)
    assert "has lost keyslot 0" in converge(wish)["warnings"][0], "the vault was not changed"


def keyslot(disk: str, slot: str = "0") -> int:
    """Return where the key of a keyslot is on a disk."""
    return int(metadata(Path(disk))["keyslots"][slot]["area"]["offset"])


def test_the_header_of_an_older_bundle_is_restored_only_when_it_is_asked_for(wish: Wish[Policy]) -> None:
    former, disk = former_of(wish), Path(wish.device)
    backup = saved(changed_passphrase(wish))
    with disk.open("r+b") as stream:
        stream.write(bytes(2**20))
    before = digest(disk)

    with pytest.raises(Refused) as refused:
        restore(former, disk, backup)
    assert f"older than {backup}, which this node has kept" in str(refused.value) and digest(disk) == before
    assert f"--header-backup-file {backup} {disk} " in str(refused.value)
    assert len(restore(backup, disk, backup)["actions"]) == 2 and opens(disk, RECOVERY)
    assert len(restore(former, disk, backup, "gv0")["actions"]) == 2 and opens(disk)


def restore(source: Path, disk: Path, backup: Path, replaces: str | None = None) -> dict[str, Any]:
    """Give a disk a header, as restore_header.yml does."""
    wanted = Wanted(backup.stem[-36:], disk.stat().st_size, digest(source))
    folder = str(backup.parent)
    header = DiskHeader(str(disk), "gv0", wanted, Runner(), source=str(source), replaces=replaces, backup_dir=folder)
    return _engine.converge(header, check=False, done=[])


def with_copies(wish: Wish[Policy]) -> tuple[Path, Wish[Policy], list[Path]]:
    """Return a backup, the wish that its disk fulfils, and copies of its header: aside, from a restore, by hand."""
    former, disk = former_of(wish), Path(wish.device)
    later = changed_passphrase(wish)
    backup = saved(later)
    restore(former, disk, backup, "gv0")
    by_hand = backup.with_name("gv0-before-restore.raw")
    shutil.copy(former, by_hand)
    settle(wish)
    copies = sorted(backup.parent.glob("*.raw"))
    assert len(copies) == 4 and sum(opens(copy, RECOVERY) for copy in copies) == 2
    return backup, wish, copies


def test_erase_leaves_no_copy_of_a_header(wish: Wish[Policy]) -> None:
    backup, wish, copies = with_copies(wish)
    (backup.parent / "gv1-before-restore.raw").write_bytes(b"of another disk")
    done = settle(replace(wish, state="absent", erase=backup.stem[-36:]))
    gone = [f"remove {path}, the backup of an erased header" for path in sorted([backup, *copies])]
    assert done["actions"][1:] == gone
    assert [path.name for path in backup.parent.iterdir()] == ["gv1-before-restore.raw"]


@pytest.mark.parametrize("formatted", [False, True])
def test_what_was_not_erased_is_not_said_to_be(wish: Wish[Policy], tmp_path: Path, formatted: bool) -> None:
    backup, other = saved(wish), tmp_path / "other.img"
    if formatted:
        subprocess.run(["mke2fs", "-q", blank_disk(other)], check=True)
    wanted = replace(wish, device=str(other), state="absent", erase=backup.stem[-36:])
    for check in (True, False):
        with pytest.raises(Refused, match=f"{backup} is a copy, was not erased; compare device and erase"):
            converge(wanted, check=check)
    assert backup.exists() and opens(Path(wish.device))
    backup.unlink()
    assert converge(wanted)["actions"] == []


def test_copies_that_others_may_read_are_covered(wish: Wish[Policy]) -> None:
    backup, wish, copies = with_copies(wish)
    other = backup.with_name("of-somebody.img")
    other.touch(0o644)
    named = [path for path in (backup, *copies) if path.name != "gv0-before-restore.raw"]
    for path in named:
        path.chmod(0o440)
    assert settle(wish)["actions"] == [f"let root alone read {path}" for path in sorted(named)]
    assert {path.stat().st_mode & 0o777 for path in named} == {0o400} and other.stat().st_mode & 0o777 == 0o644


def test_what_was_kept_aside_goes_with_a_later_backup(wish: Wish[Policy]) -> None:
    _, wish, copies = with_copies(wish)
    long_ago = time.time() - 31 * 86400
    for copy in copies[:2]:
        os.utime(copy, (long_ago, long_ago))
    assert settle(wish)["actions"] == []
    done = settle(replace(wish, recovery=Key("a third one")))
    assert done["actions"][-2:] == [f"remove {copy}, kept aside for 30 days" for copy in copies[:2]]
    assert [copy.exists() for copy in copies] == [False, False, True, True]
