# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CLI's XML says about volumes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Brick,
    Heal,
    Layout,
    Task,
    Volume,
)

HEALER = "Self-heal Daemon"
STATUS_NAMES = {"0": "created", "1": "started", "2": "stopped"}


def _count(element: ET.Element, tag: str) -> int:
    return int(element.findtext(tag) or 0)


def _parse_brick(element: ET.Element) -> Brick:
    host, _colon, path = (element.findtext("name") or "").partition(":/")
    return Brick(host, f"/{path}", element.findtext("hostUuid") or host)


def _parse_volume(element: ET.Element) -> Volume:
    disperse = _count(element, "disperseCount")
    return Volume(
        name=element.findtext("name") or "",
        status=STATUS_NAMES.get(element.findtext("status") or "", "unknown"),
        layout=Layout(
            replica=_count(element, "replicaCount"),
            arbiter=_count(element, "arbiterCount"),
            disperse=disperse,
            redundancy=_count(element, "redundancyCount") if disperse else 0,
        ),
        bricks=tuple(_parse_brick(brick) for brick in element.iterfind("bricks/brick")),
        options={
            option.findtext("name") or "": option.findtext("value") or ""
            for option in element.iterfind("options/option")
        },
        snapshots=_count(element, "snapshotCount"),
        uuid=element.findtext("id") or "",
    )


def parse_volumes(root: ET.Element) -> dict[str, Volume]:
    """Return the volumes of ``volume info``."""
    volumes = (_parse_volume(element) for element in root.iter("volume"))
    return {volume.name: volume for volume in volumes}


def parse_online(root: ET.Element) -> frozenset[tuple[str, str]]:
    """Return the keys of the bricks that ``volume status`` says are running; an unreachable host lists none."""
    return frozenset(
        (node.findtext("peerid") or "", node.findtext("path") or "")
        for node in root.iter("node")
        if node.findtext("status") == "1" and (node.findtext("path") or "").startswith("/")
    )


def parse_healers(root: ET.Element) -> frozenset[tuple[str, str]]:
    """Return volume and host of each self-heal daemon that ``volume status`` says is running."""
    return frozenset(
        (volume.findtext("volName") or "", node.findtext("peerid") or "")
        for volume in root.iter("volume")
        for node in volume.iterfind("node")
        if node.findtext("hostname") == HEALER and node.findtext("status") == "1"
    )


def parse_unhealed_volumes(root: ET.Element) -> set[str]:
    """Return the volumes of which ``volume status`` says that nothing but their self-heal daemon is down somewhere."""
    down: dict[str, set[bool]] = {}
    for volume in root.iter("volume"):
        for node in volume.iterfind("node"):
            if node.findtext("status") != "1":
                down.setdefault(volume.findtext("volName") or "", set()).add(node.findtext("hostname") == HEALER)
    return {name for name, kinds in down.items() if kinds == {True}}


def parse_lost_healers(root: ET.Element, host: str) -> set[int]:
    """Return the process of a host's self-heal daemon if ``volume status`` has it up for some volumes only."""
    nodes = [node for node in root.iter("node") if node.findtext("hostname") == HEALER]
    mine = [node for node in nodes if node.findtext("peerid") == host]
    running = [node for node in mine if node.findtext("status") == "1"]
    return {int(node.findtext("pid") or 0) for node in running} - {0} if len(running) < len(mine) else set()


def parse_tasks(root: ET.Element) -> dict[str, tuple[Task, ...]]:
    """Return the tasks that ``volume status`` lists, by volume."""
    found = {
        volume.findtext("volName") or "": tuple(_parse_task(task) for task in volume.iterfind("tasks/task"))
        for volume in root.iter("volume")
    }
    return {name: tasks for name, tasks in found.items() if tasks}


def _parse_task(element: ET.Element) -> Task:
    return Task(
        kind=element.findtext("type") or "task",
        status=element.findtext("statusStr") or "unknown",
        bricks=frozenset(brick.text or "" for brick in element.iterfind("params/brick")),
        uuid=element.findtext("id") or "",
    )


def parse_heals(root: ET.Element) -> dict[str, Heal]:
    """Return the heal state of each brick of ``heal info summary``; what is no number is unknown."""
    return {
        brick.findtext("name") or "": Heal(
            _number(brick.findtext("totalNumberOfEntries")), _number(brick.findtext("numberOfEntriesInSplitBrain"))
        )
        for brick in root.iterfind("healInfo/bricks/brick")
    }


def parse_lists(root: ET.Element) -> dict[str, frozenset[str]]:
    """Return what each brick of ``heal info`` lists; one that gives no number has no list."""
    return {
        brick.findtext("name") or "": frozenset(file.get("gfid") or "" for file in brick.iterfind("file"))
        for brick in root.iterfind("healInfo/bricks/brick")
        if _number(brick.findtext("numberOfEntries")) is not None
    }


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.isdigit() else None
