# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml dies in the middle of each layer, and the next run completes it: from bare nodes to a converged cluster."""

from __future__ import annotations

import pytest
from cluster import Lab, changed
from killing import run_and_kill

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bare")]

# Killed this many seconds after the named task began: while it works, not between two tasks.
MOMENTS = {
    "base": ("Write names, clock settings and certificates", 3),
    "network": ("Build the bridges", 8),
    "encryption": ("Encrypt, bind and open the data disks", 20),
    "storage": ("Make and mount the filesystems of this node", 10),
    "hypervisor": ("Run the guests that belong here", 4),
    "backup": ("Keep the repository", 5),
    "telemetry": ("Write configuration, rules, collector and units", 3),
}


@pytest.mark.parametrize("layer", MOMENTS)
def test_a_layer_that_was_killed_converges_on_the_next_run(lab: Lab, layer: str) -> None:
    task, delay = MOMENTS[layer]
    assert run_and_kill("site.yml", ["--tags", layer], task, delay), f"{layer} never came to the task {task!r}"
    assert lab.playbook("site.yml", "--tags", layer).rc == 0
    again = lab.playbook("site.yml", "--tags", layer)
    assert again.rc == 0 and changed(again) == {}
