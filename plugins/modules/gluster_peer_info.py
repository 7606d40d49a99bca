#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: who is in the trusted pool of GlusterFS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gluster_peer_info
short_description: Tell who is in the trusted pool of GlusterFS
version_added: 0.1.0
description:
  - Returns the peers as the glusterd of the host sees them, the host itself included. Changes nothing.
  - In check mode a host on which GlusterFS was never used has none; otherwise that is an error.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.glusterd]
options:
  timeout:
    description: Seconds to wait for another transaction of the pool to finish.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: See who is in the pool
  personal.cluster.gluster_peer_info:
  register: pool

- name: Show the identities of all hosts, which a node that is reinstalled needs again
  ansible.builtin.debug:
    msg: "{{ dict(pool.peers.keys() | zip(pool.peers.values() | map(attribute='uuid'))) }}"
"""

RETURN = r"""
available:
  description: Whether glusterd answered; false only in check mode.
  returned: always
  type: bool
op_version:
  description: Operating version of the pool, from the files of glusterd; null where it has none.
  returned: when available
  type: int
peers:
  description: Each peer by its name.
  returned: when available
  type: dict
  contains:
    uuid:
      description: Its UUID.
      type: str
    names:
      description: All names that it goes by.
      type: list
      elements: str
    local:
      description: Whether it is this host.
      type: bool
    connected:
      description: Whether it is connected.
      type: bool
    member:
      description: Whether it is a member.
      type: bool
    state:
      description: Its state in the words of gluster, as V(Peer in Cluster).
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import cli, info
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"timeout": {"type": "int", "default": 120}, **cli.OPTIONS}, supports_check_mode=True
    )
    asked = cli.from_params(Runner(), module.params)
    _engine.report(module, lambda: info.unless_new(lambda: info.peers(asked), module.check_mode))


if __name__ == "__main__":
    main()
