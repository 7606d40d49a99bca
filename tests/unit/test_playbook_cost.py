# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run cost, of all layers and of some."""

from __future__ import annotations

from playbook import Outcome


def test_modules_are_counted_by_layer() -> None:
    costs = {"base": {"node1": 5, "tang1": 3}, "encryption": {"tang1": 4}, "storage": {"node1": 7, "node2": 6}}
    plays: list[dict[str, object]] = [
        {"layer": layer, "seconds": 1.0, "executions": cost} for layer, cost in costs.items()
    ]
    plays.append({"layer": "encryption", "seconds": 1.0, "executions": {"node1": 5}})
    done = Outcome(0, "", 4.0, plays=plays)
    assert done.executions() == {"node1": 17, "node2": 6, "tang1": 7}
    assert done.executions("encryption", "storage") == {"node1": 12, "node2": 6, "tang1": 4}
