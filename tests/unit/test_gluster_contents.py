# SPDX-License-Identifier: GPL-3.0-or-later
"""What a brick holds, and when two bricks are called different."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.filter.bricks import brick_copies, brick_differences, brick_verdict
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.contents import (
    read_brick,
)
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

PAIR = {"brick": ["node2", "/b"], "copy": ["node1", "/b"], "data": True}


@pytest.fixture
def brick(tmp_path: Path) -> Path:
    top = tmp_path / "brick"
    (top / ".glusterfs" / "00").mkdir(parents=True)
    (top / ".glusterfs-anonymous-inode-1").mkdir()
    (top / "images").mkdir()
    (top / "images" / "a.img").write_bytes(b"data")
    (top / "link").symlink_to("images/a.img")
    return top


def test_all_but_what_is_gluster_s_own_is_read(brick: Path) -> None:
    os.chmod(brick / "images" / "a.img", 0o640)
    (brick / ".glusterfs" / "00" / "file").write_text("own")
    (brick / ".trashcan").mkdir()
    found = read_brick(str(brick))
    assert sorted(found) == [".", "images", "images/a.img", "link"]
    image = found["images/a.img"]
    assert (image["kind"], image["mode"], image["size"]) == ("file", "0640", 4)
    assert image["content"] == hashlib.sha256(b"data").hexdigest()
    assert (found["link"]["kind"], found["link"]["content"]) == ("link", "images/a.img")
    assert found["images"]["kind"] == "directory" and found["images"]["content"] is None
    assert sorted(read_brick(str(brick), {"link", "gone"})) == ["link"]


def test_attributes_that_copies_have_alike_are_compared(brick: Path) -> None:
    def attributes() -> Any:
        return read_brick(str(brick), {"images/a.img"})["images/a.img"]["attributes"]

    assert attributes() is None
    os.setxattr(brick / "images" / "a.img", "user.size", b"1")
    first = attributes()
    os.setxattr(brick / "images" / "a.img", "user.size", b"2")
    assert first and attributes() not in (None, first)


def test_what_is_on_the_disk_is_read_and_not_what_is_in_memory() -> None:
    def read_bytes() -> int:
        return int(Path("/proc/self/io").read_text().partition("\nread_bytes: ")[2].split()[0])

    # Not below /tmp, which may be memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        (Path(top) / ".glusterfs").mkdir()
        (Path(top) / "a.img").write_bytes(os.urandom(1 << 22))
        before = read_bytes()
        read_brick(top)
        assert read_bytes() - before >= 1 << 22


def test_a_name_that_is_no_text_is_found_again_by_what_stands_for_it(brick: Path) -> None:
    Path(os.fsdecode(os.fsencode(brick) + b"/\xff")).write_text("x")
    assert "\\xff" in read_brick(str(brick)) and list(read_brick(str(brick), {"\\xff"})) == ["\\xff"]


def test_a_directory_that_is_no_brick_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is no brick, or its filesystem is not mounted"):
        read_brick(str(tmp_path))


def test_a_file_that_cannot_be_read_is_an_error_and_one_that_is_gone_is_not(
    brick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([FileNotFoundError(2, "gone"), OSError(5, "Input/output error")])

    def fail(_path: Any, *_more: Any, **_named: Any) -> Any:
        raise next(failures)

    monkeypatch.setattr("os.open", fail)
    assert sorted(read_brick(str(brick))) == [".", "images", "link"]
    with pytest.raises(ClusterError, match=r"a\.img cannot be read: Input/output error; look at the disk"):
        read_brick(str(brick))


def volume(layout: str, size: int, online: str = "yyyyyy") -> dict[str, Any]:
    bricks = [
        {"host": f"node{number % 3 + 1}", "path": f"/b{number // 3}", "set": number // size, "online": mark == "y"}
        for number, mark in enumerate(online)
    ]
    return {"layout": layout, "bricks": bricks}


NODE1, NODE2, ALSO_1, ALSO_2 = ("node1", "/b0"), ("node2", "/b0"), ("node1", "/b1"), ("node2", "/b1")


@pytest.mark.parametrize(
    ("layout", "bricks", "found"),
    [
        ("replica 3", ["/b1"], [(ALSO_2, ALSO_1)]),
        ("replica 3", ["/b1", "/b0"], [(NODE2, NODE1), (ALSO_2, ALSO_1)]),
        ("replica 3 arbiter 1", ["/b0"], [(NODE2, NODE1)]),
        ("disperse 3 redundancy 1", ["/b0"], []),
        ("distribute", ["/b0"], []),
        ("replica 3", [], []),
    ],
)
def test_the_copy_is_another_brick_of_the_same_set(layout: str, bricks: list[str], found: list[Any]) -> None:
    pairs = brick_copies({"gv0": volume(layout, 3)}, "node2", bricks)
    assert [(pair["brick"], pair["copy"]) for pair in pairs] == found
    assert all(pair["data"] and pair["arbiter"] is ("arbiter" in layout) for pair in pairs)


@pytest.mark.parametrize(
    ("layout", "online", "host", "brick", "why"),
    [
        ("replica 3 arbiter 1", "yny", "node1", "/b0", "node1:/b0: no other brick of its set runs"),
        ("replica 3", "yny", "node2", "/b0", "node2:/b0 does not run"),
        ("replica 3", "yyy", "node2", "/b1", "gluster has no brick node2:/b1; it has node1:/b0, node2:/b0, node3:/b0"),
        ("replica 3", "yyy", "node2.lan", "/b0", "gluster has no brick node2.lan:/b0; it has node1:/b0"),
    ],
)
def test_a_brick_that_cannot_be_compared_is_an_error(layout: str, online: str, host: str, brick: str, why: str) -> None:
    with pytest.raises(AnsibleFilterError, match=why):
        brick_copies({"gv0": volume(layout, 3, online)}, host, [brick])


def test_a_copy_that_does_not_run_is_passed_over_and_an_arbiter_is_compared_with_data() -> None:
    (pair,) = brick_copies({"gv0": volume("replica 3", 3, "nyy")}, "node2", ["/b0"])
    assert pair["copy"] == ("node3", "/b0")
    (pair,) = brick_copies({"gv0": volume("replica 3 arbiter 1", 3)}, "node3", ["/b0"])
    assert pair["copy"] == NODE1 and not pair["data"]


def entry(content: str, mtime: int = 1, **more: Any) -> dict[str, Any]:
    known = {
        "kind": "file",
        "mode": "0600",
        "owner": 0,
        "group": 0,
        "gfid": "aa",
        "attributes": None,
        "size": 1,
        "mtime": mtime,
    }
    return {**known, "content": content, **more}


def look(brick: dict[str, Any], copy: dict[str, Any]) -> dict[str, Any]:
    return {"node2": {"/b": brick}, "node1": {"/b": copy}}


def test_what_stays_different_differs_and_what_is_written_is_busy() -> None:
    alike, bad, hot, late = entry("a"), entry("b"), entry("c"), entry("d")
    first = look(
        {"alike": alike, "bad": bad, "hot": hot, "late": late, "lost": alike},
        {"alike": {**alike, "mtime": 9}, "bad": entry("x"), "hot": entry("y"), "late": entry("z")},
    )
    assert brick_differences([PAIR], first) == ["bad", "hot", "late", "lost"]
    second = look(
        {"bad": entry("bb", 2), "hot": entry("cc", 2), "late": late, "lost": alike},
        {"bad": entry("xx", 2), "hot": entry("yy", 2), "late": late},
    )
    third = look(
        {"bad": entry("bb", 2), "hot": entry("ccc", 3), "lost": alike, "late": entry("not asked for")},
        {"bad": entry("xx", 2), "hot": entry("yyy", 3)},
    )
    told = brick_verdict([PAIR], [first, second, third])
    assert told["different"] == [f"{name} on node2:/b and on node1:/b" for name in ("bad", "lost")]
    assert (told["busy"], told["same"]) == (["hot on node2:/b"], 2)


@pytest.mark.parametrize(
    "change", [{"mode": "0644"}, {"owner": 1}, {"group": 1}, {"gfid": "bb"}, {"kind": "link"}, {"attributes": "c"}]
)
def test_an_arbiter_differs_in_all_but_data(change: dict[str, Any]) -> None:
    pair = {**PAIR, "data": False}
    assert brick_differences([pair], look({"a": entry("a")}, {"a": entry("b", size=7)})) == []
    assert brick_differences([pair], look({"a": entry("a")}, {"a": entry("a", **change)})) == ["a"]
