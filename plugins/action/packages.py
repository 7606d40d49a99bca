# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of packages: hand what is missing to apt."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

A_DAY = 86400


class ActionModule(ActionBase):
    """Look, and install what is missing."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the look found, with the result of apt where apt was needed."""
        super().run(tmp, task_vars)
        looked: dict[str, Any] = self._execute_module(module_name="personal.cluster.packages", task_vars=task_vars)
        missing = looked.get("missing")
        if not missing:
            return looked
        fresh = boolean(self._task.args.get("fresh_index", False))
        wanted = {
            "name": missing,
            "install_recommends": False,
            "update_cache": True,
            "cache_valid_time": 0 if fresh else A_DAY,
        }
        done: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.apt", module_args=wanted, task_vars=task_vars
        )
        return {**done, "missing": missing}
