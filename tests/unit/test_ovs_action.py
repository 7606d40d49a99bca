# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ovs_vlan: who changes when, and what confirms a change."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.personal.cluster.plugins.action import ovs_vlan

CHANGED = {"changed": True, "actions": ["create bridge br0"]}


class Action(ovs_vlan.ActionModule):
    """The plugin over a host that gives prepared answers."""

    def __init__(self, modules: list[Any], answers: list[Any], *, check: bool = False) -> None:
        self._task = SimpleNamespace(check_mode=check, args={"bridges": [], "rollback_after": 1}, async_val=0)
        self._connection = SimpleNamespace(reset=lambda: self.log.append("reset"))
        self._modules, self._answers = modules, answers
        self.log: list[str] = []
        self.tokens: list[str] = []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return super().run(tmp, task_vars or {"inventory_hostname": "node1"})

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.log.append("look" if self._task.check_mode else "change")
        self.tokens.append(call["module_args"].get("token", ""))
        answer = self._modules.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def _low_level_execute_command(self, command: str) -> dict[str, Any]:
        self.log.append("undo" if f"sh rollback-{self.tokens[-1]}.sh" in command else "confirm")
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"rc": 0, "stdout": answer}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_args: {})
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(ovs_vlan, "WAIT_FOR_OTHERS", 0.1)
    monkeypatch.setattr(ovs_vlan, "AFTER_ROLLBACK", 0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def test_nothing_to_do_costs_one_look() -> None:
    action = Action([{"changed": False, "actions": []}], [])
    assert action.run() == {"changed": False, "actions": []}
    assert action.log == ["look"]


def test_check_mode_only_looks() -> None:
    action = Action([CHANGED], [], check=True)
    assert action.run() == CHANGED
    assert action.log == ["look"]


def test_change_is_confirmed_over_a_new_connection() -> None:
    action = Action([CHANGED, CHANGED], ["confirmed\n"])
    assert action.run() == CHANGED
    assert action.log == ["look", "change", "reset", "confirm"]
    assert action.tokens[0] == "" and len(action.tokens[1]) == 12


def test_confirmation_is_tried_again_while_the_connection_fails() -> None:
    action = Action([CHANGED, CHANGED], [AnsibleConnectionFailure("no route"), "confirmed\n"])
    assert "failed" not in action.run()
    assert action.log == ["look", "change", "reset", "confirm", "reset", "confirm"]


def test_change_that_was_undone_before_the_confirmation_fails() -> None:
    result = Action([CHANGED, CHANGED], ["undone\n"]).run()
    assert result["failed"] and result["msg"].startswith("rolled back")


def test_failed_change_is_undone_and_stops_the_other_hosts() -> None:
    action = Action([CHANGED, {"failed": True, "msg": "ovs-vsctl failed"}], ["undone\n"])
    assert action.run()["msg"] == "ovs-vsctl failed; rolled back"
    assert action.log == ["look", "change", "reset", "undo"]
    other = Action([CHANGED], [])
    result = other.run(None, {"inventory_hostname": "node2"})
    assert result["failed"] and "the network change failed on node1, so this host was left alone" in result["msg"]
    assert other.log == ["look"]


def test_silent_host_is_said_to_restore_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Action, "_seconds", lambda _self: 0)
    monkeypatch.setattr(ovs_vlan, "AFTER_ROLLBACK", -1)
    silent = AnsibleConnectionFailure("timed out")
    action = Action([CHANGED, silent], [silent, silent])
    result = action.run()
    assert result["failed"]
    assert "the connection broke during the change: timed out" in result["msg"]
    assert "the host does not answer; it restores itself" in result["msg"]


def test_second_host_waits_for_the_first() -> None:
    with ovs_vlan.one_host_at_a_time("node1"):
        result = Action([CHANGED], []).run(None, {"inventory_hostname": "node2"})
    assert result["failed"] and "another host's network change still runs" in result["msg"]
    assert "failed" not in Action([CHANGED, CHANGED], ["confirmed"]).run()


def test_explicit_null_clears_and_an_omitted_setting_does_not() -> None:
    declared = [{"name": "br0", "stp": None, "ports": [{"name": "eth0", "tag": None, "mtu": 9000}, {"name": "eth1"}]}]
    assert ovs_vlan.explicit(declared) == [
        {
            "name": "br0",
            "clear": ["stp"],
            "ports": [{"name": "eth0", "clear": ["tag"], "mtu": 9000}, {"name": "eth1"}],
        }
    ]
    assert declared[0]["stp"] is None
    assert ovs_vlan.explicit("nonsense") == "nonsense"
