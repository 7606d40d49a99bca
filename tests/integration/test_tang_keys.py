# SPDX-License-Identifier: GPL-3.0-or-later
"""tang_keys against a real tangd and clevis: what was bound before a rotation still opens, whenever the run dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends import tang as backend
from ansible_collections.personal.cluster.plugins.module_utils._engine import converge
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
from encryption import Tang, blank_disk, params, unlocks
from harness import direct, needs

needs("cryptsetup", "clevis", "socat", "tang-show-keys", "jose")


@pytest.fixture
def tang(tmp_path: Path) -> Iterator[Tang]:
    server = Tang.at(tmp_path / "tang")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return blank_disk(tmp_path / "a.img")


def options(tang: Tang, **more: Any) -> dict[str, Any]:
    return {"directory": str(tang.home), "backup_dir": str(tang.home.parent / "backup"), **more}


def content(*folders: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mode, path.read_bytes()) for path in files}


def private_parts(tang: Tang) -> list[str]:
    return [json.loads(path.read_text())["d"] for path in tang.home.glob("*.jwk")]


def settle(tang: Tang, **more: Any) -> dict[str, Any]:
    """Check, run, run again; what check mode lists is what the run does, and nothing is left after it."""
    before = content(tang.home)
    secrets = private_parts(tang)
    foreseen = direct("tang_keys", options(tang, **more), check=True)
    assert content(tang.home) == before, "check mode wrote"
    done = direct("tang_keys", options(tang, **more))
    assert not done.get("failed"), done
    assert foreseen["actions"] == done["actions"] and foreseen["changed"] == done["changed"]
    again = direct("tang_keys", options(tang, **more))
    assert again["actions"] == [] and again["changed"] is False and "diff" not in again
    said = json.dumps([foreseen, done, again])
    assert not [secret for secret in [*secrets, *private_parts(tang)] if secret in said]
    return done


def bind(disk: Path, tang: Tang) -> dict[str, Any]:
    done = direct("luks_clevis_bind", params([disk], [tang.entry()]))
    assert not done.get("failed"), done
    shown: dict[str, Any] = done["devices"][str(disk)]
    return shown


def kids(result: dict[str, Any], advertised: bool) -> set[str]:
    return {key["kid"] for key in result["tang_keys"] if key["advertised"] is advertised}


def modes(tang: Tang) -> set[tuple[str, str, int]]:
    return {(path.owner(), path.group(), path.stat().st_mode & 0o7777) for path in tang.home.glob("*.jwk")}


def test_keys_of_an_owner_without_a_name_are_given_to_tang(tang: Tang) -> None:
    key = next(tang.home.glob("*.jwk"))
    os.chown(key, 54321, 54322)
    done = settle(tang)
    assert f"set owner and mode of {key} to _tang:_tang 0440" in done["actions"]
    assert {shown["owner"] for shown in done["diff"]["before"]["tang_keys"]} >= {"54321:54322"}
    assert modes(tang) == {("_tang", "_tang", 0o440)}


def test_what_was_bound_before_a_rotation_still_opens(tang: Tang, disk: Path) -> None:
    bound = bind(disk, tang)
    (old,) = [key["kid"] for key in bound["tang_keys"]]
    told = direct("tang_keys", options(tang))
    assert told["changed"] is False and old in kids(told, True)
    assert [key["use"] for key in told["tang_keys"] if key["kid"] == old] == ["exchange"]
    pinned = {key["kid"] for key in told["tang_keys"] if key["use"] == "signing"}
    assert pinned == {tang.thp}

    done = settle(tang, rotation="2026-12")
    assert kids(done, False) == kids(told, True) and kids(done, True).isdisjoint(kids(told, True))
    assert sorted(key["use"] for key in done["tang_keys"] if key["advertised"]) == ["exchange", "signing"]
    assert modes(tang) == {("_tang", "_tang", 0o440)}
    assert unlocks(disk, bound["keyslot"]) and tang.thp not in pinned
    backup = tang.home.parent / "backup"
    assert {path.stem for path in backup.iterdir()} == kids(done, False)
    assert {path.stat().st_mode & 0o777 for path in backup.iterdir()} == {0o400}

    refused = direct("tang_keys", options(tang, purge=True, in_use=[old]))
    assert refused["failed"] and f"still needs the hidden exchange key {old}" in refused["msg"]
    assert kids(direct("tang_keys", options(tang)), False) == kids(done, False)

    again = bind(disk, tang)
    (new,) = [key["kid"] for key in again["tang_keys"]]
    assert new in kids(done, True) and unlocks(disk, again["keyslot"])
    purged = settle(tang, purge=True, in_use=[new])
    assert kids(purged, False) == set() and kids(purged, True) == kids(done, True)
    assert unlocks(disk, again["keyslot"])
    # The name of a rotation is remembered although its keys are gone.
    assert settle(tang, rotation="2026-12")["actions"] == []
    assert {path.stem for path in backup.iterdir()} == kids(done, False)


def test_a_key_from_a_backup_opens_what_was_bound_with_it(tang: Tang, disk: Path) -> None:
    bound = bind(disk, tang)
    settle(tang, rotation="a")
    settle(tang, purge=True, in_use=[])
    assert not unlocks(disk, bound["keyslot"])
    for path in (tang.home.parent / "backup").iterdir():
        shutil.copy(path, tang.home / f".{path.name}")
    assert settle(tang)["actions"], "root's copies are not readable for tangd"
    assert unlocks(disk, bound["keyslot"])


DIES = """
import os, signal, sys
from pathlib import Path
from ansible_collections.personal.cluster.plugins.module_utils._backends import tang
from ansible_collections.personal.cluster.plugins.module_utils._engine import converge
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

