# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CLI's XML says about volumes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Brick, Layout, Volume

STATUS_NAMES = {"0": "created", "1": "started", "2": "stopped"}


def _count(element: ET.Element, tag: str) -> int:
    return int(element.findtext(tag) or 0)


def _parse_brick(element: ET.Element) -> Brick:
    host, path = (element.findtext("name") or "").split(":", 1)
    return Brick(host, path, element.findtext("hostUuid") or host)


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


def parse_tasks(root: ET.Element) -> dict[str, tuple[str, ...]]:
    """Return the kinds of the tasks in progress, by volume, of ``volume status``."""
    found = {}
    for volume in root.iter("volume"):
        active = tuple(
            task.findtext("type") or "task"
            for task in volume.iterfind("tasks/task")
            if task.findtext("statusStr") == "in progress"
        )
        if active:
            found[volume.findtext("volName") or ""] = active
    return found


def parse_heal(root: ET.Element) -> Optional[int]:
    """Return the number of entries that ``heal info summary`` counts, None when a brick gives no number."""
    total = 0
    for brick in root.iterfind("healInfo/bricks/brick"):
        count = brick.findtext("totalNumberOfEntries") or ""
        if not count.isdigit():
            return None
        total += int(count)
    return total
