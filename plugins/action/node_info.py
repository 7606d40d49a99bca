# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of node_info: measure the clock, and go on when a host cannot be looked at."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase


def clock_offset(node_time: float, process_age: float, sent: float, received: float) -> dict[str, float]:
    """Bound how many seconds the node's clock is ahead of the controller's.

    The node read its clock at least ``process_age`` seconds after the controller's ``sent`` and before its
    ``received``, so the truth lies between the two bounds whatever the connection cost.
    """
    low = node_time - received
    return {"low": round(low, 3), "high": round(max(low, node_time - sent - process_age), 3)}


class ActionModule(ActionBase):
    """Run the module on the host and complete its result."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result with ``clock_offset``, or with ``problem`` when told to keep going."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        declared = self._task.args.get("declared", {})
        keep_going = boolean(self._task.args.get("keep_going", False))
        sent = time.time()
        try:
            answer: dict[str, Any] = self._execute_module(module_name="personal.cluster.node_info", task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            if not keep_going:
                raise
            return {**result, "declared": declared, "problem": f"it cannot be reached: {error}"}
        except AnsibleError as error:
            if not keep_going:
                raise
            return {**result, "declared": declared, "problem": str(error)}
        received = time.time()
        if "node" in answer:
            node = answer["node"]
            answer["clock_offset"] = clock_offset(node["time"], node["process_age"], sent, received)
        elif keep_going:
            said = (str(answer.get(key) or "").strip() for key in ("msg", "module_stderr", "module_stdout"))
            problem = "; ".join(filter(None, said)) or "the module ended without a word"
            return {**result, "declared": declared, "problem": problem}
        return {**result, **answer, "declared": declared}
