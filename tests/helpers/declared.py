# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations as the modules hand them to their backends: what is not given has the default of its option."""

from __future__ import annotations

from typing import Any

from ansible_collections.personal.cluster.plugins.modules.gluster_volume import VOLUME_OPTIONS


def volume(**given: Any) -> dict[str, Any]:
    """Return an item of gluster_volume's list."""
    return {**{name: option.get("default") for name, option in VOLUME_OPTIONS.items()}, "timeout": 60, **given}
