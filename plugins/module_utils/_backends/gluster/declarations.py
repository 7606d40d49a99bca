# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the declaration of volumes itself, whatever the pool is like. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Layout,
    Place,
    Wanted,
    all_places,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import GLOBAL

# glusterd makes a directory of it: the commands with which a volume of another name is met concern all volumes.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")
# What the command line keeps for itself, and answers with how it is used.
KEPT_NAMES = (
    *("all", "volume", "type", "subvolumes", "option", "end-volume", "volume_not_in_ring", "description", "force"),
    *("help", "snap-max-hard-limit", "snap-max-soft-limit", "auto-delete", "activate-on-create"),
)
GROUP = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
OPTION = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
# glusterd keeps an option as a line of a file, and does not start again when there is a line that it cannot read.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The line goes through a buffer of 4096 bytes, the end of which glusterd does not look for.
LINE_LIMIT = 4000

T = TypeVar("T")


def faults(volumes: Sequence[Wanted]) -> list[str]:
    """Return what is wrong with each volume, and with all of them together."""
    found = [f"volume {name} is declared twice" for name in _twice(one.name for one in volumes)]
    places = [place for one in volumes if one.state != "absent" for place in sorted(set(one.bricks))]
    found += [f"{host}:{path} is declared a brick of two volumes" for host, path in _twice(places)]
    for one in volumes:
        found += [f"volume {one.name}: {why}" for why in _volume_faults(one)]
    return found


def _twice(values: Iterable[T]) -> list[T]:
    listed = list(values)
    return [value for value in dict.fromkeys(listed) if listed.count(value) > 1]


def _volume_faults(one: Wanted) -> list[str]:
    found = []
    if not NAME.fullmatch(one.name) or one.name in KEPT_NAMES:
        found.append(
            f"its name is {one.name!r}; take letters, digits, _ and -, and no word that gluster keeps for itself"
        )
    if one.group and not GROUP.fullmatch(one.group):
        found.append(f"the group {one.group!r} is not the name of a file in glusterd's groups")
    if one.timeout <= 0:
        found.append(f"the timeout is {one.timeout}; take 1 second or more")
    found += _layout_faults(one.layout) if one.state != "absent" else []
    found += [why for place in dict.fromkeys(all_places(one)) for why in _place_faults(place)]
    for old, new in one.replace:
        found += [f"{new[0]}:{new[1]} is to be replaced by itself; reset puts it back empty"] if old == new else []
    for name, value in one.options.items():
        found += _option_faults(name, value)
    return found


def _layout_faults(layout: Layout) -> list[str]:
    found = []
    if layout.replica < 1:
        found.append(f"replica is {layout.replica}; take 3")
    if layout.arbiter and (layout.replica != 3 or layout.disperse):
        found.append("an arbiter is the third brick of replica 3: take arbiter 1 with replica 3, or none")
    if (layout.disperse or layout.redundancy) and not 0 < 2 * layout.redundancy < layout.disperse:
        found.append(
            f"disperse {layout.disperse} with redundancy {layout.redundancy}: take a redundancy of 1 or more, "
            "and more than twice as many bricks"
        )
    return found


def _place_faults(place: Place) -> list[str]:
    host, path = place
    found = []
    if not host or CONTROL.search(host) or ":" in host or "/" in host:
        found.append(f"{host!r} is no host of a brick; take the name that its peers know it by")
    if not path.startswith("/") or path == "/" or ".." in path.split("/") or CONTROL.search(path):
        found.append(f"{path!r} is no place for a brick; give the whole path of a directory")
    return found


def _option_faults(name: str, value: str) -> list[str]:
    if not OPTION.fullmatch(name):
        return [f"option {name!r}: give its full name, as gluster volume info shows it"]
    if name in GLOBAL:
        return [f"option {name} is one of the whole cluster; set it with gluster volume set all"]
    if not value.strip():
        return [f"option {name} has no value; take it out, and options_purge resets it"]
    if CONTROL.search(value.strip()):
        return [f"option {name}: its value is not one line of text"]
    length = len(f"{name}={value}".encode())
    if length > LINE_LIMIT:
        return [
            f"option {name}: it has {length} bytes, and glusterd crashes soon after {LINE_LIMIT}; take a shorter value"
        ]
    return []
