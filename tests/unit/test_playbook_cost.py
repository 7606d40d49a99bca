# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run cost, of all layers and of some, and that it does not grow with disks and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook import Outcome
from plays import REPOSITORY, plays_of, read


def test_modules_are_counted_by_layer() -> None:
    costs = {"base": {"node1": 5, "tang1": 3}, "encryption": {"tang1": 4}, "storage": {"node1": 7, "node2": 6}}
    plays: list[dict[str, object]] = [
        {"layer": layer, "seconds": 1.0, "executions": cost} for layer, cost in costs.items()
    ]
    plays.append({"layer": "encryption", "seconds": 1.0, "executions": {"node1": 5}})
    done = Outcome(0, "", 4.0, plays=plays)
    assert done.executions() == {"node1": 17, "node2": 6, "tang1": 7}
    assert done.executions("encryption", "storage") == {"node1": 12, "node2": 6, "tang1": 4}


def loops(tree: Any) -> Iterator[str]:
    """Yield every loop, however deep in blocks it stands."""
    if isinstance(tree, list):
        for item in tree:
            yield from loops(item)
    elif isinstance(tree, dict):
        yield from (key for key in tree if key == "loop" or key.startswith("with_"))
        yield from loops(list(tree.values()))


def files_of(layer: str) -> list[Path]:
    """Return the files with the tasks of a layer: its playbook, what that imports, and its roles."""
    roles = [role["role"].split(".")[-1] for play in plays_of(layer) for role in play.get("roles", [])]
    parts = [path for role in roles for path in (REPOSITORY / "roles" / role / "tasks").glob("*.yml")]
    return [REPOSITORY / f"playbooks/{layer}.yml", *(REPOSITORY / "playbooks/tasks").glob("*.yml"), *parts]


@pytest.mark.parametrize("layer", ["encryption", "storage"])
def test_no_task_of_a_layer_runs_once_for_each_disk_or_volume(layer: str) -> None:
    """As many modules run for twelve disks and eight volumes as for three and one."""
    files = files_of(layer)
    assert REPOSITORY / f"roles/{layer}/tasks/main.yml" in files
    assert {str(path): found for path in files if (found := list(loops(yaml.safe_load(path.read_text()))))} == {}
    assert list(loops(read("playbooks/escrow.yml"))) != [], "a loop over disks on the controller is seen"
