# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that asks a glusterd."""

from __future__ import annotations


class ModuleDocFragment:
    """Which glusterd is asked."""

    DOCUMENTATION = r"""
options:
  local_host:
    description:
      - The declared host that means the glusterd that is asked. Found by address when not given; needed only with
        several glusterds on one machine.
    type: str
    default: ""
  glusterd_sock:
    description: Socket of the glusterd to ask, when it is not the usual one.
    type: path
  glusterd_workdir:
    description: Working directory of glusterd, where its option groups are.
    type: path
    default: /var/lib/glusterd
"""
