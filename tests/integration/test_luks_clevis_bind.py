# SPDX-License-Identifier: GPL-3.0-or-later
"""luks_clevis_bind against cryptsetup, clevis and tang on plain files; opening needs device-mapper, see the lab."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from encryption import (
    CHECKSUM,
    PASSPHRASE,
    RECOVERY,
    SECOND_COPY,
    Tang,
    blank_disk,
    digest,
    free_port,
    metadata,
    overwrite,
    params,
    partition_table,
    unlocks,
)
from harness import direct, needs, run_module

TOOLS = ("cryptsetup", "clevis", "socat", "tang-show-keys", "jose", "clevis-encrypt-tpm2", "swtpm")
needs(*TOOLS)


@pytest.fixture
def tangs(tmp_path: Path) -> Iterator[list[Tang]]:
    """Two servers."""
    servers = [Tang.at(tmp_path / f"tang{number}") for number in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An emulated TPM that the tools of this test talk to."""
    home = tmp_path / "tpm"
    home.mkdir()
    # The tools expect the control port right above the other one.
    port = next(port for port in iter(free_port, None) if port < 60000)
    argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={home}", "--flags", "not-need-init,startup-clear"]
    argv += ["--server", f"type=tcp,port={port},bindaddr=127.0.0.1"]
    argv += ["--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("TPM2TOOLS_TCTI", f"swtpm:host=127.0.0.1,port={port}")
    # The only client of an emulated TPM must not be this test's probe: wait for its control port.
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port + 1)) == 0:
                break
        time.sleep(0.05)
    # The kernel's resource manager, which is not there, ends what a tool leaves open when it fails.
    real, shim = shutil.which("tpm2_unseal"), home / "bin" / "tpm2_unseal"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n{real} "$@" && exit\ntpm2_flushcontext --loaded-session\nexit 1\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    yield
    process.terminate()
    process.wait(10)


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    """Two blank files that stand for disks."""
    return [blank_disk(tmp_path / "a.img"), blank_disk(tmp_path / "b.img")]


def converge(wanted: dict[str, Any], run: Callable[..., dict[str, Any]] = direct) -> dict[str, Any]:
    """Check, run, run again; what check mode lists is what the run does, and nothing is left after it."""
    paths = [Path(item["device"]) for item in wanted["devices"]]
    before = [digest(path) for path in paths]
    foreseen = run("luks_clevis_bind", wanted, check=True)
    assert [digest(path) for path in paths] == before, "check mode wrote to a disk"
    done = run("luks_clevis_bind", wanted)
    assert not done.get("failed"), done
    assert foreseen["actions"] == done["actions"]
    assert foreseen["changed"] == done["changed"]
    again = run("luks_clevis_bind", wanted)
    assert again["actions"] == [] and again["changed"] is False and "diff" not in again
    assert not any(secret in json.dumps([foreseen, done, again]) for secret in (PASSPHRASE, RECOVERY))
    return done


def test_blank_disks_become_bound_and_backed_up(tangs: list[Tang], disks: list[Path]) -> None:
    done = converge(params(disks, [tangs[0].entry()]), run_module)
    for disk in disks:
        shown = done["devices"][str(disk)]
        assert shown["policy"] == {"tang": {"url": tangs[0].url}}
        assert shown["keyslots"] == [0, 1] and shown["keyslot"] == 1
        assert [key["advertised"] for key in shown["tang_keys"]] == [True]
        assert unlocks(disk, 1)
        assert metadata(disk)["keyslots"]["1"]["priority"] == 2
        assert metadata(disk)["segments"]["0"]["sector_size"] == shown["sector_size"] == 512
        backup = Path(shown["header_backup"]["path"])
        assert backup.stat().st_mode & 0o777 == 0o400
        assert metadata(backup) == metadata(disk)
    # The recovery passphrase opens without any server.
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", str(disks[0])]
    assert subprocess.run(argv, input=PASSPHRASE.encode(), check=False).returncode == 0


