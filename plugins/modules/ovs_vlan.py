#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all Open vSwitch bridges, ports and VLANs of a host in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_vlan
short_description: All Open vSwitch bridges, ports and VLANs of a host in one transaction
version_added: 0.1.0
description:
  - Declares bridges with their uplinks, bonds, internal ports, patch ports and VLANs. One read, and one write
    transaction for any number of them.
  - What is not mentioned stays as it is. A null, or its name in O(bridges[].ports[].clear), empties a setting.
  - Objects that this module makes carry the mark C(personal-cluster) in their external_ids, so that O(purge=owned)
    removes only them. Ports of guests (C(vm-id) or C(iface-id) in the interface's external_ids) are never touched.
  - A change that touches an interface with an address is made safely. The way back is written to disk and a timer on
    the host is armed to take it; then the change is made, the peers that answered before must answer again, and the
    controller confirms over a new connection. Without that the host restores itself. On the controller only one host at
    a time is changed.
  - A network card that joins a bridge is taken out of C(/etc/network/interfaces) and the files in C(interfaces.d).
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: personal.cluster.engine
notes:
  - The addresses of bridges and of internal ports are configured by systemd-networkd; this module moves the addresses
    of a card to its bridge at the moment when the card joins it.
  - A service of the role network undoes at boot a change that was never confirmed, after C(ovs-vswitchd) and before
    C(networking).
options:
  bridges:
    description: The bridges.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the bridge and of its internal port.
        type: str
        required: true
      state:
        description: Whether it exists.
        type: str
        choices: [present, absent]
        default: present
      fail_mode:
        description: What the bridge does without a controller.
        type: str
        choices: [standalone, secure]
      stp:
        description: Spanning tree (802.1D).
        type: bool
      rstp:
        description: Rapid spanning tree.
        type: bool
      mcast_snooping:
        description: Multicast snooping.
        type: bool
      hwaddr:
        description: MAC address of the bridge; V(uplink) that of its first uplink, which stays when guests come and go.
        type: str
      datapath_type:
        description: V(system) is the kernel's datapath, V(netdev) the one in user space.
        type: str
        choices: [system, netdev]
      other_config:
        description: Further settings by key; an empty value (null) removes one.
        type: dict
      external_ids:
        description: Further marks by key; an empty value (null) removes one.
        type: dict
      clear:
        description: Settings to empty.
        type: list
        elements: str
        choices: [fail_mode, stp, rstp, mcast_snooping, datapath_type]
        default: []
      take_addresses:
        description:
          - The addresses of a card that joins this bridge move to the bridge. Without it such a card is refused.
        type: bool
        default: false
      gateway:
        description:
          - The default gateway that the host's configuration gives to this bridge. Needed only when a card that joins
            holds the default route, which would be lost otherwise.
        type: str
      ports:
        description: The ports of the bridge, without the ports of guests.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the port; for a network card its name or its MAC address.
            type: str
            required: true
          state:
            description: Whether it exists.
            type: str
            choices: [present, absent]
            default: present
          type:
            description: Kind of its interface; V(system) is a network card or another interface of the kernel.
            type: str
            choices: [system, internal, patch]
          peer:
            description: The port at the other end of a patch port.
            type: str
          members:
            description: Names or MAC addresses of the network cards of a bond.
            type: list
            elements: str
          bond_mode:
            description: How a bond spreads its traffic.
            type: str
            choices: [active-backup, balance-slb, balance-tcp]
          lacp:
            description: Link aggregation protocol of a bond.
            type: str
            choices: ["off", active, passive]
          vlan_mode:
            description: How the port treats VLAN tags.
            type: str
            choices: [access, trunk, native-tagged, native-untagged]
          tag:
            description: VLAN of an access port, or the native VLAN, V(1) to V(4094).
            type: int
          trunks:
            description: VLANs that pass, numbers and ranges such as V(100-110); V(all) alone for all.
            type: list
            elements: str
          mtu:
            description: Bytes of the largest packet.
            type: int
          other_config:
            description: Further settings by key; an empty value (null) removes one.
            type: dict
          external_ids:
            description: Further marks by key; an empty value (null) removes one.
            type: dict
          clear:
            description: Settings to empty.
            type: list
            elements: str
            choices: [tag, trunks, vlan_mode, bond_mode, lacp, mtu]
            default: []
          move:
            description: Take the interface out of another bridge.
            type: bool
            default: false
      vlans:
        description: VLANs of the bridge in which the host itself takes part.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the interface.
            type: str
            required: true
          state:
            description: Whether it exists.
            type: str
            choices: [present, absent]
            default: present
          tag:
            description: Number of the VLAN, V(1) to V(4094).
            type: int
            required: true
          type:
            description: An internal port, or a fake bridge that old tools can add ports to.
            type: str
            choices: [internal, fake_bridge]
            default: internal
  purge:
    description:
      - What to remove that is not declared. V(owned) is what this module made; V(all) everything but ports of guests.
    type: str
    choices: [none, owned, all]
    default: none
  peers:
    description: Addresses; those that answer a ping before a change which is made safely must answer after it.
    type: list
    elements: str
    default: []
  safe_apply:
    description: Make risky changes safely. Without it they are refused.
    type: bool
    default: true
  rollback_after:
    description: Seconds after which an unconfirmed change is undone.
    type: int
    default: 120
  token:
    description: Names one safe change. Set by the action plugin.
    type: str
  database:
    description: Where the database listens, such as V(unix:/run/openvswitch/db.sock), when it is not Debian's place.
    type: str
  wait:
    description: Wait until ovs-vswitchd has applied the change. Only a database without that daemon needs V(false).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Bridges of a node, an uplink each
  personal.cluster.ovs_vlan:
    purge: owned
    peers: [10.10.0.12, 10.10.0.13]
    bridges:
      - name: br0
        hwaddr: uplink
        take_addresses: true
        ports: [{name: "52:54:00:10:00:01"}]
      - name: vlans
        ports:
          - name: enp3s0
            vlan_mode: trunk
            trunks: ["101-110", "200"]
        vlans:
          - name: guests0
            tag: 101

- name: A bond with LACP
  personal.cluster.ovs_vlan:
    bridges:
      - name: br0
        ports:
          - name: bond0
            members: [enp1s0, enp2s0]
            bond_mode: balance-tcp
            lacp: active
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
bridges:
  description: The bridges with their ports, those of guests left out.
  returned: always
  type: dict
addresses:
  description: The addresses of the interfaces in these bridges.
  returned: always
  type: dict
ifupdown:
  description: Which interfaces each file of ifupdown configures.
  returned: always
  type: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.safe_apply import Safety
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.switch import Switch
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

STATE: dict[str, Any] = {"type": "str", "choices": ["present", "absent"], "default": "present"}
PORT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": STATE,
    "type": {"type": "str", "choices": ["system", "internal", "patch"]},
    "peer": {"type": "str"},
    "members": {"type": "list", "elements": "str"},
    "bond_mode": {"type": "str", "choices": ["active-backup", "balance-slb", "balance-tcp"]},
    "lacp": {"type": "str", "choices": ["off", "active", "passive"]},
    "vlan_mode": {"type": "str", "choices": ["access", "trunk", "native-tagged", "native-untagged"]},
    "tag": {"type": "int"},
    "trunks": {"type": "list", "elements": "str"},
    "mtu": {"type": "int"},
    "other_config": {"type": "dict"},
    "external_ids": {"type": "dict"},
    "clear": {
        "type": "list",
        "elements": "str",
        "choices": ["tag", "trunks", "vlan_mode", "bond_mode", "lacp", "mtu"],
        "default": [],
    },
    "move": {"type": "bool", "default": False},
}
VLAN: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": STATE,
    "tag": {"type": "int", "required": True},
    "type": {"type": "str", "choices": ["internal", "fake_bridge"], "default": "internal"},
}
BRIDGE: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": STATE,
    "fail_mode": {"type": "str", "choices": ["standalone", "secure"]},
    "stp": {"type": "bool"},
    "rstp": {"type": "bool"},
    "mcast_snooping": {"type": "bool"},
    "hwaddr": {"type": "str"},
    "datapath_type": {"type": "str", "choices": ["system", "netdev"]},
    "other_config": {"type": "dict"},
    "external_ids": {"type": "dict"},
    "clear": {
        "type": "list",
        "elements": "str",
        "choices": ["fail_mode", "stp", "rstp", "mcast_snooping", "datapath_type"],
        "default": [],
    },
    "take_addresses": {"type": "bool", "default": False},
    "gateway": {"type": "str"},
    "ports": {"type": "list", "elements": "dict", "default": [], "options": PORT},
    "vlans": {"type": "list", "elements": "dict", "default": [], "options": VLAN},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "bridges": {"type": "list", "elements": "dict", "required": True, "options": BRIDGE},
            "purge": {"type": "str", "choices": ["none", "owned", "all"], "default": "none"},
            "peers": {"type": "list", "elements": "str", "default": []},
            "safe_apply": {"type": "bool", "default": True},
            "rollback_after": {"type": "int", "default": 120},
            "token": {"type": "str", "no_log": False},
            "database": {"type": "str"},
            "wait": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    # Without the action plugin nobody confirms: the change is undone by its timer.
    token = given["token"] or os.urandom(6).hex()
    safety = Safety(given["safe_apply"], given["rollback_after"], token, tuple(given["peers"]))
    switch = Switch(
        given["bridges"],
        Runner(),
        purge=given["purge"],
        database=given["database"],
        wait=given["wait"],
        safety=safety,
    )
    _engine.run(module, switch)


if __name__ == "__main__":
    main()
