# SPDX-License-Identifier: GPL-3.0-or-later
"""borg_repo against the real borg; needs the Debian package borgbackup."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.borg import BorgRepositories
from ansible_collections.personal.cluster.plugins.module_utils._engine import converge
from ansible_collections.personal.cluster.plugins.module_utils._errors import NotYet, Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
from harness import needs, run_module

needs("borg")
SECRET = "correct horse 1"
NEW_SECRET = "battery staple 2"


@pytest.fixture
def other_volume() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


class Place:
    """A directory with a repository in it, and its own borg base directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.base = folder / "base"

    def params(self, **changes: Any) -> dict[str, Any]:
        return {
            "path": str(self.repo),
            "passphrase": SECRET,
            "base_dir": str(self.base),
            "host_id": "node1",
            "lock_wait": 1,
        } | changes

    def converge(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        return converge(BorgRepositories([self.params(**changes)], Runner()), check=check, done=[])

    def borg(self, *arguments: str, **env: str) -> None:
        environ = {**os.environ, "BORG_BASE_DIR": str(self.base), "BORG_PASSPHRASE": SECRET, **env}
        subprocess.run(["borg", *arguments], check=True, capture_output=True, env=environ, stdin=subprocess.DEVNULL)

    def bytes(self) -> dict[str, bytes]:
        files = (path for path in self.folder.rglob("*") if path.is_file() and self.base not in path.parents)
        return {str(path): path.read_bytes() for path in files}

    def refused(self, **changes: Any) -> str:
        """Return the refusal, having seen that nothing changed."""
        before = self.bytes()
        with pytest.raises(Refused) as caught:
            self.converge(**changes)
        assert self.bytes() == before
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def made(place: Place) -> Place:
    place.converge()
    return place


def repo_id(place: Place) -> str:
    return str(place.converge()["repositories"][str(place.repo)]["id"])


def fake_ssh(place: Place) -> str:
    """Return a script in place of ssh that drops the host name and runs the rest here."""
    fake = place.folder / "fake-ssh"
    fake.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    fake.chmod(0o755)
    return str(fake)


def killed_init(place: Place) -> None:
    """Kill `borg init` when it has made the repository and nothing in it."""
    environ = {**os.environ, "BORG_BASE_DIR": str(place.base), "BORG_PASSPHRASE": SECRET, "BORG_HOST_ID": "node1"}
    argv = ["borg", "init", "--encryption", "repokey-blake2", str(place.repo)]
    with subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL) as init:
        while not (place.repo / "lock.roster").exists():
            assert init.poll() is None
        init.kill()


def test_an_init_that_was_killed_is_begun_anew(place: Place) -> None:
    killed_init(place)
    planned = place.converge(check=True)
    assert [action.split(": ")[1] for action in planned["actions"]] == [
        "remove what an interrupted borg init left",
        "create it, encryption repokey-blake2",
    ]
    assert place.converge()["actions"] == planned["actions"]
    assert place.converge()["actions"] == []


def test_a_repository_that_lost_its_index_is_not_taken_for_a_killed_init(place: Place) -> None:
    killed_init(place)
    place.borg("break-lock", str(place.repo))
    (place.repo / "data" / "0").mkdir(exist_ok=True)
    (place.repo / "data" / "0" / "0").write_bytes(bytes(100_000))
    assert "delete it if nothing was ever saved in it" in place.refused()


def test_a_repository_that_lost_all_its_data_is_not_taken_for_a_killed_init(made: Place) -> None:
    made.borg("create", f"{made.repo}::a", "/etc/hostname")
    for name in ("index", "hints", "integrity"):
        next(made.repo.glob(f"{name}.*")).unlink()
    shutil.rmtree(made.repo / "data")
    (made.repo / "data").mkdir()
    assert "delete it if nothing was ever saved in it" in made.refused()


def test_a_killed_init_by_ssh_is_refused_with_its_remedy(place: Place) -> None:
    killed_init(place)
    place.borg("break-lock", str(place.repo))
    refused = place.refused(path=f"ssh://host{place.repo}", rsh=fake_ssh(place))
    assert "delete it if nothing was ever saved in it" in refused
    place.borg("delete", str(place.repo), BORG_HOST_ID="node1", BORG_DELETE_I_KNOW_WHAT_I_AM_DOING="YES")
    assert place.converge()["changed"]


def test_module_from_nothing_to_changed_passphrase(place: Place, other_volume: Path) -> None:
    wanted = place.params(
        storage_quota="1G",
        append_only=True,
        additional_free_space="1M",
        key_export_dest=str(other_volume / "keys/borg"),
    )
    plain = Place(place.folder / "second")
    plain.folder.mkdir()
    params = {"repositories": [wanted, plain.params(encryption="none", allow_unencrypted=True)]}
    planned = run_module("borg_repo", params, check=True)
    assert not place.repo.exists() and planned["changed"] and len(planned["actions"]) == 6
    done = run_module("borg_repo", params)
    assert done["actions"] == planned["actions"]
    assert (other_volume / "keys").stat().st_mode & 0o777 == 0o700
    assert (other_volume / "keys/borg").stat().st_mode & 0o777 == 0o600
    again = run_module("borg_repo", params)
    assert (again["changed"], again["actions"]) == (False, [])
    assert again["repositories"][str(place.repo)]["storage_quota"] == 10**9
    wanted["new_passphrase"] = NEW_SECRET
    key = (other_volume / "keys/borg").read_text()
    changed = run_module("borg_repo", params)
    assert [action.split(": ")[1] for action in changed["actions"]] == [
        "change its passphrase",
        f"export its key to {other_volume / 'keys/borg'}",
    ]
    assert (other_volume / "keys/borg").read_text() != key
    assert run_module("borg_repo", params)["changed"] is False
    for result in (planned, done, again, changed):
        assert SECRET not in json.dumps(result) and NEW_SECRET not in json.dumps(result)


