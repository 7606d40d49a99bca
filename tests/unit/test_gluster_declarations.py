# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations that make no sense on any pool are refused before gluster is asked anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import wanted_volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import look_at
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.volumes import Volumes
from ansible_collections.personal.cluster.plugins.module_utils._errors import Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed
from declared import volume

NODES = ("node1", "node2", "node3")


def item(**more: Any) -> dict[str, Any]:
    bricks = [{"host": host, "path": "/bricks/gv0/brick"} for host in NODES]
    return volume(**{"name": "gv0", "bricks": bricks, **more})


def refusal(tmp_path: Path, *items: dict[str, Any]) -> str:
    """Return why the declaration is refused, by a module that asked gluster nothing."""

    def run(argv: Sequence[str], **_: Any) -> Completed:
        raise AssertionError(f"asked: {argv}")

    with pytest.raises(Refused) as caught:
        Volumes(items, Cli(run, str(tmp_path), "", 0), "node1", str(tmp_path)).read()
    return str(caught.value)


def at(path: str, host: str = "node1") -> list[dict[str, str]]:
    return [{"host": host, "path": path}]


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize(
    "name", ["", "all", "force", "option", "auto-delete", "a/b", "..", "-x", "a b", "a" * 256, "gv\n0", "gv\u00f6"]
)
def test_names_that_gluster_would_take_for_something_else(tmp_path: Path, name: str, state: str) -> None:
    assert f"its name is {name!r}" in refusal(tmp_path, item(name=name, state=state))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"options": {"user.x": "a\nb"}}, "option user.x: its value is not one line"),
        ({"options": {"user.x": "\u00f6" * 2000}}, "option user.x: it has 4007 bytes"),
        ({"options": {"user.x\n": "a"}}, "give its full name"),
        ({"options": {"quorum-type": "auto"}}, "give its full name"),
        ({"options": {"cluster.quorum-type": None}}, "option cluster.quorum-type has no value"),
        ({"options": {"cluster.quorum-type": {"a": 1}}}, "option cluster.quorum-type has no value"),
        ({"options": {"cluster.brick-multiplex": True}}, "is one of the whole cluster"),
        ({"group": "../glusterd.info"}, "the group '../glusterd.info' is not the name of a file"),
        ({"group": "virt/"}, "the group 'virt/' is not"),
        ({"timeout": 0}, "the timeout is 0"),
        ({"replica": 0}, "replica is 0"),
        ({"replica": -3}, "replica is -3"),
        ({"replica": 2, "arbiter": 1}, "an arbiter is the third brick of replica 3"),
        ({"replica": 1, "arbiter": 1}, "an arbiter is the third brick of replica 3"),
        ({"disperse": 3, "redundancy": 1, "arbiter": 1}, "an arbiter is the third brick of replica 3"),
        ({"disperse": 3, "redundancy": 0}, "disperse 3 with redundancy 0"),
        ({"disperse": 4, "redundancy": 2}, "disperse 4 with redundancy 2"),
        ({"disperse": 0, "redundancy": 1}, "disperse 0 with redundancy 1"),
        ({"bricks": at("bricks/gv0")}, "'bricks/gv0' is no place for a brick"),
        ({"bricks": at("/")}, "'/' is no place for a brick"),
        ({"bricks": at("")}, "'' is no place for a brick"),
        ({"bricks": at("/bricks/../etc")}, "'/bricks/../etc' is no place for a brick"),
        ({"bricks": at("/x", host="fd00::1")}, "'fd00::1' is no host of a brick"),
        ({"reset": at("x")}, "'x' is no place for a brick"),
        ({"replace": [{"from": at("/x")[0], "to": at("/x/")[0]}]}, "node1:/x is to be replaced by itself"),
    ],
)
def test_declarations_that_are_refused(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    assert why in refusal(tmp_path, item(**more))


def test_what_is_declared_twice(tmp_path: Path) -> None:
    assert "volume gv0 is declared twice" in refusal(tmp_path, item(), item(options={"user.x": "1"}))
    why = refusal(tmp_path, item(), item(name="gv1", bricks=at("/bricks//gv0/./brick/")))
    assert "node1:/bricks/gv0/brick is declared a brick of two volumes" in why


@pytest.mark.parametrize(
    ("value", "text"), [(["a", "b"], "a,b"), ([True], "on"), (" x\n", "x"), (False, "off"), (7, "7")]
)
def test_values_as_gluster_writes_them(value: Any, text: str) -> None:
    assert wanted_volume(item(options={"auth.allow": value})).options == {"auth.allow": text}


def test_a_directory_with_files_is_not_empty(tmp_path: Path) -> None:
    brick = tmp_path / "brick"
    assert look_at(str(brick)).empty
    brick.mkdir()
    assert look_at(str(brick)).empty
    (brick / "file").touch()
    assert not look_at(str(brick)).empty
