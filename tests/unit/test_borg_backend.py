# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of borg_repo on output recorded from borg 1.2.4 and 1.4.0."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends import borg
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded" / "borg"
VERSIONS = ["1.2.4", "1.4.0"]
PATH = "/srv/gv1/repo"
WANTED = borg.Wanted(PATH, passphrase="right")
HERE = borg.Repository(exists=True, id="1a", encryption="repokey-blake2", settings=dict.fromkeys(borg.SETTINGS, 0))


def recorded(version: str, name: str) -> Completed:
    item = json.loads((RECORDED / f"probe-{version}.json").read_text())[name]
    return Completed(item["rc"], item["stdout"], item["stderr"])


def refusals(wanted: borg.Wanted, now: borg.Repository) -> str:
    after, steps, said = borg.plan_one(wanted, now)
    assert after == now and steps == [], "a refusal must leave everything as it is"
    return "; ".join(said)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "msgid"),
    [
        ("doesnotexist", "Repository.DoesNotExist"),
        ("already", "Repository.AlreadyExists"),
        ("parent_missing", "Repository.ParentPathDoesNotExist"),
        ("wrong", "PassphraseWrong"),
        ("nopass", "NoPassphraseFailure"),
        ("unencrypted", "Cache.CacheInitAbortedError"),
        ("relocated", "Cache.RepositoryAccessAborted"),
        ("locked", "LockTimeout"),
        ("replay", "Cache.RepositoryReplay"),
        ("mismatch", "Cache.EncryptionMethodMismatch"),
        ("invalid", "Repository.InvalidRepository"),
        ("notdir", "Repository.InvalidRepository"),
        ("truncconfig", "Repository.InvalidRepositoryConfig"),
        ("closed", "ConnectionClosedWithHint"),
        ("nossh", "Exception"),
    ],
)
def test_every_failure_is_told_by_its_msgid(version: str, name: str, msgid: str) -> None:
    done = recorded(version, name)
    assert done.rc == 2
    assert borg.parse_answer(done).msgid == msgid


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["empty", "one"])
def test_id_and_encryption_of_a_repository(version: str, name: str) -> None:
    answer = borg.parse_answer(recorded(version, name))
    assert answer.msgid == ""
    assert len(answer.data["repository"]["id"]) == 64
    assert answer.data["encryption"]["mode"] == "repokey-blake2"


def test_success_that_is_no_json_fails() -> None:
    with pytest.raises(ClusterError, match="not JSON"):
        borg.parse_answer(Completed(0, "{cut", ""))


def test_only_a_missing_repository_is_created() -> None:
    after, steps, said = borg.plan_one(WANTED, borg.Repository(exists=False))
    assert (steps, said, after.exists) == (["create"], [], True)
    for msgid in ("ConnectionClosedWithHint", "unreachable", "Exception", "Some.NewError"):
        assert "cannot be reached" in refusals(WANTED, borg.Repository(exists=True, msgid=msgid))


def test_an_existing_repository_needs_nothing() -> None:
    assert borg.plan_one(WANTED, HERE) == (HERE, [], [])


@pytest.mark.parametrize(
    ("changes", "now", "part"),
    [
        ({}, {"msgid": "PassphraseWrong"}, "passphrase is wrong"),
        ({"new_passphrase": "n"}, {"msgid": "PassphraseWrong"}, "neither the new nor the old"),
        ({}, {"msgid": "LockTimeout", "holder": "node2.4711-0"}, "locked by node2.4711-0"),
        ({}, {"msgid": "LockTimeout", "holder": "node2.4711-0"}, "dead, run once with state=unlocked"),
        ({}, {"msgid": "LockTimeout", "holder": "personal-cluster-n.1-0"}, "run personal-cluster-backup list"),
        ({}, {"msgid": "LockTimeout", "holder": "backup-role-n.1-0"}, "run personal-cluster-backup list"),
        ({}, {"msgid": "LockTimeout", "holder": "backup-role-n.1-0, x.1-0"}, "dead, run once with state=unlocked"),
        ({}, {"msgid": "Cache.RepositoryReplay"}, "older than what this host saw"),
        ({}, {"msgid": "Cache.EncryptionMethodMismatch"}, "changed its encryption"),
        ({}, {"msgid": "Cache.CacheInitAbortedError"}, "allow_unencrypted=true"),
        ({}, {"msgid": "Cache.RepositoryAccessAborted", "id": "1a"}, "relocated_ok=true"),
        ({}, {"encryption": "repokey"}, "encrypted with repokey, repokey-blake2 is wanted"),
        ({"encryption": "none"}, {"encryption": "none"}, "needs allow_unencrypted=true"),
        ({"expected_id": "2b"}, {}, "has the id 1a, expected_id is 2b"),
        ({"expected_id": "2b"}, {"exists": False}, "says that it did"),
        ({"state": "absent"}, {}, "allow it with expected_id=1a"),
        ({"state": "unlocked"}, {"exists": False}, "no lock to break"),
        ({"key_export_dest": "/srv/gv1/key"}, {"export_on_same_volume": True}, "own volume"),
        ({"path": "ssh://host/repo", "append_only": True}, {}, "append_only can be set only on the host"),
        ({}, {"mount_problem": "it exists on ext4"}, "it exists on ext4"),
    ],
)
def test_refusals(changes: dict[str, Any], now: dict[str, Any], part: str) -> None:
    assert part in refusals(replace(WANTED, **changes), replace(HERE, **now))


