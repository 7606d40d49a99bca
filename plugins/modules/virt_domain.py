#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: all declared guests of a node over one libvirt connection."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_domain
short_description: Define, start, change and remove all declared guests of a node in one execution
version_added: 0.1.0
description:
  - Compares what is declared with libvirt's persistent XML and patches only that; what others added stays.
  - UUID and MAC addresses are derived from the cluster's and the guest's name, so they are the same on every node.
  - A running guest takes live what it can (disks and NICs plugged in, a NIC moved to another VLAN, a disc changed).
    The rest is returned as RV(pending) and holds after its next start. A guest is never restarted unasked.
  - Missing raw images of new disks are created sparse, for libvirt's QEMU user. An existing image is never overwritten
    or shrunk. A disk that the guest has already never gets a blank image - when its image is not there, or is declared
    at another place to which nobody moved it, the run is refused. Nor does it get an older one - while the file that it
    is on by now, after a snapshot for example, may still be there, the run is refused.
author: personal.cluster maintainers (@personal-cluster)
extends_documentation_fragment: [personal.cluster.engine, personal.cluster.libvirt]
options:
  cluster:
    description: Name of the cluster, from which UUIDs and MAC addresses are derived.
    type: str
    required: true
  domains:
    description: The guests of this node.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name, unique in the cluster.
        type: str
        required: true
      uuid:
        description: UUID, to adopt a guest that was defined by hand.
        type: str
      state:
        description:
          - V(defined) leaves it as it is, running or not. V(shutdown) asks the guest and waits.
          - V(absent) shuts it down and undefines it; its disks stay, unless O(domains[].delete_disks) names them.
        type: str
        choices: [defined, running, shutdown, paused, absent]
        default: running
      domain_type:
        description: V(kvm), or V(qemu) for emulation.
        type: str
        choices: [kvm, qemu]
      memory:
        description: Memory with its unit, such as V(512M) or V(4G). Needed for a new guest.
        type: str
      vcpus:
        description: Number of virtual processors. Needed for a new guest.
        type: int
      cpu:
        description:
          - V(host-passthrough), V(host-model), V(maximum) or the name of a CPU model. New guests under KVM get
            V(host-model); where the processors of the nodes differ, name a model that all of them have.
        type: str
      machine:
        description: Machine type; the aliases V(q35) and V(pc) match their versioned forms. New guests get V(q35).
        type: str
      kernel:
        description: Path on the node of a kernel that QEMU starts directly.
        type: path
      initrd:
        description: Path on the node of the initial RAM disk for O(domains[].kernel).
        type: path
      cmdline:
        description: Command line for O(domains[].kernel).
        type: str
      serial_log:
        description: File on the node to which the serial console is copied.
        type: path
      graphics:
        description: A screen, reachable from the node itself (virt-manager over ssh) only.
        type: str
        choices: [none, vnc, spice]
        default: none
      guest_agent:
        description: Gives the guest the channel of the QEMU guest agent.
        type: bool
        default: true
      autostart:
        description: Whether it starts with its node. Left alone when not given.
        type: bool
      disks:
        description: Its disks. Disks that are not declared stay as they are.
        type: list
        elements: dict
        default: []
        suboptions:
          target:
            description:
              - Device name in the guest, by which the disk is found again. Counted from V(vda) when not given.
              - When a disk that is not the last is taken off the list, the ones behind it need their targets.
            type: str
          pool:
            description: Directory pool in which the image lies.
            type: str
          name:
            description: File name in the pool; V(GUEST-TARGET.img) when not given.
            type: str
          path:
            description: Path of an image outside of pools.
            type: path
          size:
            description: Size with its unit. A new disk's missing image is created with it, a smaller one grows to it.
            type: str
          device:
            description: A disk, or a drive with a disc in it.
            type: str
            choices: [disk, cdrom]
            default: disk
          format:
            description:
              - Format of the image. Only raw images are created.
              - Refused when the guest uses the image with another one, or a new disk's image begins as another one.
            type: str
            choices: [raw, qcow2]
            default: raw
          bus:
            description: How the guest sees it.
            type: str
            choices: [virtio, scsi, sata]
            default: virtio
          cache:
            description: Cache mode. Live migration is safe with V(none).
            type: str
            choices: [none, writeback, writethrough, directsync, unsafe]
            default: none
          error_policy:
            description: What happens when the storage fails. V(stop) pauses the guest until it is back.
            type: str
            choices: [stop, report, ignore, enospace]
            default: stop
      nics:
        description: Its network cards. Cards that are not declared stay as they are.
        type: list
        elements: dict
        default: []
        suboptions:
          network:
            description: Libvirt network.
            type: str
            required: true
          vlan:
            description: Portgroup of the network. Needed when the network has portgroups.
            type: str
          mac:
            description: MAC address, by which the card is found again. Derived from UUID and position when not given.
            type: str
          model:
            description: Model of the card.
            type: str
            default: virtio
      apply:
        description:
          - V(live_or_pending) changes a running guest as far as it can and returns the rest as RV(pending).
          - V(live) refuses what would have to wait. V(next_boot) leaves a running guest alone.
        type: str
        choices: [live_or_pending, live, next_boot]
        default: live_or_pending
      shutdown_timeout:
        description: Seconds in which the guest has to shut down.
        type: int
        default: 120
      force_stop:
        description: After the timeout, end the guest like a pulled plug.
        type: bool
        default: false
      delete_disks:
        description:
          - With O(domains[].state=absent), the image files that are deleted before the guest is undefined, by path.
          - Only disks of the guest are deleted. Files named for a guest that is gone already stay, with a warning.
        type: list
        elements: path
        default: []
  elsewhere:
    description:
      - Guests that other nodes have, with the node's name. A guest listed here is refused, and cannot start twice.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Run the guests of this node
  personal.cluster.virt_domain:
    cluster: home
    domains:
      - name: web
        memory: 2G
        vcpus: 2
        autostart: true
        disks:
          - {pool: gv0, size: 20G}
          - {device: cdrom, bus: sata, target: sda, path: /srv/gv0/iso/debian.iso}
        nics:
          - {network: vlans, vlan: blue}
        graphics: vnc
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, a sentence each.
  returned: always
  type: list
  elements: str
