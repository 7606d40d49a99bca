# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare bricks that are copies of one another. Pure: data in, data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import contents
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


def brick_copies(volumes: Mapping[str, Mapping[str, Any]], host: str, bricks: Sequence[str]) -> list[dict[str, Any]]:
    """Return each of the bricks of a host, and another that has all that it has.

    :param volumes: as gluster_volume_info tells of them.
    :raises AnsibleFilterError: no other brick of its set runs.
    """
    try:
        return contents.copies(volumes, {(host, brick) for brick in bricks})
    except ClusterError as error:
        raise AnsibleFilterError(str(error)) from error


def brick_differences(pairs: Sequence[Mapping[str, Any]], hosts: Mapping[str, contents.Contents]) -> list[str]:
    """Return the paths that differ on any of the pairs, at one look."""
    return sorted({name for names in contents.differences(pairs, hosts) for name in names})


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "brick_copies": brick_copies,
            "brick_differences": brick_differences,
            "brick_verdict": contents.verdict,
        }
