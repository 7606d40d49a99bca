# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes get more bricks while a guest writes."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import Lab, guest_counter, longest_pause, wait_until
from killing import die_at


def grow_below_a_guest(lab: Lab, options: list[str], moments: Sequence[tuple[str, float]]) -> None:
    """Let runs of add_nodes.yml die, then one complete them; the guest g1 writes all the while, and after it."""
    with longest_pause(lab, "node3", "g1"):
        die_at("add_nodes.yml", options, moments)
        done = lab.playbook("add_nodes.yml", *options, limit=3600)
        assert done.rc == 0
        print(f"  the run that completed it took {done.seconds:.0f} s")
        counted = guest_counter(lab, "node3", "g1")
        wait_until("g1 writes on", lambda: guest_counter(lab, "node3", "g1") > counted, 120)