def test_wrong_passphrase(made: Place) -> None:
    assert "passphrase is wrong" in made.refused(passphrase="wrong")
    assert "neither the new nor the old" in made.refused(passphrase="wrong", new_passphrase="wrong too")


def test_no_passphrase(made: Place) -> None:
    assert "needs a passphrase" in made.refused(passphrase=None)


def test_passphrase_from_file_and_command(made: Place) -> None:
    secret = made.folder / "secret"
    secret.write_text(SECRET + "\n")
    assert made.converge(passphrase=None, passphrase_file=str(secret))["changed"] is False
    assert made.converge(passphrase=None, passcommand=f"cat {secret}")["changed"] is False


def test_other_encryption(made: Place) -> None:
    assert "encrypted with repokey-blake2, repokey is wanted" in made.refused(encryption="repokey")


def test_unknown_unencrypted(place: Place) -> None:
    place.borg("init", "-e", "none", str(place.repo), BORG_BASE_DIR=str(place.folder / "elsewhere"))
    assert "is not encrypted" in place.refused()
    assert place.converge(encryption="none", allow_unencrypted=True)["changed"] is False


def test_relocated(made: Place) -> None:
    known = repo_id(made)
    made.repo.rename(made.folder / "moved")
    made.repo = made.folder / "moved"
    assert known in made.refused()
    assert "relocated_ok" in made.refused(relocated_ok=True)
    assert "relocated_ok" in made.refused(relocated_ok=True, expected_id="0" * 64)
    planned = made.converge(check=True, relocated_ok=True, expected_id=known)["actions"]
    assert planned == [f"repository {made.repo}: accept its new place"]
    assert made.converge(relocated_ok=True, expected_id=known)["actions"] == planned
    assert made.converge()["changed"] is False


def test_locked_and_unlocked(made: Place) -> None:
    lock = made.repo / "lock.exclusive"
    lock.mkdir()
    (lock / "node2.4711-0").touch()
    assert "locked by node2.4711-0" in made.refused()
    planned = made.converge(check=True, state="unlocked")["actions"]
    assert planned == [f"repository {made.repo}: break its lock"]
    assert lock.exists()
    assert made.converge(state="unlocked")["actions"] == planned
    assert not lock.exists()
    assert made.converge(state="unlocked")["changed"] is False


def test_replayed(made: Place) -> None:
    shutil.copytree(made.repo, made.folder / "old")
    made.borg("create", f"{made.repo}::a", "/etc/hostname")
    shutil.rmtree(made.repo)
    (made.folder / "old").rename(made.repo)
    assert "older than what this host saw" in made.refused()


def test_replaced_by_an_unencrypted_one_with_the_same_id(made: Place) -> None:
    known = repo_id(made)
    shutil.rmtree(made.repo)
    made.borg("init", "-e", "none", str(made.repo))
    config = made.repo / "config"
    config.write_text("".join(f"id = {known}\n" if line.startswith("id") else line for line in config.open()))
    assert "changed its encryption" in made.refused()


def test_unreachable_is_never_created(place: Place) -> None:
    assert "cannot be reached" in place.refused(path="ssh://localhost/srv/repo", rsh="false")
    assert "cannot be reached" in place.refused(path="ssh://localhost/srv/repo", rsh="/nonexistent")


def test_foreign_content_and_damage(made: Place) -> None:
    foreign = Place(made.folder / "foreign")
    foreign.repo.mkdir(parents=True)
    (foreign.repo / "README").write_text("mine")
    assert "not a borg repository" in foreign.refused()
    (made.repo / "config").write_text("")
    assert "damaged config" in made.refused()


def test_required_mount(place: Place) -> None:
    with pytest.raises(NotYet, match="not mounted as fuse.glusterfs"):
        place.converge(require_mount="fuse.glusterfs")
    planned = place.converge(check=True, require_mount="fuse.glusterfs")
    assert planned["changed"] and "planned from nothing" in planned["warnings"][0]
    place.converge()
    assert "mount the volume over it" in place.refused(require_mount="fuse.glusterfs")
    shutil.rmtree(place.repo)
    assert "mount it first" in place.refused(require_mount="fuse.glusterfs")


def test_key_export_on_the_same_volume(made: Place) -> None:
    assert "own volume" in made.refused(key_export_dest=str(made.folder / "key"))


def test_expected_id_and_absent(made: Place) -> None:
    known = repo_id(made)
    assert f"allow it with expected_id={known}" in made.refused(state="absent")
    assert "another repository" in made.refused(state="absent", expected_id="0" * 64)
    wanted: dict[str, Any] = {"state": "absent", "expected_id": known}
    planned = made.converge(check=True, **wanted)["actions"]
    assert made.repo.exists()
    assert made.converge(**wanted)["actions"] == planned
    assert not made.repo.exists()
    assert made.converge(**wanted)["changed"] is False
    assert "says that it did" in made.refused(expected_id=known)


def test_over_ssh(place: Place, other_volume: Path) -> None:
    wanted: dict[str, Any] = {
        "path": f"ssh://host{place.repo}",
        "rsh": fake_ssh(place),
        "key_export_dest": str(other_volume / "key"),
    }
    assert len(place.converge(**wanted)["actions"]) == 2
    assert place.converge(**wanted)["changed"] is False
    assert "can be set only on the host" in place.refused(**wanted, append_only=True)