def test_steps_of_a_change_are_complete_and_ordered() -> None:
    wanted = replace(
        WANTED,
        new_passphrase="n",
        expected_id="1a",
        relocated_ok=True,
        append_only=True,
        storage_quota="2G",
        key_export_dest="/root/key",
    )
    now = replace(HERE, old_passphrase=True, relocated=True, key_exported=True)
    after, steps, said = borg.plan_one(wanted, now)
    assert said == []
    assert steps == ["relocate", "passphrase", "append_only", "storage_quota", "export"]
    assert after.settings == {"append_only": 1, "storage_quota": 2 * 10**9, "additional_free_space": 0}
    assert borg.plan_one(wanted, after) == (after, [], [])


def test_absent_and_unlocked() -> None:
    gone, steps, said = borg.plan_one(replace(WANTED, state="absent", expected_id="1a"), HERE)
    assert (gone.exists, steps, said) == (False, ["delete"], [])
    unlock = replace(WANTED, state="unlocked")
    after, steps, said = borg.plan_one(unlock, replace(HERE, msgid="LockTimeout"))
    assert (steps, said) == (["unlock"], [])
    assert borg.plan_one(unlock, after)[1] == []


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("10G", 10**10), ("1.5T", 1_500_000_000_000), ("500MB", 500_000_000)]
)
def test_size(text: str, number: int) -> None:
    assert borg.size(text) == number


def test_size_refuses_nonsense() -> None:
    with pytest.raises(ClusterError, match="is not a size"):
        borg.size("much")


def test_mount_of_a_path() -> None:
    mounts = "/dev/vda1 / ext4 rw 0 0\nlocalhost:/gv1 /srv/gv1 fuse.glusterfs rw 0 0\ntmpfs /srv/gv10 tmpfs rw 0 0\n"
    assert borg.mounted_as("/srv/gv1/borg", mounts) == ("/srv/gv1", "fuse.glusterfs")
    assert borg.mounted_as("/srv/gv10/borg", mounts) == ("/srv/gv10", "tmpfs")
    assert borg.mounted_as("/srv/other", mounts) == ("/", "ext4")


class Recorder:
    """A runner that answers with recordings and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, Completed]) -> None:
        self.answers = answers
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 1,
        ok: Collection[int] | None = (0,),
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        self.calls.append((list(argv), dict(env or {})))
        return self.answers[(env or {}).get("BORG_PASSPHRASE", "")]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/borg")


@pytest.mark.usefixtures("installed")
def test_new_passphrase_is_tried_first_and_never_in_argv() -> None:
    run = Recorder({"new": recorded("1.4.0", "wrong"), "right": recorded("1.4.0", "empty")})
    wanted = replace(WANTED, path="ssh://host/repo", new_passphrase="new")
    seen = borg.Borg(wanted, run).read()
    assert seen.old_passphrase and not seen.msgid
    assert [env["BORG_PASSPHRASE"] for _argv, env in run.calls] == ["new", "right"]
    assert not any(secret in " ".join(argv) for argv, _env in run.calls for secret in ("new", "right"))
    assert borg.plan_one(wanted, seen)[1] == ["passphrase"]


def test_fresh_host_is_not_yet_but_a_known_repository_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    wanted = replace(WANTED, path=str(tmp_path / "repo"), base_dir=str(tmp_path))
    with pytest.raises(NotYet):
        borg.Borg(wanted, Recorder({})).read()
    with pytest.raises(NotYet, match="not mounted"):
        borg.Borg(replace(wanted, require_mount="fuse.glusterfs"), Recorder({})).read()
    note = tmp_path / ".config/borg/security/1a/location"
    note.parent.mkdir(parents=True)
    note.write_text(wanted.path)
    with pytest.raises(ClusterError, match="not installed but repository") as caught:
        borg.Borg(wanted, Recorder({})).read()
    assert not isinstance(caught.value, NotYet)
    seen = borg.Borg(replace(wanted, require_mount="fuse.glusterfs"), Recorder({})).read()
    assert "mount it first" in refusals(wanted, seen)


def test_old_borg_is_warned_about() -> None:
    repositories = borg.BorgRepositories([{"path": PATH, "passphrase": "right"}], Recorder({}))
    old = repositories.plan(borg.Repositories({PATH: HERE}, borg.parse_version("borg 1.2.4\n")))
    new = repositories.plan(borg.Repositories({PATH: HERE}, borg.parse_version("borg 1.4.0\n")))
    assert "CVE-2023-36811" in old.warnings[0]
    assert new.warnings == []
