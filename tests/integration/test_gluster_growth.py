# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts join three others, and the volumes spread over all six: what add_nodes.yml asks of the modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from glusterds import Glusterds, both, peers, volumes
from harness import direct, needs

pytestmark = pytest.mark.long

needs("glusterd")

HOSTS = tuple(f"127.1.1.{number}" for number in range(1, 7))


@pytest.fixture
def six(tmp_path: Path) -> Iterator[Glusterds]:
    cluster = Glusterds(tmp_path, HOSTS)
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


def declared(cluster: Glusterds, hosts: int, **more: Any) -> list[dict[str, Any]]:
    """Return a sharded and a plain volume with a brick on each of the first so many hosts."""
    options = {"features.shard": "on", "features.shard-block-size": "64MB"}
    return [
        {"name": "gv0", "bricks": cluster.bricks("gv0")[:hosts], "options": options, **more},
        {"name": "gv1", "bricks": cluster.bricks("gv1")[:hosts], **more},
    ]


def test_three_hosts_become_six(six: Glusterds) -> None:
    first = {"peers": list(HOSTS[:3]), **six.params()}
    both(lambda *, check=False: direct("gluster_peer", first, check=check))
    both(lambda *, check=False: volumes(six, *declared(six, 3), check=check))
    done = both(lambda *, check=False: peers(six, check=check))
    assert done["actions"] == [f"add {host} to the pool" for host in HOSTS[3:]]
    kept = volumes(six, *declared(six, 3))
    assert not kept["changed"], "new hosts alone change no volume"

    info = six.xml("volume", "info")
    refused = volumes(six, *declared(six, 6))
    assert refused["failed"] and "gv0" in refused["msg"] and "grow" in refused["msg"]
    assert six.xml("volume", "info") == info
    grown = declared(six, 6, allow=["grow"], rebalance="fix-layout")
    done = both(lambda *, check=False: volumes(six, *grown, check=check))
    assert [action.split(":")[0] for action in done["actions"] if action.startswith("add")] == [
        "add bricks to volume gv0",
        "add bricks to volume gv1",
    ]
    told = direct("gluster_volume_info", six.params())["volumes"]
    for name in ("gv0", "gv1"):
        sets = [brick["set"] for brick in told[name]["bricks"]]
        hosts = [brick["host"] for brick in told[name]["bricks"]]
        assert sets == [0, 0, 0, 1, 1, 1] and hosts == list(HOSTS)
    gate = {"peers": 6, "interval": 1, "timeout": 120, **six.params()}
    assert direct("gluster_heal", gate)["healthy"]
