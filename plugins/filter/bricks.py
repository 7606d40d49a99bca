# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare bricks that are copies of one another. Pure: data in, data out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Entry = Mapping[str, Any]
Pair = Mapping[str, Any]
Volumes = Mapping[str, Mapping[str, Any]]
# By host and brick what gluster_brick_info tells of each path.
Look = Mapping[str, Mapping[str, Mapping[str, Entry]]]
# An arbiter has names and no data.
OF_ALL = ("kind", "mode", "owner", "group", "gfid", "attributes")
OF_DATA = (*OF_ALL, "size", "content")


def brick_copies(volumes: Volumes, host: str, bricks: Sequence[str]) -> list[Pair]:
    """Return each of the bricks of a host that has a copy, and the first other brick that has all that it has.

    :param volumes: as gluster_volume_info tells of them.
    :raises AnsibleFilterError: gluster has no such brick, or it, or every other one of its set, does not run.
    """
    places = {(host, brick) for brick in bricks}
    members = {(one["host"], one["path"]): (volume, one) for volume in volumes.values() for one in volume["bricks"]}
    unknown = sorted(":".join(place) for place in places if place not in members)
    if unknown:
        known = ", ".join(sorted(":".join(place) for place in members))
        raise AnsibleFilterError(f"gluster has no brick {', '.join(unknown)}; it has {known or 'none'}")
    found = [_pair(*members[place]) for place in sorted(places)]
    return [pair for pair in found if pair is not None]


def _pair(volume: Mapping[str, Any], brick: Mapping[str, Any]) -> Pair | None:
    if not volume["layout"].startswith("replica"):
        return None
    size = int(volume["layout"].split()[1])
    arbiters = _places(volume["bricks"][size - 1 :: size] if "arbiter" in volume["layout"] else [])
    (place,) = _places([brick])
    others = _places(one for one in volume["bricks"] if one["set"] == brick["set"] and one["online"])
    there = [other for other in others if other not in (place, *arbiters)]
    if not brick["online"]:
        raise AnsibleFilterError(f"{':'.join(place)} does not run")
    if not there:
        raise AnsibleFilterError(f"{':'.join(place)}: no other brick of its set runs")
    return {"brick": place, "copy": there[0], "data": place not in arbiters, "arbiter": bool(arbiters)}


def _places(bricks: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(brick["host"], brick["path"]) for brick in bricks]


def brick_differences(pairs: Sequence[Pair], look: Look) -> list[str]:
    """Return the paths of which one brick of a pair has not what the other has.

    :param look: by host and brick what gluster_brick_info tells.
    """
    return sorted({name for pair in pairs for name in _differing(pair, *_sides(pair, look))})


def _sides(pair: Pair, look: Look) -> tuple[Mapping[str, Entry], Mapping[str, Entry]]:
    (host, path), (other, there) = pair["brick"], pair["copy"]
    return look[host][path], look[other][there]


def _differing(pair: Pair, left: Mapping[str, Entry], right: Mapping[str, Entry]) -> list[str]:
    fields = OF_DATA if pair["data"] else OF_ALL

    def facts(entry: Entry | None) -> list[Any] | None:
        return None if entry is None else [entry[field] for field in fields]

    return [name for name in sorted({*left, *right}) if facts(left.get(name)) != facts(right.get(name))]


def brick_verdict(pairs: Sequence[Pair], looks: Sequence[Look]) -> dict[str, Any]:
    """Return what looks tell, the first of which is at everything and the later ones at what differed.

    ``same`` counts paths; ``different`` and ``busy`` have a sentence for each. Clients write while bricks are read, one
    after the other: what has changed between the last two looks is busy, and cannot be judged.
    """
    told = [_judge(pair, looks) for pair in pairs]
    return {
        "different": [sentence for one in told for sentence in one["different"]],
        "busy": [sentence for one in told for sentence in one["busy"]],
        "same": sum(one["same"] for one in told),
    }


def _judge(pair: Pair, looks: Sequence[Look]) -> dict[str, Any]:
    first, *_others, was, now = sides = [_sides(pair, look) for look in looks]
    still = frozenset.intersection(*(frozenset(_differing(pair, *one)) for one in sides))
    stale = {name for name in still if all(was[side].get(name) == now[side].get(name) for side in (0, 1))}
    brick, copy = (":".join(pair[which]) for which in ("brick", "copy"))
    return {
        "different": [f"{name} on {brick} and on {copy}" for name in sorted(stale)],
        "busy": [f"{name} on {brick}" for name in sorted(still - stale)],
        "same": len({*first[0], *first[1]}) - len(still),
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "brick_copies": brick_copies,
            "brick_differences": brick_differences,
            "brick_verdict": brick_verdict,
        }
