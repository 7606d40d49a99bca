# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands on every node of a converged cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import testinfra
from cluster import NODES, Lab, changed, differences
from clusterlab import machines

LAYERS = ("preflight", "base", "network", "encryption", "storage", "hypervisor", "backup", "telemetry")


@pytest.fixture(scope="module", params=NODES)
def node(request: pytest.FixtureRequest, lab: Lab) -> Any:
    return testinfra.get_host(f"ssh://{request.param}", ssh_config=str(lab.where.ssh_config))


@pytest.mark.parametrize("disk", ["gv0", "gv1", "bmv0"])
def test_a_data_disk_is_luks2_bound_and_open(node: Any, disk: str) -> None:
    device = f"/dev/disk/by-id/virtio-{disk}"
    header = json.loads(node.check_output(f"cryptsetup luksDump --dump-json-metadata {device}"))
    kinds = [token["type"] for token in header["tokens"].values()]
    assert kinds == ["clevis"] and len(header["keyslots"]) == 2
    assert node.file(f"/dev/mapper/luks-{disk}").exists
    assert disk in node.file("/etc/crypttab").content_string


@pytest.mark.parametrize("name", NODES)
def test_the_recovery_passphrase_opens_a_disk(name: str, lab: Lab) -> None:
    secret = (lab.where.secrets / "recovery_passphrase").read_text()
    command = "cryptsetup open --test-passphrase --key-file=- /dev/disk/by-id/virtio-gv0"
    argv = machines.ssh_argv(lab.where, name, command)
    assert subprocess.run(argv, input=secret, text=True, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("mount", ["/srv/gv0", "/srv/gv1", "/srv/bmv0", "/bricks/gv0", "/bricks/gv1"])
def test_a_volume_is_mounted(node: Any, mount: str) -> None:
    kind = node.mount_point(mount).filesystem
    assert kind == ("fuse.glusterfs" if mount.startswith("/srv/gv") else "xfs")


def test_a_brick_has_the_filesystem_that_gluster_needs(node: Any) -> None:
    made = node.check_output("xfs_info /bricks/gv0")
    assert "isize=512" in made and "bsize=8192 " in made.split("naming")[1]
    options = set(node.mount_point("/bricks/gv0").options)
    assert {"noatime", "inode64", "nouuid"} <= options


# Each of them has cost somebody the disks of their machines, or hours in which these stood still.
KEEPS_DISKS_WHOLE = {
    "cluster.choose-local": "off",
    "cluster.lookup-optimize": "off",
    "cluster.quorum-type": "auto",
    "cluster.server-quorum-type": "server",
    "features.shard": "on",
    "features.shard-block-size": "64MB",
    "network.ping-timeout": "20",
    "network.remote-dio": "disable",
    "performance.strict-o-direct": "on",
    "server.ssl": "on",
    "storage.owner-gid": "64055",
    "storage.owner-uid": "64055",
}


def test_the_volume_of_the_guests_keeps_their_disks_whole(lab: Lab) -> None:
    lines = lab.out("node1", "gluster --mode=script volume get gv0 all").splitlines()
    found = dict(line.split()[:2] for line in lines if len(line.split()) > 1)
    assert {name: found[name] for name in KEEPS_DISKS_WHOLE} == KEEPS_DISKS_WHOLE


def test_bricks_and_migrations_do_not_meet(node: Any) -> None:
    bricks = re.findall(r"--brick-port (\d+)", node.check_output("pgrep -a glusterfsd"))
    migrations = re.findall(r"(?m)^migration_port_m\w+ = (\d+)", node.file("/etc/libvirt/qemu.conf").content_string)
    assert len(bricks) == len(migrations) == 2
    assert min(map(int, bricks)) >= 49250 and max(map(int, bricks)) < min(map(int, migrations))


def test_the_address_is_on_the_bridge(node: Any) -> None:
    bridges = node.check_output("ovs-vsctl list-br").split()
    assert {"br0", "wan0", "vlans"} <= set(bridges)
    assert any(address.startswith("10.10.0.") for address in node.interface("br0").addresses)


def test_libvirt_has_the_same_pools_and_networks(node: Any) -> None:
    assert {"br0", "wan0", "vlans"} <= set(node.check_output("virsh net-list --name").split())
    assert {"gv0", "bmv0"} <= set(node.check_output("virsh pool-list --name").split())


@pytest.mark.parametrize(
    "unit", ["glusterd.service", "prometheus-node-exporter.service", "personal-cluster-backup.timer"]
)
def test_a_unit_runs_and_is_enabled(node: Any, unit: str) -> None:
    assert node.service(unit).is_running and node.service(unit).is_enabled


def test_no_unit_failed(node: Any) -> None:
    assert node.check_output("systemctl list-units --failed --no-legend --plain") == ""


def test_volumes_are_replicated_online_and_healed(lab: Lab) -> None:
    for volume in ("gv0", "gv1"):
        info = lab.out("node1", f"gluster --mode=script volume info {volume}")
        assert "Number of Bricks: 1 x 3 = 3" in info and "client.ssl: on" in info and "Status: Started" in info
        heal = lab.out("node1", f"gluster --mode=script volume heal {volume} info summary")
        assert heal.count("Total Number of entries: 0") == 3


def test_no_secret_was_shown_or_left_in_a_log(lab: Lab) -> None:
    secrets = [file.read_text() for file in sorted(lab.where.secrets.iterdir())]
    assert secrets
    shown = lab.log.read_text()
    journals = {name: lab.run(name, "journalctl --no-pager -o cat", limit=300).stdout for name in NODES}
    for secret in [*secrets, "PRIVATE KEY-"]:
        assert secret not in shown, "a secret stands in the output of a playbook"
        for name, journal in journals.items():
            assert journal and secret not in journal, f"a secret stands in the journal of {name}"


@pytest.mark.parametrize("limit", [[], ["--limit", "tang1"]])
def test_a_controller_without_the_authority_makes_no_second_one(lab: Lab, tmp_path: Path, limit: list[str]) -> None:
    trusted = lab.out("node1", "sha256sum /etc/ssl/personal-cluster/*")
    outcome = lab.playbook("base.yml", "-e", f"cluster_state_dir={tmp_path}/elsewhere", *limit)
    assert outcome.rc != 0
    assert "authority is trusted already by node1, node2, node3" in " ".join(outcome.output.split())
    assert not (tmp_path / "elsewhere").exists()
    assert lab.out("node1", "sha256sum /etc/ssl/personal-cluster/*") == trusted


@pytest.mark.long
def test_check_and_diff_are_silent_on_the_converged_cluster(lab: Lab) -> None:
    outcome = lab.playbook("site.yml", "--check", "--diff")
    print("module executions:", outcome.executions(), "layers:", outcome.layers())
    assert outcome.rc == 0 and changed(outcome) == {} and differences(outcome) == []


@pytest.mark.long
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_changes_nothing(lab: Lab, layer: str) -> None:
    outcome = lab.playbook("site.yml", "--tags", layer)
    assert outcome.rc == 0 and changed(outcome) == {}
    assert set(outcome.hosts) & set(NODES), f"--tags {layer} ran nothing"
