# SPDX-License-Identifier: GPL-3.0-or-later
"""luks_escrow and luks_header with real gpg and cryptsetup, alone and by their playbooks, on files as disks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.restoring import DiskHeader, Wanted
from ansible_collections.personal.cluster.plugins.module_utils._engine import converge
from ansible_collections.personal.cluster.plugins.module_utils._errors import Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
from encryption import CHEAP, PASSPHRASE, digest, metadata, opens, partition_table
from harness import direct, needs, play, playbook_argv

needs("cryptsetup", "gpg", "gpg-agent", "unshare")

SECRET = "a passphrase for the bundle, long"
MIB = 2**20


def make_disk(path: Path, size: int = 20 * MIB) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    argv = [
        "cryptsetup",
        "luksFormat",
        "-q",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "-d",
        "-",
        str(path),
    ]
    subprocess.run(argv, input=PASSPHRASE.encode(), check=True)
    return path


def uuid(disk: Path) -> str:
    argv = ["cryptsetup", "luksUUID", str(disk)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def backup(disk: Path, folder: Path) -> dict[str, Any]:
    """Save a header where the module looks for it, and return what is known of it."""
    folder.mkdir(exist_ok=True)
    new = folder / "new"
    subprocess.run(["cryptsetup", "luksHeaderBackup", "--header-backup-file", new, disk], check=True)
    sha256 = digest(new)
    new.rename(folder / f"{sha256}.img")
    return {"host": "node1", "name": disk.stem, "uuid": uuid(disk), "size": disk.stat().st_size, "sha256": sha256}


def add_key(disk: Path, key: str) -> None:
    file = disk.with_suffix(".key")
    file.write_text(key)
    argv = [
        "cryptsetup",
        "luksAddKey",
        "-q",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        str(disk),
        str(file),
    ]
    subprocess.run(argv, input=PASSPHRASE.encode(), check=True)


def bundle(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(tmp_path / "state/escrow.tar.gpg"), "passphrase": SECRET, **more}


def settle(name: str, wanted: dict[str, Any], *watched: Path) -> dict[str, Any]:
    """Check, run, run again; what check mode lists is what the run does, and nothing is left after it."""
    before = [digest(path) if path.exists() else "" for path in watched]
    foreseen = direct(name, wanted, check=True)
    assert [digest(path) if path.exists() else "" for path in watched] == before, "check mode wrote"
    done = direct(name, wanted)
    assert not done.get("failed"), done
    assert foreseen["actions"] == done["actions"] and foreseen["changed"] == done["changed"]
    again = direct(name, wanted)
    assert again["actions"] == [] and again["changed"] is False and "diff" not in again
    said = json.dumps([foreseen, done, again])
    assert SECRET not in said and PASSPHRASE not in said
    return done


def plain(path: str, folder: Path) -> Path:
    """Open a bundle as its README and the documentation say."""
    folder.mkdir()
    argv = ["gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase-fd=0", "-d", path]
    archive = subprocess.run(argv, input=SECRET.encode() + b"\n", capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)
    return folder


def test_the_bundle_keeps_headers_and_secrets(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    a, b = make_disk(tmp_path / "a"), make_disk(tmp_path / "b")
    first, second = backup(a, incoming), backup(b, incoming)
    secrets = {"recovery-passphrase": PASSPHRASE}
    path = tmp_path / "state/escrow.tar.gpg"
    wanted = bundle(tmp_path, headers=[first, second], secrets=secrets, incoming=str(incoming))
    done = settle("luks_escrow", wanted, path)
    assert done["headers"] == [first, second] and done["secrets"] == ["recovery-passphrase"]
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700

    # A header changes; the others and the secrets need not be handed over again.
    add_key(a, "another")
    for file in incoming.iterdir():
        file.unlink()
    changed = backup(a, incoming)
    done = settle("luks_escrow", bundle(tmp_path, headers=[changed], incoming=str(incoming)), path)
    assert done["actions"] == [f"put the header of a on node1 into {path}"]
    assert done["headers"] == [changed, second] and done["secrets"] == ["recovery-passphrase"]

    folder = plain(str(path), tmp_path / "plain")
    assert digest(folder / "headers/node1/a.img") == changed["sha256"]
    assert digest(folder / "headers/node1/b.img") == second["sha256"]
    assert (folder / "secrets/recovery-passphrase").read_text() == PASSPHRASE
    taken = bundle(tmp_path, take={"host": "node1", "name": "b", "dest": str(tmp_path / "taken")})
    assert settle("luks_escrow", taken, path, tmp_path / "taken")["header"] == second
    assert digest(tmp_path / "taken") == second["sha256"]
    assert not [file for file in path.parent.iterdir() if file != path]


def test_the_bundle_forgets_what_is_not_declared_when_asked(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    a, b, c = (make_disk(tmp_path / name) for name in "abc")
    first, second, third = (backup(disk, incoming) for disk in (a, b, c))
    secrets = {"recovery-key": "a key", "recovery-passphrase": PASSPHRASE}
    path = tmp_path / "state/escrow.tar.gpg"
    settle("luks_escrow", bundle(tmp_path, headers=[first, second], secrets=secrets, incoming=str(incoming)), path)

    kept = {"headers": [first], "secrets": {"recovery-key": "a key"}, "purge": True}
    done = settle("luks_escrow", bundle(tmp_path, **kept), path)
    gone = "the header of b on node1, the secret recovery-passphrase"
    assert done["actions"] == [f"take {gone} out of {path}"]
    assert done["diff"]["before"]["headers"] == [first, second] and done["diff"]["after"]["headers"] == [first]
    folder = plain(str(path), tmp_path / "plain")
    assert {file.name: digest(file) for file in folder.glob("headers/*/*")} == {"a.img": first["sha256"]}
    assert [file.name for file in (folder / "secrets").iterdir()] == ["recovery-key"]
    assert [item["name"] for item in json.loads((folder / "manifest.json").read_text())] == ["a"]

    done = settle("luks_escrow", bundle(tmp_path, headers=[third], incoming=str(incoming), purge=True), path)
    gone = "the header of a on node1, the secret recovery-key"
    assert done["actions"] == [f"put the header of c on node1 into {path} and take {gone} out of {path}"]
    assert done["headers"] == [third] and done["secrets"] == []


def test_a_bundle_that_does_not_open_is_left_alone(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    header = backup(make_disk(tmp_path / "a"), incoming)
    wanted = bundle(tmp_path, headers=[header], incoming=str(incoming))
    assert direct("luks_escrow", wanted)["changed"]
    path = Path(wanted["path"])
    before = digest(path)
    wrong = direct("luks_escrow", {**wanted, "passphrase": "wrong"})
    assert wrong["failed"] and "does not open with the escrow passphrase" in wrong["msg"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    changed = direct("luks_escrow", wanted)
    assert changed["failed"] and "does not open" in changed["msg"]
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    lacking = direct("luks_escrow", {**wanted, "headers": [{**header, "sha256": "0" * 64}]})
    assert lacking["failed"] and "the header of a on node1 was not handed over" in lacking["msg"]
    none = direct("luks_escrow", bundle(tmp_path, take={"host": "node1", "name": "c", "dest": str(tmp_path / "c")}))
    assert none["failed"] and "has no header of c on node1; it has those of a on node1" in none["msg"]
    assert digest(path) == before and [file for file in path.parent.iterdir()] == [path]


def restore(disk: Path, header: dict[str, Any], folder: Path, **more: Any) -> dict[str, Any]:
    known = {name: header[name] for name in ("name", "uuid", "size", "sha256")}
    source = str(folder / f"{header['sha256']}.img")
    return {"device": str(disk), **known, "source": source, "backup_dir": str(folder / "kept"), **more}


def restored(disk: Path, header: dict[str, Any], folder: Path, replace: str | None = None) -> list[str]:
    """Check, restore and restore again, as the module does it, without the seconds that starting one takes."""
    wanted = Wanted(header["uuid"], header["size"], header["sha256"])
    source, kept = str(folder / f"{header['sha256']}.img"), str(folder / "kept")
    resource = DiskHeader(str(disk), header["name"], wanted, Runner(), source=source, replaces=replace, backup_dir=kept)
    before = digest(disk)
    foreseen = converge(resource, check=True, done=[])["actions"]
    assert digest(disk) == before, "check mode wrote"
    assert converge(resource, check=False, done=[])["actions"] == foreseen
    assert converge(resource, check=False, done=[])["actions"] == []
    return list(foreseen)


def overwrite(disk: Path, start: int, length: int) -> None:
    with disk.open("r+b") as stream:
        stream.seek(start)
        stream.write(b"\xa5" * length)


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 16 * MIB), (0, 2 * 0x4000), (0x1000, 0x6000), (0x8000, MIB)],
    ids=["everything", "both copies", "parts of both copies", "the keyslots"],
)
def test_a_damaged_header_is_restored(tmp_path: Path, start: int, length: int) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    header = backup(disk, folder)
    assert restored(disk, header, folder) == []
    overwrite(disk, start, length)
    assert not opens(disk)
    damaged = digest_of_header(disk)
    assert len(restored(disk, header, folder)) == 2
    assert opens(disk) and uuid(disk) == header["uuid"]
    (kept,) = (folder / "kept").iterdir()
    assert kept.name == f"a-{header['uuid']}-before-restore-{damaged[:12]}.raw" and kept.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("replace", [None, "a"], ids=["damaged", "replaced"])
def test_a_restore_that_was_killed_is_completed(tmp_path: Path, replace: str | None) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    header = backup(disk, folder)
    data = (folder / f"{header['sha256']}.img").read_bytes()
    if replace:
        newer(disk)
    else:
        overwrite(disk, 0, 16 * MIB)
    before = disk.read_bytes()
    # cryptsetup writes it from its beginning: in the middle of both copies, of the keyslots, and between them.
    for written in (1, 0x200, 0x1000, 0x3000, 0x4000, 0x5000, 0x8000, 0x9000, 0x10000):
        disk.write_bytes(data[:written] + before[written:])
        assert len(restored(disk, header, folder, replace)) == 2
        assert opens(disk) and digest_of_header(disk) == header["sha256"]


def digest_of_header(disk: Path) -> str:
    return hashlib.sha256(disk.read_bytes()[: 16 * MIB]).hexdigest()


def newer(disk: Path) -> None:
    add_key(disk, "another")


def one_copy(disk: Path) -> None:
    newer(disk)
    overwrite(disk, 0, 0x4000)


def another(disk: Path) -> None:
    make_disk(disk)


def remains_of_another(disk: Path) -> None:
    make_disk(disk)
    overwrite(disk, 0x1000, 0x1000)
    overwrite(disk, 0x5000, 0x1000)


def smaller(disk: Path) -> None:
    overwrite(disk, 0, MIB)
    os.truncate(disk, 19 * MIB)


def filesystem(disk: Path) -> None:
    overwrite(disk, 0, 16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", disk], check=True)


@pytest.mark.parametrize(
    ("spoil", "says", "asked"),
    [
        (newer, "is intact, and differs", True),
        (one_copy, "is intact, and differs", True),
        (filesystem, "holds ext2 and no remains of a header", True),
        (partition_table, "holds dos beside what is left of its header", True),
        (another, "it is another disk", False),
        (remains_of_another, "it is another disk", False),
        (smaller, "it is another disk", False),
    ],
)
def test_refusals_change_nothing(tmp_path: Path, spoil: Any, says: str, asked: bool) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    header = backup(disk, folder)
    spoil(disk)
    before = digest(disk)
    for name in (None, "b") if asked else (None, "b", "a"):
        with pytest.raises(Refused, match=says) as refused:
            restored(disk, header, folder, name)
        assert str(disk) in str(refused.value)
        assert digest(disk) == before and not (folder / "kept").exists()
    if asked:
        assert len(restored(disk, header, folder, "a")) == 2 and opens(disk)


def test_a_disk_in_use_gets_no_header_whoever_names_it(tmp_path: Path) -> None:
    disk, folder, mount = make_disk(tmp_path / "a"), tmp_path / "headers", tmp_path / "mount"
    header = backup(disk, folder)
    filesystem(disk)
    mount.mkdir()
    argv = ["losetup", "--find", "--show", str(disk)]
    loop = Path(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip())
    try:
        subprocess.run(["mount", loop, mount], check=True)
        try:
            with pytest.raises(Refused, match=f"{loop} is in use by mount {mount}"):
                restored(loop, header, folder, "a")
        finally:
            subprocess.run(["umount", mount], check=True)
        claim = os.open(loop, os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(Refused, match="is in use by something that claims it"):
                restored(loop, header, folder, "a")
        finally:
            os.close(claim)
        assert opens(disk) is False and not (folder / "kept").exists()
        assert len(restored(loop, header, folder, "a")) == 2 and opens(disk)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_the_header_of_a_former_disk_is_not_restored_by_itself(tmp_path: Path) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    former = backup(disk, folder)
    make_disk(disk)
    later = backup(disk, folder)
    kept = folder / "kept"
    kept.mkdir()
    shutil.copy(folder / f"{later['sha256']}.img", kept / f"luks-a-{later['uuid']}.img")
    overwrite(disk, 0, 16 * MIB)
    before = digest(disk)
    with pytest.raises(Refused, match=f"has the UUID {later['uuid']}, not {former['uuid']}"):
        restored(disk, former, folder)
    assert digest(disk) == before
    assert len(restored(disk, later, folder)) == 2 and uuid(disk) == later["uuid"]


def test_the_module_itself(tmp_path: Path) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    header = backup(disk, folder)
    overwrite(disk, 0, MIB)
    done = settle("luks_header", restore(disk, header, folder), disk)
    assert opens(disk) and done["uuids"] == [header["uuid"]] and done["intact"] is True
    add_key(disk, "another")
    refused = direct("luks_header", restore(disk, header, folder))
    assert refused["failed"] and "is intact, and differs" in refused["msg"]


def test_a_wrong_backup_is_not_restored(tmp_path: Path) -> None:
    disk, folder = make_disk(tmp_path / "a"), tmp_path / "headers"
    header = backup(disk, folder)
    overwrite(disk, 0, MIB)
    overwrite(folder / f"{header['sha256']}.img", 0x9000, 1)
    before = digest(disk)
    assert "is not the header that was announced" in direct("luks_header", restore(disk, header, folder))["msg"]
    assert digest(disk) == before


# By the playbooks: two nodes that are this computer.


def copies() -> list[Path]:
    return [*Path("/dev/shm").glob("personal-cluster-*"), *Path("/run").glob("personal-cluster-*.header")]


def run_play(home: Path, name: str, *options: str) -> tuple[int, str, dict[str, int]]:
    before = copies()
    rc, said, changed = play(playbook_argv(name, home / "inventory.json", {home / "backups": "/var/backups"}, *options))
    assert SECRET not in said and PASSPHRASE not in said
    assert copies() == before, "a copy of a header was left behind"
    return rc, re.sub(r"\s+", " ", said), changed


def site(home: Path, **more: Any) -> dict[str, Path]:
    disks = {node: make_disk(home / f"{node}.img") for node in ("node1", "node2")}
    nodes = {node: {"cluster_disks": [{"device": str(disk), "volume": "gv0"}]} for node, disk in disks.items()}
    common = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3",
        "cluster_state_dir": str(home / "state"),
        "cluster_recovery_passphrase": PASSPHRASE,
        "cluster_backup_passphrase": "another passphrase",
        "cluster_escrow_passphrase": SECRET,
        "encryption_header_backup_dir": "/var/backups/headers",
        **more,
    }
    groups = {"nodes": {"hosts": nodes}}
    (home / "inventory.json").write_text(json.dumps({"all": {"children": groups, "vars": common}}))
    (home / "backups").mkdir()
    save_headers(home, disks)
    return disks


def save_headers(home: Path, disks: dict[str, Path]) -> None:
    for node, disk in disks.items():
        wanted = {
            "devices": [{"device": str(disk), "name": f"luks-{node}", "state": "present"}],
            "format": CHEAP,
            "header_backup_dir": str(home / "backups/headers"),
        }
        assert not direct("luks_clevis_bind", wanted).get("failed")


@pytest.mark.long
def test_escrow_and_restore_by_their_playbooks(tmp_path: Path) -> None:
    disks = site(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    (state / "borg-key.txt").write_text("BORG_KEY")
    rc, said, foreseen = run_play(tmp_path, "escrow", "--check")
    assert rc == 0 and not (state / "escrow.tar.gpg").exists(), said
    rc, said, changed = run_play(tmp_path, "escrow")
    assert rc == 0 and changed == foreseen == {"node1": 1, "node2": 0}, said
    rc, said, changed = run_play(tmp_path, "escrow")
    assert rc == 0 and not any(changed.values()), said
    rotten = next((tmp_path / "backups/headers").glob("luks-node1-*.img"))
    whole = rotten.read_bytes()
    overwrite(rotten, int(metadata(disks["node1"])["keyslots"]["0"]["area"]["offset"]), 64)
    rc, said, _ = run_play(tmp_path, "escrow")
    assert rc != 0 and f"node1: {disks['node1']} has no header with a backup" in said
    rotten.write_bytes(whole)
    folder = plain(str(state / "escrow.tar.gpg"), tmp_path / "plain")
    names = sorted(path.name for path in (folder / "secrets").iterdir())
    assert names == ["backup-passphrase", "borg-key.txt", "recovery-passphrase"]
    assert len(list(folder.glob("headers/*/gv0.img"))) == 2

    at_node2 = ["-e", "host=node2", "-e", "disk=gv0"]
    rc, said, changed = run_play(tmp_path, "restore_header", *at_node2)
    assert rc == 0 and not any(changed.values()), said
    overwrite(disks["node2"], 0, MIB)
    healthy = digest(disks["node1"])
    rc, said, foreseen = run_play(tmp_path, "restore_header", *at_node2, "--check")
    assert rc == 0 and not opens(disks["node2"]), said
    rc, said, changed = run_play(tmp_path, "restore_header", *at_node2)
    assert rc == 0 and changed == foreseen and changed["node2"] == 1, said
    assert opens(disks["node2"]) and digest(disks["node1"]) == healthy and "Now run playbooks/encryption.yml" in said

    add_key(disks["node1"], "another")
    rc, said, _ = run_play(tmp_path, "escrow")
    assert rc != 0 and f"node1: {disks['node1']} has no header with a backup" in said
    before = metadata(disks["node1"])
    rc, said, _ = run_play(tmp_path, "restore_header", "-e", "host=node1", "-e", "disk=gv0", "-e", "replace=gv0")
    assert rc == 0 and metadata(disks["node1"]) != before, said
    rc, said, _ = run_play(tmp_path, "restore_header", "-e", "host=node1", "-e", "disk=gv7")
    assert rc != 0 and "declares no disk with the name gv7" in said
    rc, said, _ = run_play(tmp_path, "restore_header", "-e", "host=nodex", "-e", "disk=gv0")
    assert rc != 0 and "with NODE one of node1, node2" in said


@pytest.mark.long
def test_escrow_forgets_by_its_playbook_what_left_the_inventory(tmp_path: Path) -> None:
    site(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    key = state / "borg-key.txt"
    key.write_text("BORG_KEY")
    path = state / "escrow.tar.gpg"
    rc, said, _ = run_play(tmp_path, "escrow", "-e", "purge=true")
    assert rc == 0, said
    before = digest(path)
    rc, said, _ = run_play(tmp_path, "escrow", "-e", "purge=true", "--limit", "node1")
    assert rc != 0 and "Purge without --limit: the headers of node2 would be" in said and digest(path) == before

    inventory = json.loads((tmp_path / "inventory.json").read_text())
    hosts = inventory["all"]["children"]["nodes"]["hosts"]
    hosts["node9"] = hosts.pop("node2")
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    rc, said, changed = run_play(tmp_path, "escrow")
    assert rc == 0 and sum(changed.values()) == 1, said
    names = sorted(file.parent.name for file in plain(str(path), tmp_path / "renamed").glob("headers/*/gv0.img"))
    assert names == ["node1", "node2", "node9"]
    before = digest(path)

    del hosts["node9"]
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    rc, said, changed = run_play(tmp_path, "escrow")
    assert rc == 0 and changed == {"node1": 0} and digest(path) == before, said
    key.unlink()
    rc, said, _ = run_play(tmp_path, "escrow", "-e", "purge=true")
    assert rc != 0 and f"{key} is not here, and the bundle has it" in said and digest(path) == before
    key.write_text("BORG_KEY")
    rc, said, foreseen = run_play(tmp_path, "escrow", "-e", "purge=true", "--check")
    assert rc == 0 and digest(path) == before, said
    assert all(f"- - host: {node} - name: gv0" in said for node in ("node2", "node9")), said
    rc, said, changed = run_play(tmp_path, "escrow", "-e", "purge=true")
    assert rc == 0 and changed == foreseen == {"node1": 1}, said
    folder = plain(str(path), tmp_path / "plain")
    assert [file.parent.name for file in folder.glob("headers/*/gv0.img")] == ["node1"]
    assert (folder / "secrets" / "borg-key.txt").exists()


@pytest.mark.long
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE, "<replace me>", 5744368105847])
def test_escrow_wants_a_passphrase_of_its_own(tmp_path: Path, passphrase: str | int | None) -> None:
    site(tmp_path, cluster_escrow_passphrase=passphrase)
    rc, said, _ = run_play(tmp_path, "escrow")
    place = f"- cluster_escrow_passphrase{' and cluster_recovery_passphrase' * (passphrase == PASSPHRASE)}: "
    assert rc != 0 and place in said and not (tmp_path / "state").exists()
    assert "5744368105847" not in said
    if passphrase not in (None, PASSPHRASE):
        again, said_again, _ = run_play(tmp_path, "restore_header", "-e", "host=node1", "-e", "disk=gv0")
        same = said.split(place)[1].split("Remedy")[0]
        assert again != 0 and same in said_again


@pytest.mark.long
@pytest.mark.parametrize("other", [{"encryption_keyfile": "/root/key"}, {"encryption_remove_passphrase": True}])
def test_escrow_keeps_the_secret_that_opens_the_disks(tmp_path: Path, other: dict[str, object]) -> None:
    disks = site(tmp_path, **other)
    rc, said, _ = run_play(tmp_path, "escrow")
    assert rc != 0 and "node1: its disks open with" in said and not (tmp_path / "state").exists()
    inventory = json.loads((tmp_path / "inventory.json").read_text())
    inventory["all"]["vars"]["encryption_recovery_key"] = "a key for recovery"
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    rc, said, _ = run_play(tmp_path, "escrow")
    shut = f"node1: {disks['node1']} does not open with encryption_recovery_key"
    assert rc != 0 and shut in said and not (tmp_path / "state").exists(), said
    for disk in disks.values():
        add_key(disk, "a key for recovery")
    save_headers(tmp_path, disks)
    rc, said, _ = run_play(tmp_path, "escrow")
    assert rc == 0, said
    folder = plain(str(tmp_path / "state" / "escrow.tar.gpg"), tmp_path / "plain")
    assert sorted(path.name for path in (folder / "secrets").iterdir()) == ["backup-passphrase", "recovery-key"]
    assert (folder / "secrets" / "recovery-key").read_text() == "a key for recovery"


@pytest.mark.long
def test_escrow_keeps_the_recovery_keys_of_all_nodes(tmp_path: Path) -> None:
    disks = site(tmp_path)
    inventory = json.loads((tmp_path / "inventory.json").read_text())
    nodes = inventory["all"]["children"]["nodes"]["hosts"]
    nodes["node2"] |= {"encryption_keyfile": "/root/key", "encryption_recovery_key": "a key of node2"}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    add_key(disks["node2"], "a key of node2")
    save_headers(tmp_path, disks)
    rc, said, _ = run_play(tmp_path, "escrow")
    assert rc == 0, said
    secrets = plain(str(tmp_path / "state" / "escrow.tar.gpg"), tmp_path / "one") / "secrets"
    names = sorted(path.name for path in secrets.iterdir())
    assert names == ["backup-passphrase", "recovery-key", "recovery-passphrase"]
    assert (secrets / "recovery-key").read_text() == "a key of node2"

    nodes["node1"] |= {"encryption_keyfile": "/root/key", "encryption_recovery_key": "a key of node1"}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    add_key(disks["node1"], "a key of node1")
    save_headers(tmp_path, disks)
    rc, said, _ = run_play(tmp_path, "escrow", "--limit", "node2")
    assert rc == 0, said
    rc, said, _ = run_play(tmp_path, "escrow", "-e", "purge=true")
    assert rc == 0, said
    secrets = plain(str(tmp_path / "state" / "escrow.tar.gpg"), tmp_path / "two") / "secrets"
    for node in disks:
        assert (secrets / f"recovery-key-{node}").read_text() == f"a key of {node}"
