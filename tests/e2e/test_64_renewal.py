# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate that ends soon is issued again, and everything on its node uses the new one, even if the run dies."""

from __future__ import annotations

import pytest
from cluster import HOMES, Lab, changed, longest_pause, running_guests, wait_until, wait_until_whole
from killing import run_and_kill

pytestmark = pytest.mark.long

SOON = ["-e", "days=400"]
# glusterd, and a brick of gv0, as a client sees them.
PORTS = "24007 $(pgrep -af glusterfsd.*gv0 | sed -n 's/.*listen-port=\\([0-9]*\\).*/\\1/p')"

NEWER = "find /etc/ssl/personal-cluster/node.pem -newerct \"@$(sed -n 's/^btime //p' /proc/stat)\""


def served(lab: Lab, node: str) -> set[str]:
    """Return the serial numbers of the certificates that a node's glusterd and brick show."""
    show = "openssl s_client -connect $(hostname):$port </dev/null 2>/dev/null | openssl x509 -noout -serial"
    found = lab.out(node, f"for port in {PORTS}; do {show}; done").split()
    assert len(found) == 2
    return set(found)


def boots(lab: Lab) -> dict[str, str]:
    return {node: lab.out(node, "cat /proc/sys/kernel/random/boot_id") for node in ("node1", "node2", "node3")}


def test_a_certificate_that_ends_soon_is_renewed_and_used(lab: Lab) -> None:
    wait_until_whole(lab)
    (lab.where.state / "tls" / "nodes" / "node2.pem").unlink()
    assert lab.playbook("base.yml", "-e", "base_certificate_years=1").rc == 0
    # Certificates of nodes that have not booted since they were built are taken for new ones.
    stale = {node for node in ("node1", "node2", "node3") if lab.out(node, NEWER)}
    assert "node2" in stale
    before, old = boots(lab), lab.out("node2", "openssl x509 -noout -serial -in /etc/ssl/personal-cluster/node.pem")

    planned = lab.playbook("renew_certificates.yml", *SOON, "--check", "-v")
    assert planned.rc == 0 and "issue the certificate of node2 again" in planned.output
    assert set(changed(planned)) == {"node1", *stale}, "issued once, on behalf of all; rebooted are the others"
    with longest_pause(lab, "node3", "g2"):
        assert run_and_kill("renew_certificates.yml", SOON, "Wait until the cluster can lose this node", 5)
        done = lab.playbook("renew_certificates.yml", *SOON)
        assert done.rc == 0
        print(f"  the run that completed it took {done.seconds:.0f} s")
    after = boots(lab)
    assert {node for node in after if after[node] != before[node]} == stale
    wait_until("all guests run at home", lambda: running_guests(lab) == HOMES, 600)
    new = lab.out("node2", "openssl x509 -noout -serial -in /etc/ssl/personal-cluster/node.pem")
    assert new != old and served(lab, "node2") == {new}
    again = lab.playbook("renew_certificates.yml", *SOON)
    assert again.rc == 0 and changed(again) == {} and boots(lab) == after
