# SPDX-License-Identifier: GPL-3.0-or-later
"""gluster_volume killed at each of its changes: the same run again completes the work, and no data is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.balancing import BALANCE
from glusterds import HOSTS, Glusterds, files, gate, kill_brick, peers, read_back, volumes, worked
from harness import direct, interposed, needs

needs("glusterd")

CHANGES = " volume (create|set|start|add-brick|replace-brick|reset-brick|rebalance [^ ]+ fix-layout) "
BEFORE = "kill -KILL $PPID; exit 1"
AFTER = '"$REAL" "$@"; kill -KILL $PPID; exit 1'
MOMENTS = pytest.mark.parametrize("moment", [BEFORE, AFTER], ids=["before", "after"])
FILES = 5
Item = dict[str, Any]


@pytest.fixture(scope="module")
def glusterds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glusterds]:
    cluster = Glusterds(tmp_path_factory.mktemp("g"))
    try:
        cluster.begin()
        worked(lambda: peers(cluster))
        yield cluster
    finally:
        cluster.end()


def is_killed(cluster: Glusterds, items: list[Item], number: int, moment: str) -> bool:
    """Run the module, and kill it before or after the change ``number``; say whether it came to that."""

    def run() -> dict[str, Any]:
        env = interposed(cluster.top, "gluster", CHANGES, number, moment)
        return volumes(cluster, *items, run=partial(direct, env=env))

    return "killed" in worked(run)


def completed(cluster: Glusterds, *items: Item) -> dict[str, Any]:
    """Run the module again after it was killed, and once more, which does nothing."""
    done = worked(lambda: volumes(cluster, *items))
    again = volumes(cluster, *items)
    assert again["actions"] == [] and not again["changed"], again
    return done


def made(cluster: Glusterds, name: str) -> Item:
    volume = {"name": name, "bricks": cluster.bricks(name)}
    worked(lambda: volumes(cluster, volume))
    files(cluster, name, FILES)
    return volume


def removed(cluster: Glusterds, name: str) -> None:
    """Delete a volume and whatever its bricks hold."""
    cluster.xml("volume", "stop", name, "force")
    assert "<opRet>0" in cluster.xml("volume", "delete", name)
    for number in cluster.numbers:
        for folder in cluster.disk(number).glob(f"{name}*"):
            shutil.rmtree(folder)


def is_killed_while_it_makes(cluster: Glusterds, number: int, moment: str) -> bool:
    """A volume that is there gets another option, and one is made."""
    old = {"name": "old", "bricks": cluster.bricks("old"), "options": {"network.ping-timeout": 20 + number}}
    new = {"name": "new", "bricks": cluster.bricks("new"), "options": {"network.ping-timeout": 20}}
    killed = is_killed(cluster, [old, new], number, moment)
    done = completed(cluster, old, new)["volumes"]
    assert done["old"]["options"]["network.ping-timeout"] == str(20 + number)
    assert done["new"]["state"] == "started"
    read_back(cluster, "old", FILES)
    files(cluster, "new", FILES)
    removed(cluster, "new")
    return killed


def is_killed_while_it_grows(cluster: Glusterds, number: int, moment: str) -> bool:
    one = made(cluster, "grown")
    two = {**one, "bricks": cluster.bricks("grown", "grown-b"), "rebalance": "fix-layout"}
    killed = is_killed(cluster, [two], number, moment)
    done = completed(cluster, two)["volumes"]["grown"]
    assert len(done["bricks"]) == 6 and done["options"][BALANCE] == "layout"
    read_back(cluster, "grown", FILES)
    assert gate(cluster, volumes=["grown"])["healthy"]
    removed(cluster, "grown")
    return killed


def is_killed_while_it_resets(cluster: Glusterds, number: int, moment: str) -> bool:
    brick = Path(cluster.brick(1, "lost"))
    kill_brick(cluster, 1, "lost")
    shutil.rmtree(brick)
    files(cluster, "lost", FILES + number)
    bricks = cluster.bricks("lost")
    wanted = {"name": "lost", "bricks": bricks, "reset": bricks[:1]}
    killed = is_killed(cluster, [wanted], number, moment)
    completed(cluster, wanted)
    see_filled(cluster, "lost", brick, FILES + number)
    assert list(brick.parent.glob(".personal-cluster-*")) == []
    return killed


def is_killed_while_it_replaces(cluster: Glusterds, number: int, moment: str) -> bool:
    (old,) = cluster.disk(1).glob("swapped*/brick")
    to = {"host": HOSTS[0], "path": cluster.brick(1, f"swapped-{number}")}
    pair = {"from": {"host": HOSTS[0], "path": str(old)}, "to": to}
    wanted = {"name": "swapped", "bricks": [to, *cluster.bricks("swapped")[1:]], "replace": [pair]}
    killed = is_killed(cluster, [wanted], number, moment)
    completed(cluster, wanted)
    see_filled(cluster, "swapped", Path(to["path"]), FILES)
    shutil.rmtree(old.parent)
    return killed


def see_filled(cluster: Glusterds, name: str, brick: Path, count: int) -> None:
    assert gate(cluster, volumes=[name])["healthy"]
    assert sorted(path.name for path in brick.glob("file*")) == [f"file{number}" for number in range(count)]
    read_back(cluster, name, count)


def see_all(changes: int, is_killed_at: Callable[[int], bool]) -> None:
    """Kill one run at each of its changes, of which there are so many at least."""
    number = 1
    while is_killed_at(number):
        number += 1
    assert number > changes


def test_a_volume_that_was_only_created_and_one_that_only_grew_are_completed(glusterds: Glusterds) -> None:
    made(glusterds, "old")
    assert is_killed_while_it_makes(glusterds, 2, AFTER)
    assert is_killed_while_it_grows(glusterds, 2, AFTER)


@pytest.mark.long
@MOMENTS
def test_a_killed_creation_is_completed(glusterds: Glusterds, moment: str) -> None:
    made(glusterds, "old")
    see_all(4, lambda number: is_killed_while_it_makes(glusterds, number, moment))


@pytest.mark.long
@MOMENTS
def test_a_killed_growth_is_completed(glusterds: Glusterds, moment: str) -> None:
    see_all(5, lambda number: is_killed_while_it_grows(glusterds, number, moment))


@pytest.mark.long
@MOMENTS
def test_a_killed_reset_is_completed(glusterds: Glusterds, moment: str) -> None:
    made(glusterds, "lost")
    see_all(3, lambda number: is_killed_while_it_resets(glusterds, number, moment))
    removed(glusterds, "lost")


@pytest.mark.long
@MOMENTS
def test_a_killed_replacement_is_completed(glusterds: Glusterds, moment: str) -> None:
    made(glusterds, "swapped")
    see_all(1, lambda number: is_killed_while_it_replaces(glusterds, number, moment))
    removed(glusterds, "swapped")
