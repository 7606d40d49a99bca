# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on a resource of the smallest kind: a set of numbers that shall exist."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step, converge
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet, Refused

FULL = 9


@dataclass
class Numbers:
    wanted: frozenset[int]
    world: set[int]
    broken: frozenset[int] = frozenset()
    installed: bool = True
    refused: list[str] = field(default_factory=list)

    def read(self) -> frozenset[int]:
        if not self.installed:
            raise NotYet("numbers is not installed")
        return frozenset(self.world)

    def blank(self) -> frozenset[int]:
        return frozenset()

    def plan(self, state: frozenset[int]) -> Plan[frozenset[int]]:
        missing = sorted(self.wanted - state)
        steps = [Step(f"add {number}", partial(self._add, number)) for number in missing]
        return Plan(state | self.wanted, steps, self.refused)

    def _add(self, number: int) -> None:
        if number < 0:
            raise ClusterError(f"{number} is negative")
        if number == FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/numbers")
        if number not in self.broken:
            self.world.add(number)

    def view(self, state: frozenset[int]) -> dict[str, Any]:
        return {"numbers": sorted(state)}


def test_check_mode_lists_exactly_what_a_run_does_and_changes_nothing() -> None:
    resource = Numbers(frozenset({1, 2}), {1})
    checked = converge(resource, check=True, done=[])
    assert resource.world == {1}
    done: list[str] = []
    ran = converge(resource, check=False, done=done)
    assert checked == ran and done == ran["actions"] == ["add 2"]
    assert ran["diff"] == {"before": {"numbers": [1]}, "after": {"numbers": [1, 2]}}


def test_a_second_run_changes_nothing_and_shows_no_diff() -> None:
    resource = Numbers(frozenset({1}), {1})
    assert converge(resource, check=False, done=[]) == {"changed": False, "actions": [], "numbers": [1]}


def test_one_refusal_stops_before_the_first_step() -> None:
    resource = Numbers(frozenset({1}), set(), refused=["the first reason", "the second"])
    with pytest.raises(Refused, match="nothing was changed: the first reason; the second"):
        converge(resource, check=False, done=[])
    assert resource.world == set()


def test_what_is_left_after_a_run_is_a_failure() -> None:
    resource = Numbers(frozenset({1, 2}), set(), broken=frozenset({2}))
    with pytest.raises(ClusterError, match="not converged, still to do: add 2"):
        converge(resource, check=False, done=[])


def test_a_failed_step_reports_the_steps_before_it_and_a_rerun_goes_on() -> None:
    resource = Numbers(frozenset({-1, 5}), set())
    done: list[str] = []
    with pytest.raises(ClusterError, match="negative"):
        converge(resource, check=False, done=done)
    assert done == []
    resource.wanted = frozenset({5})
    assert converge(resource, check=False, done=done)["changed"] and done == ["add 5"]


def test_a_step_that_cannot_write_is_named_with_what_it_could_not_write() -> None:
    done: list[str] = []
    with pytest.raises(ClusterError, match="could not add 9: /numbers: No space left on device"):
        converge(Numbers(frozenset({8, FULL}), set()), check=False, done=done)
    assert done == ["add 8"]


def test_a_missing_tool_is_planned_from_nothing_in_check_mode_only() -> None:
    resource = Numbers(frozenset({1}), set(), installed=False)
    checked = converge(resource, check=True, done=[])
    assert checked["actions"] == ["add 1"] and "planned from nothing" in checked["warnings"][0]
    with pytest.raises(NotYet):
        converge(resource, check=False, done=[])
