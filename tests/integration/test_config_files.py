# SPDX-License-Identifier: GPL-3.0-or-later
"""config_files against a real directory."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path
from typing import Any

from harness import run_module

OWNER = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


def params(top: Path) -> dict[str, Any]:
    return {
        "files": [
            {"path": str(top / "sub" / "plain"), "content": "one\n", **OWNER},
            {"path": str(top / "shared"), "state": "block", "content": "mine\n", **OWNER},
            {"path": str(top / "key"), "secret_content": "hush hush", "mode": "0600", **OWNER},
            {"path": str(top / "link"), "state": "link", "target": "shared"},
            {"path": str(top / "old"), "state": "absent"},
        ]
    }


def test_check_lists_what_the_run_does_and_the_second_run_is_silent(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("theirs\n")
    (tmp_path / "old").write_text("x")
    checked = run_module("config_files", params(tmp_path), check=True)
    assert not (tmp_path / "sub").exists() and (tmp_path / "old").exists()
    done = run_module("config_files", params(tmp_path))
    assert done["changed"] and done["actions"] == checked["actions"] and len(done["actions"]) == 5
    assert (tmp_path / "shared").read_text() == "theirs\n# BEGIN personal.cluster\nmine\n# END personal.cluster\n"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert "hush hush" not in str(checked) and "hush hush" not in str(done)
    again = run_module("config_files", params(tmp_path))
    assert not again["changed"] and again["actions"] == [] and "diff" not in again


def test_an_invalid_file_never_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "rules"
    target.write_text("good\n")
    item = {"path": str(target), "content": "bad\n", "validate": ["grep", "-q", "good", "%s"], **OWNER}
    result = run_module("config_files", {"files": [item]})
    assert result["failed"] and "left as it is" in result["msg"]
    assert target.read_text() == "good\n" and [file.name for file in tmp_path.iterdir()] == ["rules"]


def test_a_directory_in_the_way_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    items = [
        {"path": str(tmp_path / "first"), "content": "1", **OWNER},
        {"path": str(tmp_path / "taken"), "content": "2", **OWNER},
    ]
    result = run_module("config_files", {"files": items})
    assert result["failed"] and "taken is a directory" in result["msg"]
    assert not (tmp_path / "first").exists()
