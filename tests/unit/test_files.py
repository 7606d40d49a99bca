# SPDX-License-Identifier: GPL-3.0-or-later
"""Managed blocks and desired entries of config_files."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.files import ABSENT, Entry, Files, with_block
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed


def item(**given: Any) -> dict[str, Any]:
    empty = {"content": None, "secret_content": None, "target": None, "mode": None, "validate": None}
    return {**empty, "state": "file", "block": "b", "owner": "root", "group": "root", **given}


def no_run(*_argv: Any, **_options: Any) -> Completed:
    raise AssertionError("planning must not run anything")


def test_a_block_is_appended_then_replaced_in_place() -> None:
    once = with_block("first", "b", "one")
    assert once == "first\n# BEGIN b\none\n# END b\n"
    assert with_block(once + "last\n", "b", "two\n") == "first\n# BEGIN b\ntwo\n# END b\nlast\n"


@pytest.mark.parametrize(
    "text",
    [
        "# BEGIN b\nprecious\n",
        "precious\n# END b\n",
        "# END b\n# BEGIN b\n",
        "# BEGIN b\nprecious\n# BEGIN b\nx\n# END b\n",
        "# BEGIN b\nx\n# END b\nprecious\n# END b\n",
    ],
)
def test_a_block_whose_bounds_are_not_clear_is_refused(text: str) -> None:
    files = Files([item(path="/etc/fstab", state="block", block="b", content="x")], no_run)
    with pytest.raises(ClusterError, match="/etc/fstab: there is not one line '# BEGIN b' followed by one"):
        files.plan({"/etc/fstab": Entry("file", text, "root", "root", 0o644)})


def test_two_blocks_of_one_file_are_planned_on_top_of_each_other() -> None:
    items = [
        item(path="/f", state="block", block="a", content="1"),
        item(path="/f", state="block", block="b", content="2"),
    ]
    plan = Files(items, no_run).plan({"/f": ABSENT})
    assert plan.predicted["/f"].content == "# BEGIN a\n1\n# END a\n# BEGIN b\n2\n# END b\n"
    assert [step.sentence for step in plan.steps] == ["create file /f", "change /f"]


def test_a_block_keeps_the_mode_and_owner_of_the_file() -> None:
    found = Entry("file", "", "daemon", "daemon", 0o640)
    plan = Files([item(path="/f", state="block", content="1")], no_run).plan({"/f": found})
    after = plan.predicted["/f"]
    assert (after.owner, after.mode) == ("daemon", 0o640)


def test_a_secret_is_a_digest_on_both_sides_of_the_diff() -> None:
    files = Files([item(path="/k", secret_content="hush", mode="0600")], no_run)
    before = {"/k": Entry("file", "old hush", "root", "root", 0o600)}
    for state in (before, files.plan(before).predicted):
        assert "hush" not in str(files.view(state))
    shown = [files.view(state)["files"]["/k"]["content"] for state in (before, before, files.plan(before).predicted)]
    assert shown[0] == shown[1] != shown[2]
    # Whoever reads a log cannot try passphrases against it.
    again = Files([item(path="/k", secret_content="hush", mode="0600")], no_run)
    assert again.view(before)["files"]["/k"]["content"] != shown[0]


def test_a_directory_in_the_way_of_a_file_is_refused() -> None:
    plan = Files([item(path="/d", content="x")], no_run).plan({"/d": Entry("directory", "", "root", "root", 0o755)})
    assert plan.refusals == ["/d is a directory; move it away first"] and not plan.steps
