# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of a safe network change: one host at a time, confirmed over a new connection."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.safe_apply import STATE_DIR, timer_unit
from ansible_collections.personal.cluster.plugins.module_utils._lock import locked_within

MODULE = "personal.cluster.ovs_vlan"
WAIT_FOR_OTHERS = 1800
AFTER_ROLLBACK = 60
DEFAULT_ROLLBACK_AFTER = 120


BRIDGE_SETTINGS = frozenset(("fail_mode", "stp", "rstp", "mcast_snooping", "datapath_type"))
PORT_SETTINGS = frozenset(("tag", "trunks", "vlan_mode", "bond_mode", "lacp", "mtu"))


def clearing(item: dict[str, Any], settings: frozenset[str]) -> dict[str, Any]:
    """Return ``item`` with its explicit nulls said as ``clear``: a module cannot tell a null from an omitted option."""
    nulls = sorted(name for name in settings & set(item) if item[name] is None)
    kept = {name: value for name, value in item.items() if name not in nulls}
    return {**kept, "clear": [*(item.get("clear") or []), *nulls]} if nulls else kept


def explicit(bridges: Any) -> Any:
    """Return the declared bridges with :func:`clearing` applied to them and their ports."""
    if not isinstance(bridges, list) or not all(isinstance(item, dict) for item in bridges):
        return bridges  # The module says what is wrong with it.
    said = [clearing(item, BRIDGE_SETTINGS) for item in bridges]
    for item in said:
        if isinstance(item.get("ports"), list):
            item["ports"] = [
                clearing(port, PORT_SETTINGS) if isinstance(port, dict) else port for port in item["ports"]
            ]
    return said


class NotMyTurn(Exception):
    """Another host of this run failed, or takes too long."""


@contextmanager
def one_host_at_a_time(host: str) -> Iterator[None]:
    """Hold the run's lock; when its holder fails, nobody gets it any more.

    :raises NotMyTurn: the change failed on another host, or still runs there.
    """
    path = os.path.join(constants.DEFAULT_LOCAL_TMP, "personal-cluster-network.lock")
    with open(path, "a+", encoding="utf-8") as lock:
        if not locked_within(lock.fileno(), WAIT_FOR_OTHERS):
            raise NotMyTurn("another host's network change still runs")
        lock.seek(0)
        failed = lock.read().strip()
        if failed:
            raise NotMyTurn(f"the network change failed on {failed}, so this host was left alone")
        # Whatever happens from here on that is no success must stop the others.
        lock.write(host)
        lock.flush()
        yield
        lock.truncate(0)


class ActionModule(ActionBase):
    """Run the module, and confirm what it changed."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Look first, which all hosts do at once; change only what differs, a host at a time."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        result = self._look(variables)
        if self._task.check_mode or result.get("failed") or not result.get("changed"):
            return result
        token = os.urandom(6).hex()
        try:
            with one_host_at_a_time(variables.get("inventory_hostname", "a host")):
                result = self._change(token, variables)
                if result.get("failed"):
                    raise NotMyTurn
        except NotMyTurn as error:
            if str(error):
                return {"failed": True, "changed": False, "actions": [], "msg": f"not started: {error}"}
        return result

    def _module(self, variables: dict[str, Any], **more: Any) -> dict[str, Any]:
        done: dict[str, Any] = self._execute_module(
            module_name=MODULE,
            module_args={**self._task.args, "bridges": explicit(self._task.args.get("bridges")), **more},
            task_vars=variables,
        )
        return done

    def _look(self, variables: dict[str, Any]) -> dict[str, Any]:
        mode = self._task.check_mode
        self._task.check_mode = True
        try:
            return self._module(variables)
        finally:
            self._task.check_mode = mode

    def _change(self, token: str, variables: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self._module(variables, token=token)
        except AnsibleConnectionFailure as error:
            result = {"failed": True, "msg": f"the connection broke during the change: {error}"}
        if result.get("failed"):
            return self._undone(result, token)
        return self._confirmed(result, token)

    def _seconds(self) -> int:
        return int(self._task.args.get("rollback_after") or DEFAULT_ROLLBACK_AFTER)

    def _confirmed(self, result: dict[str, Any], token: str) -> dict[str, Any]:
        """Confirm over a new connection; without one the host restores itself."""
        said = self._ask(
            f"cd {STATE_DIR} 2>/dev/null || exit 0; "
            f"if mv rollback-{token}.sh confirmed.sh 2>/dev/null; then "
            f"systemctl stop {timer_unit(token)}.timer; echo confirmed; "
            f"elif [ -e undoing-{token}.sh ] || [ -e rolled-back-{token}.sh ]; then echo undone; fi",
            self._seconds(),
        )
        if said is None:
            result = {
                **result,
                "failed": True,
                "msg": "the change was made, and the host was not reachable over a new connection",
            }
            return self._undone(result, token)
        if "undone" in said:
            return {**result, "failed": True, "msg": "rolled back: the change was not confirmed in time"}
        return result

    def _undone(self, result: dict[str, Any], token: str) -> dict[str, Any]:
        """Have the host restore itself now, or wait until its timer has done so."""
        said = self._ask(
            f"cd {STATE_DIR} 2>/dev/null || exit 0; [ -e rollback-{token}.sh ] && sh rollback-{token}.sh; "
            f"if [ -e rolled-back-{token}.sh ] || [ -e undoing-{token}.sh ]; then echo undone; fi",
            self._seconds() + AFTER_ROLLBACK,
        )
        if said is None:
            fate = f"the host does not answer; it restores itself within {self._seconds()} s, or when it boots"
        else:
            fate = "rolled back" if "undone" in said else ""
        return {**result, "msg": "; ".join(filter(None, (str(result.get("msg", "")), fate)))}

    def _ask(self, command: str, seconds: int) -> Optional[str]:
        """Run ``command`` over a new connection and return what it said, or ``None`` after ``seconds`` of silence."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._connection.reset()
                done = self._low_level_execute_command(command)
                if done.get("rc") == 0:
                    return str(done.get("stdout", ""))
            except AnsibleConnectionFailure:
                pass
            if time.monotonic() > end:
                return None
            time.sleep(1)