left = int(sys.argv[3])
def dying(event, _arguments):
    global left
    if event in ("os.rename", "os.chmod", "subprocess.Popen", "shutil.rmtree"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(dying)
done = []
converge(tang.TangKeys(sys.argv[1], sys.argv[2], Runner(), "r"), check=False, done=done)
"""


def test_a_rotation_killed_at_any_point_is_completed_by_the_next(tang: Tang, disk: Path) -> None:
    """Every call that changes something is once the one before which the run is killed."""
    bound = bind(disk, tang)
    first = tang.home.with_name("first")
    backup = tang.home.parent / "backup"
    shutil.copytree(tang.home, first)
    olds = {path.stem: path.read_bytes() for path in first.glob("*.jwk")}
    moment, died = 0, True
    while died:
        moment += 1
        for folder in (tang.home, backup):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(first, tang.home)
        argv = [sys.executable, "-c", DIES, str(tang.home), str(backup), str(moment)]
        ended = subprocess.run(
            argv,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        died = ended.returncode == -9
        assert died or ended.returncode == 0, ended.stderr
        assert unlocks(disk, bound["keyslot"]) and tang.thp, f"moment {moment}"
        keys = backend.TangKeys(str(tang.home), str(backup), Runner(), "r")
        result = converge(keys, check=False, done=[])
        assert converge(keys, check=False, done=[])["actions"] == []
        assert kids(result, False) == set(olds), f"moment {moment}"
        assert sorted(key["use"] for key in result["tang_keys"] if key["advertised"]) == ["exchange", "signing"]
        assert {
            path.name.strip(".").removesuffix(".jwk"): path.read_bytes() for path in tang.home.glob(".*.jwk")
        } == olds
        assert not list(tang.home.glob(".personal*")) and not list(backup.glob(".personal*"))
        assert modes(tang) == {("_tang", "_tang", 0o440)} and unlocks(disk, bound["keyslot"])
    assert moment > 12


def test_rotations_follow_each_other(tang: Tang) -> None:
    first = settle(tang, rotation="a")
    second = settle(tang, rotation="b")
    assert kids(second, False) == kids(first, False) | kids(first, True)
    assert settle(tang, rotation="a")["actions"] == []


def spoiled(tang: Tang) -> dict[str, Any]:
    (tang.home / "half.jwk").write_text('{"kty": "EC", "d": "precious')
    return {"rotation": "a"}


def journal(tang: Tang) -> dict[str, Any]:
    (tang.home / "personal-cluster.rotations").write_text("x")
    return {"rotation": "a"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoiled, "half.jwk is not a key"),
        (journal, "does not tell which rotations were made"),
        (lambda _: {"rotation": ""}, "has no name"),
        (lambda _: {"rotation": "a", "purge": True, "in_use": []}, "are two runs"),
        (lambda _: {"purge": True}, "in_use"),
    ],
)
def test_refusals_change_nothing(tang: Tang, spoil: Any, says: str) -> None:
    wanted = options(tang, **spoil(tang))
    before = content(tang.home)
    failed = direct("tang_keys", wanted)
    assert failed["failed"] and says in failed["msg"] and "precious" not in json.dumps(failed)
    assert content(tang.home) == before


def test_a_host_without_tang(tmp_path: Path) -> None:
    wanted = {"directory": str(tmp_path / "none"), "backup_dir": str(tmp_path / "backup"), "rotation": "a"}
    assert direct("tang_keys", wanted, check=True)["changed"] is True
    assert "run the role tang" in direct("tang_keys", wanted)["msg"]
