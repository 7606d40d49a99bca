# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to libvirtd, and its errors as this collection's."""

from __future__ import annotations

import glob
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from threading import Thread
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet

SYSTEM_URI = "qemu:///system"
ANSWER_SECONDS = 60.0
# The argument specification of the doc fragment libvirt.
OPTIONS: dict[str, Any] = {"uri": {"type": "str", "default": SYSTEM_URI}}
# The network that Debian's package brings says nothing about use.
USED_MARKS = ("/etc/libvirt/qemu/*.xml", "/etc/libvirt/storage/*.xml", "/var/lib/libvirt/qemu/save/*.save")


def connect(uri: str) -> Any:
    """Return an open connection.

    :raises NotYet: libvirt is not installed, or does not run and was never used.
    :raises ClusterError: it was used before and does not answer.
    """
    try:
        import libvirt
    except ImportError as error:
        raise NotYet("python3-libvirt is not installed on this host; run the role hypervisor first") from error
    # Errors arrive as exceptions; the default handler would print them into the module's output as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return _opened(libvirt.open, uri)
    except libvirt.libvirtError as error:
        if uri == SYSTEM_URI and not any(glob.glob(mark) for mark in USED_MARKS):
            raise NotYet("libvirtd does not run on this host and was never used") from error
        raise ClusterError(f"libvirt does not answer at {uri} ({error}); see: systemctl status libvirtd") from error


def _opened(opens: Callable[[str], Any], uri: str) -> Any:
    """Open a connection, for which libvirt itself waits without a limit when a daemon hangs."""
    answers: Future[Any] = Future()

    def ask() -> None:
        try:
            answers.set_result(opens(uri))
        except Exception as error:  # It is raised where it was asked for.
            answers.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answers.result(ANSWER_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"libvirt says nothing at {uri} for {ANSWER_SECONDS:.0f} s; see: systemctl status libvirtd"
        ) from error


def explained(call: Any, *arguments: Any) -> Any:
    """Call into libvirt and turn its exception into a :class:`ClusterError`."""
    import libvirt

    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        raise ClusterError(str(error)) from error


def has_left(error: ClusterError) -> bool:
    """Tell whether a call failed because its domain is not there any more."""
    import libvirt

    cause = error.__cause__
    return isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
