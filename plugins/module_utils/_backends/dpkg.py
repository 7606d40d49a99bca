# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg has installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

STATUS = "/var/lib/dpkg/status"


def installed(status: str) -> Iterator[str]:
    """Yield the names of the packages that are wholly installed, from the text of dpkg's status file."""
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if line.startswith(("Package: ", "Status: ")))
        # Wanted, without error, and neither half unpacked nor half configured.
        if fields.get("Status", "").endswith(" ok installed"):
            yield fields["Package"]


def missing(names: Iterable[str], path: str = STATUS) -> list[str]:
    """Return those of ``names`` that are not installed, in their order.

    :raises ClusterError: this is no Debian.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            there = set(installed(stream.read()))
    except FileNotFoundError as error:
        raise ClusterError(f"there is no {path} on this host; it must run Debian 12 or 13") from error
    return [name for name in names if name not in there]