def test_a_disk_may_have_its_backups_in_a_directory_of_its_own(disks: list[Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    wanted = with_first(params(disks, None), header_backup_dir=str(own))
    found = converge(wanted)["devices"]
    folders = [Path(found[str(disk)]["header_backup"]["path"]).parent for disk in disks]
    assert folders == [own, tmp_path / "headers"]
    assert all([path.suffix for path in folder.iterdir()] == [".img"] for folder in folders)
    converge(with_first(wanted, state="absent", erase=found[str(disks[0])]["uuid"]))
    assert [len(list(folder.iterdir())) for folder in folders] == [0, 1]


def test_info_tells_what_the_run_told(tangs: list[Tang], disks: list[Path]) -> None:
    wanted = params([disks[0]], [tangs[0].entry()])
    done = converge(wanted)["devices"][str(disks[0])]
    backup = done["header_backup"]
    assert backup["sha256"] == digest(Path(backup["path"]))
    assert done.pop("policy_before") is None and done.pop("recovery_keyslot") is None
    asked = {"devices": [str(disks[0]), str(disks[1])], "header_backup_dir": wanted["header_backup_dir"]}
    before = digest(disks[0])
    found = direct("luks_clevis_info", asked)
    assert found["devices"][str(disks[0])] == done and found["devices"][str(disks[1])]["kind"] == "blank"
    tangs[0].rotate()
    (key,) = direct("luks_clevis_info", asked, check=True)["devices"][str(disks[0])]["tang_keys"]
    assert key["advertised"] is False
    tangs[0].stop()
    found = direct("luks_clevis_info", {**asked, "tang_timeout": 1})
    assert found["devices"][str(disks[0])]["unreachable"] == [tangs[0].url]
    assert digest(disks[0]) == before


def test_a_server_that_is_away_is_bound_to_by_what_it_advertised(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    answer = subprocess.run(["curl", "-sf", f"{tangs[0].url}/adv"], capture_output=True, check=True)
    away, up = tangs[0].entry(), tangs[1].entry()
    kept = {**away, "adv": json.loads(answer.stdout)}
    tangs[0].stop()
    foreign = json.loads(subprocess.run(["curl", "-sf", f"{up['url']}/adv"], capture_output=True, check=True).stdout)
    # Alone it could not be proven; and without what was kept there is nothing to bind to.
    for policy, says in (
        ([kept], f"no answer from {tangs[0].url}"),
        ([away, up], f"no answer from {tangs[0].url}"),
        ([{**kept, "adv": {**kept["adv"], "payload": foreign["payload"]}, "thp": up["thp"]}, up], "did not sign it"),
        ([{**kept, "adv": {"payload": foreign["payload"]}, "thp": up["thp"]}, up], "did not sign it"),
        ([{**kept, "adv": foreign}, up], "does not advertise the key"),
        ([{**kept, "adv": {"payload": "e30"}}, up], "is no advertisement"),
    ):
        refused = direct("luks_clevis_bind", params([disk], policy))
        assert refused["failed"] and says in refused["msg"], refused["msg"]
        assert not disk.read_bytes().strip(b"\0")
    done = converge(params([disk], [kept, up]))
    assert done["devices"][str(disk)]["unreachable"] == [tangs[0].url]
    tangs[0].start()
    tangs[1].stop()
    assert unlocks(disk, done["devices"][str(disk)]["keyslot"]), "the server that was away does not unlock"
    (key,) = (key for key in done["devices"][str(disk)]["tang_keys"] if key["url"] == tangs[0].url)
    tangs[1].start()
    again = direct("luks_clevis_bind", params([disk], [kept, up]))
    assert again["changed"] is False
    # What was kept grows old: a server that answers is asked.
    tangs[0].rotate()
    again = converge(params([disk], [{**kept, "thp": tangs[0].thp}, up]))
    keys = again["devices"][str(disk)]["tang_keys"]
    assert all(one["advertised"] for one in keys) and key["kid"] not in {one["kid"] for one in keys}


def test_a_header_has_room_for_two_bindings_to_many_servers(tangs: list[Tang], disks: list[Path]) -> None:
    def servers() -> list[dict[str, str]]:
        hosts = ("127.0.0.1", "localhost")
        return [{"url": tang.url.replace("127.0.0.1", host), "thp": tang.thp} for tang in tangs for host in hosts]

    converge(params([disks[0]], servers()))
    tangs[0].rotate()
    shown = converge(params([disks[0]], servers()))["devices"][str(disks[0])]
    assert len(shown["tang_keys"]) == 4 and shown["rotated_keys"] == []


def test_policy_changes_and_rotation_rebind(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    converge(params([disk], [tangs[0].entry()]))
    both = [tangs[0].entry(), tangs[1].entry()]
    done = converge(params([disk], both, threshold=2))
    assert done["devices"][str(disk)]["policy"]["sss"]["t"] == 2
    assert done["devices"][str(disk)]["policy_before"] == {"tang": {"url": tangs[0].url}}
    assert done["devices"][str(disk)]["keyslots"] == [0, 2]
    assert unlocks(disk, 2)
    tangs[1].rotate()
    done = converge(params([disk], [tangs[0].entry(), tangs[1].entry()], threshold=2))
    assert f"because {tangs[1].url} is pinned to another key now" in done["actions"][0]
    assert done["devices"][str(disk)]["rotated_keys"] == []
    # Without the passphrase an existing binding that decrypts is enough.
    done = converge(params([disk], [tangs[1].entry()], passphrase=None))
    assert done["devices"][str(disk)]["policy"] == {"tang": {"url": tangs[1].url}}
    assert len(list((disk.parent / "headers").iterdir())) == 1


def opens(disk: Path, slot: int, key: bytes) -> bool:
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-slot", str(slot), "--key-file", "-", str(disk)]
    return subprocess.run(argv, input=key, capture_output=True, check=False).returncode == 0


def test_keyfile_recovery_key_and_no_passphrase(tangs: list[Tang], disks: list[Path], tmp_path: Path) -> None:
    disk, keyfile = disks[0], tmp_path / "bootstrap.key"
    secret = bytes(range(256))
    keyfile.write_bytes(secret)
    wanted = params([disk], [tangs[0].entry()], passphrase=None, keyfile=str(keyfile), recovery_key=RECOVERY)
    done = converge(wanted)
    found = done["devices"][str(disk)]
    assert found["keyslots"] == [0, 1, 2] and found["recovery_keyslot"] == 2
    assert opens(disk, 0, secret) and opens(disk, 2, RECOVERY.encode())
    done = converge({**wanted, "remove_passphrase": True})
    assert done["actions"][0] == f"remove the key of {keyfile} of {disk} from keyslot 0"
    assert done["devices"][str(disk)]["keyslots"] == [1, 2] and unlocks(disk, 1)
    assert metadata(Path(done["devices"][str(disk)]["header_backup"]["path"])) == metadata(disk)
    # What is left authorises: the recovery key while the binding's server is gone, the keyfile may be gone too.
    keyfile.unlink()
    tangs[0].stop()
    done = converge({**wanted, "remove_passphrase": True, "policy": {"tang": [tangs[1].entry()]}})
    assert done["devices"][str(disk)]["keyslots"] == [0, 2] and unlocks(disk, 0)
    # The binding alone authorises another recovery key.
    done = converge(params([disk], [tangs[1].entry()], passphrase=None, recovery_key="another"))
    assert opens(disk, done["devices"][str(disk)]["recovery_keyslot"], b"another")
    # So does it where the passphrase that is declared opens nothing, because the one that did was lost.
    done = converge(params([disk], [tangs[1].entry()], passphrase="anything", recovery_key="a third"))
    assert opens(disk, done["devices"][str(disk)]["recovery_keyslot"], b"a third")


def test_bootstrap_passphrase_is_replaced_in_one_run(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()], remove_passphrase=True)
    before = digest(disk)
    failed = direct("luks_clevis_bind", wanted)
    assert failed["failed"] and f"{disk} keeps its passphrase: refusing to remove" in failed["msg"]
    assert digest(disk) == before
    done = converge({**wanted, "recovery_key": RECOVERY})
    assert done["devices"][str(disk)]["keyslots"] == [1, 2] and opens(disk, 2, RECOVERY.encode())
    tried = {"devices": [str(disk), str(disks[1])], "passphrase": RECOVERY}
    assert [shown["opens"] for shown in direct("luks_clevis_info", tried)["devices"].values()] == [True, False]
    assert not direct("luks_clevis_info", {**tried, "passphrase": PASSPHRASE})["devices"][str(disk)]["opens"]
    # What was the recovery key is the passphrase from now on.
    later = {**wanted, "passphrase": RECOVERY, "remove_passphrase": False}
    assert not direct("luks_clevis_bind", later)["changed"]
    rebound = converge({**later, "policy": {"tang": [tangs[1].entry()]}})
    assert rebound["devices"][str(disk)]["policy"] == {"tang": {"url": tangs[1].url}}


def test_a_key_that_opens_no_disk_is_no_recovery_key(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()], recovery_key=RECOVERY, remove_passphrase=True)
    converge(params([disk], [tangs[0].entry()]))
    add = ["cryptsetup", "luksAddKey", "--batch-mode", "--unbound", "--key-slot", "2", "--key-size", "512"]
    add += ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", str(disk)]
    subprocess.run(add, input=RECOVERY.encode(), check=True)
    tried = {"devices": [str(disk)], "passphrase": RECOVERY}
    assert direct("luks_clevis_info", tried)["devices"][str(disk)]["opens"] is False
    done = converge(wanted)["devices"][str(disk)]
    assert done["keyslots"] == [1, 2, 3] and done["recovery_keyslot"] == 3
    assert direct("luks_clevis_info", tried)["devices"][str(disk)]["opens"] is True


def test_a_disk_that_is_being_reencrypted_is_left_alone(disks: list[Path]) -> None:
    disk = disks[0]
    found = converge(params([disk], None))["devices"][str(disk)]
    argv = ["cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--key-file", "-", "--pbkdf", "pbkdf2"]
    subprocess.run([*argv, "--pbkdf-force-iterations", "1000", disk], input=PASSPHRASE.encode(), check=True)
    before = digest(disk)
    failed = direct("luks_clevis_bind", params([disk], None, recovery_key=RECOVERY))
    assert failed["failed"] and f"{disk} is being reencrypted (online-reencrypt-v2)" in failed["msg"], failed
    assert digest(disk) == before
    done = converge(with_first(params([disk], None), state="absent", erase=found["uuid"]))
    assert done["devices"][str(disk)]["kind"] == "blank"


def with_first(wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return parameters of which the first device has further options."""
    first, *rest = wanted["devices"]
    return {**wanted, "devices": [{**first, **more}, *rest]}


def test_unbound_and_bound_again(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()])
    converge(wanted)
    tangs[0].stop()
    before = digest(disk)
    for wrong in (None, "wrong"):
        failed = direct("luks_clevis_bind", {**with_first(wanted, state="unbound"), "passphrase": wrong})
        assert failed["failed"] and f"{disk} keeps its binding" in failed["msg"]
        assert digest(disk) == before
    done = converge(with_first(wanted, state="unbound"))["devices"][str(disk)]
    assert done["policy"] is None and done["policy_before"] == {"tang": {"url": tangs[0].url}}
    assert metadata(disk)["tokens"] == {} and done["keyslots"] == [0]
    tangs[0].start()
    converge(wanted)
    assert unlocks(disk, 1)


def test_absent_erases_what_is_named(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    found = converge(params([disk], [tangs[0].entry()]))["devices"][str(disk)]
    wanted = with_first(params([disk], None), state="absent")
    before = digest(disk)
    converge(wanted)
    other = "6cd5edc1-a2d9-419a-92b6-6e4b15486770"
    failed = direct("luks_clevis_bind", with_first(wanted, erase=other))
    assert failed["failed"] and f"erase names {other}" in failed["msg"]
    assert digest(disk) == before and Path(found["header_backup"]["path"]).exists()
    done = converge(with_first(wanted, erase=found["uuid"]))
    assert done["devices"][str(disk)]["kind"] == "blank"
    assert list((disk.parent / "headers").iterdir()) == []
    assert subprocess.run(["cryptsetup", "repair", "-q", disk], capture_output=True, check=False).returncode != 0


def first_copy(disk: Path) -> None:
    overwrite(disk, 0, 4096)


def both_checksums(disk: Path) -> None:
    for copy in (0, SECOND_COPY):
        overwrite(disk, copy + CHECKSUM, 1)


@pytest.mark.parametrize("damage", [first_copy, both_checksums, partition_table])
def test_what_is_left_of_a_damaged_header_is_erased_with_its_keyslots(
    disks: list[Path], damage: Callable[[Path], None]
) -> None:
    disk = disks[0]
    found = converge(params([disk], None))["devices"][str(disk)]
    keyslot = slice(2 * SECOND_COPY, 2 * SECOND_COPY + 258048)
    whole = disk.read_bytes()
    damage(disk)
    done = converge(with_first(params([disk], None), state="absent", erase=found["uuid"]))
    assert ("and wipe dos; its data is lost" in done["actions"][0]) is (damage is partition_table)
    assert done["devices"][str(disk)]["kind"] == "blank" and not Path(found["header_backup"]["path"]).exists()
    erased = disk.read_bytes()
    assert erased[keyslot] != whole[keyslot], "the keyslot is still there"
    disk.write_bytes(whole[: 2 * SECOND_COPY] + erased[2 * SECOND_COPY :])
    assert not opens(disk, 0, PASSPHRASE.encode()), "who has kept the header opens it"


@pytest.mark.parametrize("more", [{}, {"force_wipe": True}])
def test_a_disk_whose_header_is_gone_is_not_taken_for_a_blank_one(disks: list[Path], more: dict[str, Any]) -> None:
    disk, other = disks
    converge(with_first(params([other], None), name=f"luks-{disk.stem}-{other.stem}"))
    wanted = params([disk], None)
    found = converge(wanted)["devices"][str(disk)]
    backup = Path(found["header_backup"]["path"])
    overwrite(disk, 0, backup.stat().st_size)
    if more:
        subprocess.run(["mkfs.ext4", "-q", disk], check=True, stdin=subprocess.DEVNULL)
    before = digest(disk)
    failed = direct("luks_clevis_bind", with_first(wanted, **more))
    assert failed["failed"] and f"{backup} is a backup of the one that luks-{disk.stem} had" in failed["msg"]
    assert digest(disk) == before
    argv = ["cryptsetup", "luksHeaderRestore", "--batch-mode", "--header-backup-file", str(backup), str(disk)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    assert converge(wanted)["devices"][str(disk)]["uuid"] == found["uuid"]
    overwrite(disk, 0, backup.stat().st_size)
    assert converge(with_first(wanted, replaced=True, **more))["devices"][str(disk)]["uuid"] != found["uuid"]


def test_force_wipe_takes_the_named_disk_alone(tangs: list[Tang], disks: list[Path]) -> None:
    foreign(disks[0], tangs[0])
    luks1(disks[1], tangs[0])
    wanted = params(disks, [tangs[0].entry()])
    before = [digest(disk) for disk in disks]
    failed = direct("luks_clevis_bind", with_first(wanted, force_wipe=True))
    assert failed["failed"] and f"{disks[1]} is LUKS1" in failed["msg"] and str(disks[0]) not in failed["msg"]
    assert [digest(disk) for disk in disks] == before
    tangs[0].stop()
    wanted = {**wanted, "devices": [{**item, "force_wipe": True} for item in wanted["devices"]]}
    failed = direct("luks_clevis_bind", wanted)
    assert failed["failed"] and "no answer" in failed["msg"]
    assert [digest(disk) for disk in disks] == before, "wiped although nothing could follow"
    tangs[0].start()
    done = converge(wanted)
    assert [shown["kind"] for shown in done["devices"].values()] == ["luks2", "luks2"]


@pytest.fixture
def loop(disks: list[Path]) -> Iterator[str]:
    """The first file as a block device with a filesystem."""
    argv = ["losetup", "--find", "--show", str(disks[0])]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["mke2fs", "-q", device], check=True)
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_force_wipe_never_takes_a_disk_in_use(disks: list[Path], loop: str, tmp_path: Path) -> None:
    wanted = params([Path(loop)], None)
    wanted = {**with_first(wanted, force_wipe=True), "header_backup_dir": str(tmp_path / "headers")}
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", loop, mount], check=True)
    try:
        failed = direct("luks_clevis_bind", wanted)
    finally:
        subprocess.run(["umount", mount], check=True)
    assert failed["failed"] and f"{loop} holds data (ext2) and is in use by mount {mount}" in failed["msg"]
    # A member of a filesystem over several disks shows in no table of mounts.
    claim = os.open(loop, os.O_RDONLY | os.O_EXCL)
    try:
        failed = direct("luks_clevis_bind", wanted)
    finally:
        os.close(claim)
    assert failed["failed"] and "in use by something that claims it; what is in use is never wiped" in failed["msg"]
    done = direct("luks_clevis_bind", wanted)
    assert done["devices"][loop]["kind"] == "luks2", done


def test_tpm_alone_and_with_servers(tangs: list[Tang], disks: list[Path], tpm: None) -> None:
    disk = disks[0]
    done = converge({**params([disk], None), "policy": {"tpm2": {"pcr_bank": "sha256", "pcr_ids": [7, 0]}}})
    assert done["devices"][str(disk)]["policy"] == {"tpm2": {"pcr_bank": "sha256", "pcr_ids": "0,7"}}
    inner = {"tang": [tangs[0].entry(), tangs[1].entry()], "threshold": 1}
    done = converge({**params([disk], None), "policy": {"threshold": 2, "tpm2": {}, "sss": [inner]}})
    found = done["devices"][str(disk)]
    servers = sorted(({"tang": {"url": tang.url}} for tang in tangs), key=str)
    assert found["policy"] == {"sss": {"t": 2, "pins": [{"sss": {"t": 1, "pins": servers}}, {"tpm2": {}}]}}
    tangs[0].stop()
    assert unlocks(disk, found["keyslot"]), "one of the servers and the TPM"
    tangs[1].stop()
    assert not unlocks(disk, found["keyslot"]), "the TPM alone"


def test_a_binding_that_unlocks_no_more_is_made_anew(disks: list[Path], tpm: None) -> None:
    wanted = {**params([disks[0]], None), "policy": {"tpm2": {"pcr_bank": "sha256", "pcr_ids": [7]}}}
    converge(wanted)
    # As a change of the firmware's settings does.
    subprocess.run(["tpm2_pcrextend", f"7:sha256={'ab' * 32}"], check=True)
    assert not unlocks(disks[0], 1)
    before = digest(disks[0])
    failed = direct("luks_clevis_bind", {**wanted, "passphrase": None})
    assert failed.get("failed") and "no valid passphrase and no binding decrypts" in failed["msg"], failed
    assert digest(disks[0]) == before
    done = converge({**wanted, "rotation": "ignore"})
    assert "in keyslot 2 because its binding unlocks it no more" in done["actions"][0]
    assert unlocks(disks[0], 2) and sorted(metadata(disks[0])["keyslots"]) == ["0", "2"]


@pytest.mark.parametrize("change", ["none", "policy", "unbound"])
def test_a_passphrase_in_the_keyslot_of_a_binding_stays(tangs: list[Tang], disks: list[Path], change: str) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()])
    converge(wanted)
    token = json.dumps(metadata(disk)["tokens"]["0"])
    subprocess.run(["cryptsetup", "luksKillSlot", "-q", str(disk), "1"], check=True)
    add = ["cryptsetup", "luksAddKey", "--batch-mode", "--key-slot", "1", "--pbkdf-memory", "32", str(disk)]
    subprocess.run(add, input=f"{PASSPHRASE}\n{RECOVERY}".encode(), check=True)
    # cryptsetup takes a keyslot out of its tokens; other tools put back what they know.
    subprocess.run(["cryptsetup", "token", "remove", "--token-id", "0", str(disk)], check=True)
    subprocess.run(["cryptsetup", "token", "import", "--token-id", "0", str(disk)], input=token.encode(), check=True)
    if change == "policy":
        wanted = params([disk], [tangs[1].entry()])
    elif change == "unbound":
        wanted = with_first(wanted, state="unbound")
    done = converge(wanted)
    assert f"remove clevis token 0 of {disk}; keyslot 1 holds a key that it does not yield now" in done["actions"]
    assert opens(disk, 1, RECOVERY.encode()) and (change == "unbound" or unlocks(disk, 2))


@pytest.mark.parametrize("change", ["policy", "keys"])
def test_an_orphan_does_not_take_the_new_binding_with_it(tangs: list[Tang], disks: list[Path], change: str) -> None:
    disk = disks[0]
    converge(params([disk], [tangs[0].entry()]))
    argv = ["clevis", "luks", "bind", "-f", "-k", "-", "-s", "2", "-d", str(disk), "tang", json.dumps(tangs[0].entry())]
    subprocess.run(argv, input=PASSPHRASE.encode(), check=True)
    subprocess.run(["cryptsetup", "luksKillSlot", "-q", str(disk), "2"], check=True)
    if change == "keys":
        tangs[0].rotate()
    done = converge(params([disk], [tangs[change == "policy"].entry()]))
    assert f"remove orphan clevis token 1 of {disk}" in done["actions"]
    assert len(metadata(disk)["tokens"]) == 1 and unlocks(disk, done["devices"][str(disk)]["keyslot"])


def test_of_two_tokens_on_one_keyslot_the_later_one_goes_alone(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()])
    converge(wanted)
    token = json.dumps(metadata(disk)["tokens"]["0"])
    subprocess.run(["cryptsetup", "token", "import", "--token-id", "1", str(disk)], input=token.encode(), check=True)
    done = converge(wanted)
    assert f"remove clevis token 1 of {disk}; keyslot 1 holds the key of another token" in done["actions"]
    assert unlocks(disk, 1) and list(metadata(disk)["tokens"]) == ["0"]


def test_no_tpm(disks: list[Path]) -> None:
    wanted = {**params(disks, None), "policy": {"tpm2": {}}}
    before = digest(disks[0])
    for check in (True, False):
        failed = direct("luks_clevis_bind", wanted, check=check)
        assert failed["failed"] and f"{disks[0]} cannot be bound: this node has no TPM" in failed["msg"]
    assert digest(disks[0]) == before


def test_orphans_and_doubles_are_removed(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], [tangs[0].entry()])
    converge(wanted)
    # A run that was killed before it removed the old binding, and a keyslot that was killed by hand.
    config = json.dumps(tangs[1].entry())
    for slot in ("2", "3"):
        argv = ["clevis", "luks", "bind", "-f", "-k", "-", "-s", slot, "-d", str(disk), "tang", config]
        subprocess.run(argv, input=PASSPHRASE.encode(), check=True)
    subprocess.run(["cryptsetup", "luksKillSlot", "-q", str(disk), "3"], check=True)
    done = converge(wanted)
    assert any("remove orphan clevis token 2" in action for action in done["actions"])
    assert any("from keyslot 2" in action for action in done["actions"])
    assert sorted(metadata(disk)["tokens"]) == ["0"] and sorted(metadata(disk)["keyslots"]) == ["0", "1"]


def test_silent_server(tangs: list[Tang], disks: list[Path]) -> None:
    entry = tangs[0].entry()
    converge(params([disks[0]], [entry]))
    tangs[0].stop()
    before = [digest(disk) for disk in disks]
    kept = direct("luks_clevis_bind", params([disks[0]], [entry]))
    assert kept["changed"] is False and kept["devices"][str(disks[0])]["unreachable"] == [tangs[0].url]
    assert not direct("luks_clevis_bind", params([disks[1]], [entry]), check=True).get("failed")
    failed = direct("luks_clevis_bind", params([disks[1]], [entry]))
    assert failed["failed"] and f"no answer from {tangs[0].url}" in failed["msg"] and str(disks[1]) in failed["msg"]
    assert [digest(disk) for disk in disks] == before


def test_hanging_server_does_not_hang_the_module(disks: list[Path]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        failed = direct("luks_clevis_bind", params([disks[0]], [{"url": url, "thp": "x"}], tang_timeout=1))
    assert failed["failed"] and "no answer" in failed["msg"]


def foreign(disk: Path, _: Tang) -> dict[str, Any]:
    subprocess.run(["mke2fs", "-q", str(disk)], check=True)
    return {}


def luks1(disk: Path, _: Tang) -> dict[str, Any]:
    argv = ["cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", str(disk)]
    subprocess.run(argv, input=b"x", check=True)
    return {}


def keyfile_of_two_words(disk: Path, _: Tang) -> dict[str, Any]:
    path = disk.with_name("a key")
    path.write_text("x")
    return {"passphrase": None, "keyfile": str(path)}


def no_pin(_: Path, tang: Tang) -> dict[str, Any]:
    return {"policy": {"tang": [{"url": tang.url}]}}


def wrong_pin(_: Path, tang: Tang) -> dict[str, Any]:
    return {"policy": {"tang": [{"url": tang.url, "thp": "V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4"}]}}


def threshold(_: Path, tang: Tang) -> dict[str, Any]:
    return {"policy": {"tang": [tang.entry()], "threshold": 2, "pin": "sss"}}


def no_passphrase(_: Path, tang: Tang) -> dict[str, Any]:
    return {"passphrase": None}


def no_disk(disk: Path, _: Tang) -> dict[str, Any]:
    disk.unlink()
    return {}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (foreign, "holds data (ext2)"),
        (luks1, "is LUKS1"),
        (no_pin, "no thumbprint is pinned"),
        (wrong_pin, "does not advertise the key"),
        (threshold, "threshold 2 exceeds 1 pin"),
        (no_passphrase, "no passphrase was given"),
        (no_disk, "does not exist"),
        (keyfile_of_two_words, "clevis takes no path with a space"),
    ],
)
def test_refusals_change_nothing(tangs: list[Tang], disks: list[Path], spoil: Any, says: str) -> None:
    wanted = {**params(disks, [tangs[0].entry()]), **spoil(disks[1], tangs[0])}
    present = [disk for disk in disks if disk.exists()]
    before = [digest(disk) for disk in present]
    failed = direct("luks_clevis_bind", wanted)
    assert failed["failed"] and str(disks[1]) in failed["msg"] and says in failed["msg"], failed["msg"]
    assert failed["actions"] == [] and failed["changed"] is False
    assert [digest(disk) for disk in present] == before
    assert not (disks[0].parent / "headers").exists()


def test_backups_that_cannot_be_written_leave_a_disk_as_it_was(disks: list[Path]) -> None:
    before = digest(disks[0])
    failed = direct("luks_clevis_bind", params([disks[0]], None, header_backup_dir="/sys/kernel"))
    assert failed["failed"] and f"could not format {disks[0]}" in failed["msg"] and "/sys/kernel/luks-" in failed["msg"]
    assert failed["changed"] is False and digest(disks[0]) == before


def test_a_damaged_header_is_named_and_never_wiped(disks: list[Path]) -> None:
    disk = disks[0]
    wanted = params([disk], None)
    converge(wanted)
    whole = disk.read_bytes()
    overwrite(disk, 0, 4096)
    broken = digest(disk)
    failed = direct("luks_clevis_bind", with_first(wanted, force_wipe=True))
    assert failed["failed"] and "with a damaged header, and is never wiped" in failed["msg"], failed["msg"]
    assert digest(disk) == broken
    subprocess.run(["cryptsetup", "repair", "--batch-mode", disk], check=True, stdin=subprocess.DEVNULL)
    assert not direct("luks_clevis_bind", wanted).get("failed")
    for copy in (0, SECOND_COPY):
        overwrite(disk, copy + CHECKSUM, 64)
    broken = digest(disk)
    failed = direct("luks_clevis_bind", with_first(wanted, force_wipe=True))
    assert failed["failed"] and "with a damaged header, and is never wiped" in failed["msg"], failed["msg"]
    assert digest(disk) == broken
    disk.write_bytes(whole)
    partition_table(disk)
    broken = digest(disk)
    elsewhere = {**wanted, "header_backup_dir": str(disks[0].parent / "elsewhere")}
    failed = direct("luks_clevis_bind", with_first(elsewhere, force_wipe=True))
    assert failed["failed"] and "with a damaged header beside dos, and is never wiped" in failed["msg"], failed["msg"]
    assert digest(disk) == broken
    disk.write_bytes(whole)
    subprocess.run(["cryptsetup", "erase", "--batch-mode", disk], check=True, stdin=subprocess.DEVNULL)
    empty = digest(disk)
    failed = direct("luks_clevis_bind", with_first(elsewhere, force_wipe=True))
    assert failed["failed"] and "carries LUKS2 without a key, and was not being formatted" in failed["msg"]
    assert digest(disk) == empty


def test_wrong_passphrase_keeps_the_header(tangs: list[Tang], disks: list[Path]) -> None:
    disk = disks[0]
    converge(params([disk], None))
    before = digest(disk)
    failed = direct("luks_clevis_bind", params([disk], [tangs[0].entry()], passphrase="wrong"))
    assert failed["failed"] and "no valid passphrase" in failed["msg"]
    assert digest(disk) == before


def token(disk: Path, number: int, found: dict[str, Any]) -> None:
    """Put a token into a header, in the place of what is there under its number."""
    if str(number) in metadata(disk)["tokens"]:
        subprocess.run(["cryptsetup", "token", "remove", "--token-id", str(number), disk], check=True)
    argv = ["cryptsetup", "token", "import", "--token-id", str(number), str(disk)]
    subprocess.run(argv, input=json.dumps(found).encode(), check=True)


def test_a_binding_is_not_proven_by_the_keyslot_of_another_one(tangs: list[Tang], disks: list[Path]) -> None:
    disk, wanted = disks[0], params([disks[0]], [tangs[0].entry()])
    converge(wanted)
    add = ["cryptsetup", "luksAddKey", "--batch-mode", "--key-slot", "2", "--pbkdf", "pbkdf2"]
    add += ["--pbkdf-force-iterations", "1000", str(disk)]
    subprocess.run(add, input=f"{PASSPHRASE}\nsome other key".encode(), check=True)
    good = metadata(disk)["tokens"]["0"]
    token(disk, 0, {**good, "keyslots": ["2"]})
    token(disk, 1, good)
    assert unlocks(disk, 2), "clevis takes what opens another keyslot"
    done = converge(wanted)
    assert f"remove the binding of {disk} to tang {tangs[0].url} from keyslot 2" in done["actions"]
    (left,) = metadata(disk)["tokens"].values()
    assert left == good and unlocks(disk, 1)
