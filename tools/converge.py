# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the lab's cluster with site.yml, then say what there is and what it took."""

from __future__ import annotations

import sys

import playbook
from clusterlab.settings import paths

NEXT = """
The lab's cluster is built.
  nodes       node1 node2 node3 (10.10.0.11-13), tang1 (10.10.0.10); log in: make lab-ssh NODE=node1
  volumes     /srv/gv0 (guests), /srv/gv1 (backups) on every node, /srv/bmv0 local
  guests      g1 g2 g3; make lab-ssh NODE=node1, then: virsh list --all
  Prometheus  http://10.10.0.11:9090 inside the lab; from here:
              ssh -F {ssh_config} -N -L 9090:10.10.0.11:9090 node1, then http://127.0.0.1:9090
  Stop it with make lab-stop, go on with make lab-start, remove it with make lab-destroy.
"""


def main() -> int:
    """Run site.yml and print the summary."""
    outcome = playbook.run("site.yml", *sys.argv[1:])
    print("\nWall time per layer:")
    for layer, seconds in outcome.layers().items():
        print(f"  {layer:<12}{seconds:6.0f} s")
    print(f"  {'site.yml':<12}{outcome.seconds:6.0f} s")
    if outcome.rc:
        print("\nsite.yml failed; the message is above. Mend it and run 'make lab' again: it goes on where it stopped.")
        return outcome.rc
    print(NEXT.format(ssh_config=paths().ssh_config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
