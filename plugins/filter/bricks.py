# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare bricks that are copies of one another. Pure: data in, data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import contents
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


def brick_copies(volumes: Mapping[str, Mapping[str, Any]], host: str, bricks: Sequence[str]) -> list[dict[str, Any]]:
    """Return each of the bricks of a host that has a copy, and another that has all that it has.

    :param volumes: as gluster_volume_info tells of them.
    :raises AnsibleFilterError: gluster has no such brick, or it, or every other one of its set, does not run.
    """
    try:
        return contents.copies(volumes, {(host, brick) for brick in bricks})
    except ClusterError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "brick_copies": brick_copies,
            "brick_differences": contents.differences,
            "brick_verdict": contents.verdict,
        }
