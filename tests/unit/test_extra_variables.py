# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup that tells what the command line gave."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars
from ansible_collections.personal.cluster.plugins.lookup.extra_variables import LookupModule


def test_names_of_all_that_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "more.yml"
    file.write_text("start: false\ncluster_name: home\n")
    given = ("vm=web strat=false", '{"sett": 1}', f"@{file}")
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": given})
    monkeypatch.setattr(load_extra_vars, "extra_vars", {}, raising=False)
    assert LookupModule(loader=DataLoader()).run([]) == ["cluster_name", "sett", "start", "strat", "vm"]
