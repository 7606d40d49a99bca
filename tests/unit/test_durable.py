# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is replaced is old or new, whenever the run dies."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "fstab"
    file.write_text("old")
    return file


def test_the_old_file_stays_until_the_new_one_is_whole(path: Path) -> None:
    with replacing(path, 0o640) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
        assert [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")] == ["fstab"]
        assert (path.parent / ".fstab.new").stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_alone(path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(path, 0o600) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_what_a_killed_run_left_is_never_written_through(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.write_text("somebody else's")
    (path.parent / ".fstab.new").symlink_to(elsewhere)
    with replacing(path, 0o600) as stream:
        stream.write(b"new")
    assert path.read_text() == "new" and elsewhere.read_text() == "somebody else's"
    assert {entry.name for entry in path.parent.iterdir()} == {"fstab", "elsewhere"}