domains:
  description: The declared guests as they are after their next start.
  returned: always
  type: dict
pending:
  description: Guests that run with something else than what is declared, and what waits for their next start.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import OPTIONS
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.domains import Domains

DISK: dict[str, Any] = {
    "target": {"type": "str"},
    "pool": {"type": "str"},
    "name": {"type": "str"},
    "path": {"type": "path"},
    "size": {"type": "str"},
    "device": {"type": "str", "choices": ["disk", "cdrom"], "default": "disk"},
    "format": {"type": "str", "choices": ["raw", "qcow2"], "default": "raw"},
    "bus": {"type": "str", "choices": ["virtio", "scsi", "sata"], "default": "virtio"},
    "cache": {
        "type": "str",
        "choices": ["none", "writeback", "writethrough", "directsync", "unsafe"],
        "default": "none",
    },
    "error_policy": {"type": "str", "choices": ["stop", "report", "ignore", "enospace"], "default": "stop"},
}
NIC: dict[str, Any] = {
    "network": {"type": "str", "required": True},
    "vlan": {"type": "str"},
    "mac": {"type": "str"},
    "model": {"type": "str", "default": "virtio"},
}
DOMAIN: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "uuid": {"type": "str"},
    "state": {
        "type": "str",
        "choices": ["defined", "running", "shutdown", "paused", "absent"],
        "default": "running",
    },
    "domain_type": {"type": "str", "choices": ["kvm", "qemu"]},
    "memory": {"type": "str"},
    "vcpus": {"type": "int"},
    "cpu": {"type": "str"},
    "machine": {"type": "str"},
    "kernel": {"type": "path"},
    "initrd": {"type": "path"},
    "cmdline": {"type": "str"},
    "serial_log": {"type": "path"},
    "graphics": {"type": "str", "choices": ["none", "vnc", "spice"], "default": "none"},
    "guest_agent": {"type": "bool", "default": True},
    "autostart": {"type": "bool"},
    "disks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": DISK,
        "required_one_of": [("pool", "path")],
        "mutually_exclusive": [("pool", "path"), ("name", "path")],
    },
    "nics": {"type": "list", "elements": "dict", "default": [], "options": NIC},
    "apply": {"type": "str", "choices": ["live_or_pending", "live", "next_boot"], "default": "live_or_pending"},
    "shutdown_timeout": {"type": "int", "default": 120},
    "force_stop": {"type": "bool", "default": False},
    "delete_disks": {"type": "list", "elements": "path", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "dict", "required": True, "options": DOMAIN},
            "elsewhere": {"type": "dict", "default": {}},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    given = module.params
    _engine.run(module, Domains(given["domains"], given["cluster"], given["elsewhere"], given["uri"]), alone=True)


if __name__ == "__main__":
    main()
