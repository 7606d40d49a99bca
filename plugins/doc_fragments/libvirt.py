# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of every module that connects to libvirt; its specification is in the backend, ``connection.OPTIONS``."""

from __future__ import annotations


class ModuleDocFragment:
    """Which libvirt is asked."""

    DOCUMENTATION = r"""
options:
  uri:
    description: Libvirt connection of the node.
    type: str
    default: qemu:///system
"""
