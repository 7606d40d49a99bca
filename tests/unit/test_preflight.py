# SPDX-License-Identifier: GPL-3.0-or-later
"""Every refusal of preflight, on what node_info recorded on real nodes."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.personal.cluster.plugins.filter.preflight import (
    judge,
    preflight_findings,
    preflight_report,
    secret_findings,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.node import parse_disks, parse_signatures
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.cluster import (
    BASE_PORT,
    LAST_BRICK_PORT,
    RANGES,
)
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.guests import GUEST
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import Finding

REPOSITORY = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded" / "node_info"
GV0 = "/dev/disk/by-id/virtio-gv0"
GV1 = "/dev/disk/by-id/virtio-gv1"
# As they are written without quotes.
NO_TEXTS = ("0123456701234567", "123456789012", "yes", "1234567890.5", "2026-12-31")
Looked = dict[str, Any]
Settings = dict[str, Any]


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def recorded_lab(name: str) -> Looked:
    """Return what was recorded, and what node_info did not read at that time: addresses, sectors, keys of tang."""
    looked: Looked = recorded(name)
    for label, host in looked.items():
        host["node"]["tang_keys"] = label == "tang1" and "converged" in name
        interfaces = host["node"]["interfaces"]
        for about in interfaces.values():
            lan = about["mac"].endswith(":01") and (about is interfaces.get("br0") or "br0" not in interfaces)
            about["addresses"] = [host["declared"]["address"]] if lan else []
        interfaces["lo"]["addresses"] = ["127.0.0.1", "::1"]
        for disk in host["node"]["disks"].values():
            disk["block_size"] = 512
            if disk["luks"]:
                disk["luks"]["sector_size"] = 512
    return looked


@pytest.fixture(params=["lab-fresh-trixie.json", "lab-converged-trixie.json"])
def any_lab(request: pytest.FixtureRequest) -> Looked:
    return recorded_lab(request.param)


@pytest.fixture
def looked() -> Looked:
    return recorded_lab("lab-fresh-trixie.json")


@pytest.fixture
def settings() -> Settings:
    return {
        "about": [],
        "nodes": ["node1", "node2", "node3"],
        "tang": ["tang1"],
        "tang_servers": ["10.10.0.10:7500"],
        "network": "10.10.0.0/24",
        "gateway": "",
        "dns": [],
        "cluster_name": "lab",
        "state_dir": "/home/alice/.local/share/personal-cluster/lab",
        "bridges": ["br0", "wan0", "vlans"],
        "vlans": [{"name": "blue", "tag": 101}, {"name": "green", "tag": 102}],
        "guests": [],
        "networks": ["br0", "wan0", "vlans"],
        "vlan_bridge": "vlans",
        "pools": [{"name": "gv0"}, {"name": "bmv0"}],
        "volumes": yaml.safe_load((REPOSITORY / "roles/storage/defaults/main.yml").read_text())["storage_volumes"],
        "local_volumes": ["bmv0"],
        "numbers": dict.fromkeys(RANGES),
        "secrets": {"cluster_recovery_passphrase": "correct-horse-battery", "cluster_backup_passphrase": "z" * 24},
        "own_variables": [],
        "migration_ports": [61152, 61215],
        "receivers": {"telemetry_receiver": {}},
        "releases": ["12", "13"],
        "kvm": False,
        "memory_min_mib": 2048,
        "disk_min_bytes": 2**30,
        "clock_limit": 5,
    }


def only(looked: Looked, settings: Settings) -> Finding:
    """Return the one finding; more or fewer are a failure."""
    findings = judge(looked, settings)
    assert len(findings) == 1, findings
    assert findings[0].found
    assert findings[0].remedy
    return findings[0]


def images() -> dict[str, dict[str, Any]]:
    """Real images of disks, as lsblk and wipefs of Debian 12 describe them; luks as read from their headers."""
    disks = parse_disks(
        (RECORDED / "lsblk-bookworm-images.json").read_text(),
        parse_signatures((RECORDED / "wipefs-bookworm-images.json").read_text()),
        recorded("images-bookworm.json"),
    )
    headers = {
        "luks1": {"version": 1, "label": "", "uuid": "u", "clevis": False, "sector_size": 512},
        "luks2": {"version": 2, "label": "other", "uuid": "u", "clevis": False, "sector_size": 512},
    }
    more = {"unreadable": "", "block_size": 512}
    return {name: {**disk, "luks": headers.get(name), **more} for name, disk in disks.items()}


def put(looked: Looked, host: str, disk: dict[str, Any]) -> None:
    """Let what was recorded stand in the place of the host's gv0; the size is the real disk's."""
    there = looked[host]["node"]["disks"]
    there[GV0] = {**disk, "size": there[GV0]["size"], "kernel_name": there[GV0]["kernel_name"]}


def declare(looked: Looked, host: str, volume: str, **more: str) -> None:
    """Let the host have one more disk, blank and in order."""
    disks = looked[host]["node"]["disks"]
    device = f"/dev/disk/by-id/ata-{host}-{len(disks)}"
    looked[host]["declared"]["disks"].append({"device": device, "volume": volume, **more})
    disks[device] = {**disks[GV1], "kernel_name": f"/dev/vdz{len(disks)}"}


def add_node(looked: Looked, settings: Settings, name: str) -> None:
    """Let the cluster have one more node, like node1."""
    number = len(settings["nodes"]) + 1
    text = json.dumps(looked["node1"]).replace("node1", name).replace("52:54:00:ab:01", f"52:54:00:ab:0{number}")
    looked[name] = json.loads(text.replace("10.10.0.11", f"10.10.0.1{number}"))
    settings["nodes"].append(name)


def serve_tang(looked: Looked, problem: str) -> None:
    looked["tang1"]["node"]["listening"].append(7500)
    for host in ("node1", "node2", "node3"):
        looked[host]["node"]["tang_problems"]["10.10.0.10:7500"] = problem


def test_real_nodes_pass(any_lab: Looked, settings: Settings) -> None:
    assert judge(any_lab, settings) == []


# The inventory


@pytest.mark.parametrize("names", [["node1"], ["node1", "node2"], ["node1", "node2", "node3", "node4"]])
def test_too_few_or_an_even_number_of_nodes(looked: Looked, settings: Settings, names: list[str]) -> None:
    settings["nodes"] = names
    finding = only({host: looked[host] for host in looked if host in [*names, "tang1"]}, settings)
    assert (finding.host, finding.variable) == ("cluster", "group nodes")
    assert f"{len(names)} hosts" in finding.found


@pytest.mark.parametrize("name", ["node_1", "Node1", "-node"])
def test_invalid_name(looked: Looked, settings: Settings, name: str) -> None:
    looked[name] = looked.pop("node1")
    looked[name]["node"]["hostname"] = name
    settings["nodes"][0] = name
    assert only(looked, settings).variable == "inventory_hostname"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("", "not set"),
        ("10.10.0", "does not appear to be"),
        ("10.20.0.11", "no host address of cluster_network 10.10.0.0/24"),
        ("10.10.0.255", "no host address"),
    ],
)
def test_unusable_address(looked: Looked, settings: Settings, address: str, found: str) -> None:
    looked["node2"]["declared"]["address"] = address
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_address")
    assert found in finding.found


@pytest.mark.parametrize("name", ["", "  ", None, ["lab"], "two\nlines", "a" * 48])
def test_unusable_name_of_the_cluster(looked: Looked, settings: Settings, name: Any) -> None:
    settings["cluster_name"] = name
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_name")


@pytest.mark.parametrize("directory", ["", " ", "/", None, "//", ["/srv"], "~/x", "$HOME/x", "x"])
def test_state_would_lie_in_the_root_directory(looked: Looked, settings: Settings, directory: Any) -> None:
    settings["state_dir"] = directory
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_state_dir")


@pytest.mark.parametrize("network", ["", "10.10.0.1/24", "lan"])
def test_invalid_network(looked: Looked, settings: Settings, network: str) -> None:
    settings["network"] = network
    assert only(looked, settings).variable == "cluster_network"


@pytest.mark.parametrize("other", ["10.10.0.11", "10.10.0.10"])
def test_address_used_twice(looked: Looked, settings: Settings, other: str) -> None:
    looked["node3"]["declared"]["address"] = other
    finding = judge(looked, settings)[0]
    assert finding.variable == "cluster_address"
    assert other in finding.found


def test_node_that_is_a_tang_host_too(looked: Looked, settings: Settings) -> None:
    """It is looked at once, like any node; how many servers must answer is for the operator to say."""
    settings["tang"].append("node2")
    settings["tang_servers"].append("10.10.0.12:7500")
    looked["node2"]["node"]["memory_mib"] = 1
    findings = judge(looked, settings)
    assert [(finding.host, finding.variable) for finding in findings] == [
        ("cluster", "encryption_tang_threshold"),
        ("node2", "preflight_memory_min_mib"),
    ]
    assert "group tang has nodes (node2)" in findings[0].found
    for host in settings["nodes"]:
        looked[host]["declared"]["tang_threshold"] = 1
    assert only(looked, settings).host == "node2"


@pytest.mark.parametrize("threshold", [0, 2, "two", True, [1]])
def test_threshold_that_cannot_be_met(looked: Looked, settings: Settings, threshold: Any) -> None:
    looked["node2"]["declared"]["tang_threshold"] = threshold
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "encryption_tang_threshold")
    assert "is no whole number from 1 to 1, which is how many tang hosts it asks" in finding.found
    settings["tang"] += ["node1", "node2"]
    settings["tang_servers"] += ["10.10.0.11:7500", "10.10.0.12:7500"]
    for host in settings["nodes"]:
        looked[host]["declared"]["tang_threshold"] = 2
    assert judge(looked, settings) == []
    looked["node2"]["declared"]["tang_threshold"] = looked["node3"]["declared"]["tang_threshold"] = 3
    assert only(looked, settings).host == "node2"


def test_port_that_is_no_number(looked: Looked, settings: Settings) -> None:
    settings["numbers"]["tang_port"] = "seven"
    settings["tang_servers"] = ["10.10.0.10:seven"]
    assert only(looked, settings).variable == "tang_port"


def test_no_tang_host_but_nodes(looked: Looked, settings: Settings) -> None:
    settings.update(tang=settings["nodes"], tang_servers=[f"10.10.0.1{number}:7500" for number in (1, 2, 3)])
    for host in settings["nodes"]:
        looked[host]["declared"]["tang_threshold"] = 2
    del looked["tang1"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "group tang")
    assert "in group nodes, too" in finding.found


def test_address_is_the_gateway(looked: Looked, settings: Settings) -> None:
    settings["gateway"] = "10.10.0.12"
    finding = only(looked, settings)
    assert finding.host == "node2"
    assert "the gateway" in finding.found


@pytest.mark.parametrize(
    ("gateway", "found"),
    [
        ("10.9.9.9", "10.9.9.9 is no host address of cluster_network 10.10.0.0/24"),
        ("10.10.0.0", "is no host address"),
        ("10.10.0.255", "is no host address"),
        ("10.10.0.300", "does not appear to be"),
        ("10.10.0.1/24", "does not appear to be"),
        ("router", "does not appear to be"),
        (["10.10.0.1"], "does not appear to be"),
    ],
)
def test_unusable_gateway(looked: Looked, settings: Settings, gateway: Any, found: str) -> None:
    settings["gateway"] = gateway
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_gateway")
    assert found in finding.found


def test_gateway(looked: Looked, settings: Settings) -> None:
    settings["gateway"] = "10.10.0.1"
    assert judge(looked, settings) == []


@pytest.mark.parametrize("server", ["10.10.0.300", "router.lan", "10.10.0.1/24", "", None])
def test_name_server_that_is_no_address(looked: Looked, settings: Settings, server: Any) -> None:
    settings["dns"] = ["9.9.9.9", server, "2620:fe::fe"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_dns[1]")
    assert repr(server) in finding.found


def test_name_servers_that_are_no_list(looked: Looked, settings: Settings) -> None:
    settings["dns"] = "9.9.9.9"
    assert only(looked, settings).variable == "cluster_dns"


def test_no_disk_declared(looked: Looked, settings: Settings) -> None:
    looked["node1"]["declared"]["disks"] = []
    assert only(looked, settings).variable == "cluster_disks"


@pytest.mark.parametrize("device", ["/dev/vdb", "/dev/disk/by-path/pci-0000:00:08.0", ""])
def test_disk_without_a_stable_name(looked: Looked, settings: Settings, device: str) -> None:
    looked["node2"]["declared"]["disks"][1]["device"] = device
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_disks[1].device")
    assert "stable" in finding.found


def test_disk_without_a_volume(looked: Looked, settings: Settings) -> None:
    for host in settings["nodes"]:
        looked[host]["declared"]["disks"].append({"device": GV1.replace("gv1", "gv9")})
        looked[host]["node"]["disks"][GV1.replace("gv1", "gv9")] = {
            **looked[host]["node"]["disks"][GV1],
            "kernel_name": "/dev/vdz",
        }
    assert {finding.variable for finding in judge(looked, settings)} == {"cluster_disks[3].volume"}


def test_two_disks_with_one_name(looked: Looked, settings: Settings) -> None:
    for disk in looked["node1"]["declared"]["disks"][:2]:
        disk["name"] = "ssd"
    finding = only(looked, settings)
    assert finding.found == "2 disks are named ssd"


@pytest.mark.parametrize(
    "name",
    ["my disk", "a/b", "../x", "\u00e4", "x;reboot", "-a", "_a", "a\nb", "a\n", "gv1#x", "GV0", "a.b", "a" * 43],
)
def test_name_that_no_disk_can_have(looked: Looked, settings: Settings, name: str) -> None:
    looked["node2"]["declared"]["disks"][0]["name"] = name
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_disks[0].name")
    assert repr(name) in finding.found


@pytest.mark.parametrize("name", ["ssd", "gv0-1", "0_b", "a" * 42])
def test_name_of_a_disk(looked: Looked, settings: Settings, name: str) -> None:
    looked["node2"]["declared"]["disks"][0]["name"] = name
    assert judge(looked, settings) == []


def test_disk_with_the_name_of_another_volume(looked: Looked, settings: Settings) -> None:
    """The local disk would be mounted where the Gluster volume belongs."""
    looked["node1"]["declared"]["disks"][0]["name"] = "ssd"
    declare(looked, "node1", "bmv0", name="gv0")
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node1", "cluster_disks[3].name")
    assert finding.found == "gv0 is the name of another volume than the disk's, bmv0"


def test_local_disk_that_would_be_mounted_elsewhere(looked: Looked, settings: Settings) -> None:
    looked["node1"]["declared"]["disks"][2]["name"] = "ssd"
    assert "no disk for bmv0 is named bmv0" in only(looked, settings).found


def test_unknown_key_of_a_disk(looked: Looked, settings: Settings) -> None:
    looked["node1"]["declared"]["disks"][1]["nmae"] = "gv1b"
    assert only(looked, settings).variable == "cluster_disks[1].nmae"


@pytest.mark.parametrize("item", ["/dev/disk/by-id/ata-disk", None, 7, ["gv0"]])
@pytest.mark.parametrize("index", [1, 3])
def test_disk_that_is_no_mapping(looked: Looked, settings: Settings, item: Any, index: int) -> None:
    looked["node1"]["declared"]["disks"][index : index + 1] = [item]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node1", f"cluster_disks[{index}]")
    assert finding.found == f"{item!r} is no mapping"
    assert finding.remedy.startswith("write it as {device: ")


@pytest.mark.parametrize("disks", ["/dev/sdb", {"device": GV0, "volume": "gv0"}, 7])
def test_disks_that_are_no_list(looked: Looked, settings: Settings, disks: Any) -> None:
    looked["node2"]["declared"]["disks"] = disks
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_disks")
    assert finding.found == f"{disks!r} is no list"


@pytest.mark.parametrize("volumes", [None, "gv0", {"gv0": {"replica": 3}}, ["gv0", "gv1"], [None]])
def test_volumes_that_are_no_list_of_mappings(looked: Looked, settings: Settings, volumes: Any) -> None:
    settings["volumes"] = volumes
    findings = judge(looked, settings)
    assert {finding.host for finding in findings} == {"cluster"}
    places = [f"storage_volumes[{index}]" for index in range(len(volumes))] if isinstance(volumes, list) else []
    assert [finding.variable for finding in findings] == (places or ["storage_volumes"])
    expected = "it is left empty" if volumes is None else "is no mapping" if places else f"{volumes!r} is no list"
    assert all(expected in finding.found for finding in findings)


@pytest.mark.parametrize(
    ("more", "variable", "found"),
    [
        ({"optoins": {}}, "[1].optoins", "a volume has no such key"),
        # The module gluster_volume has it, the role has not: the volume would have three copies.
        ({"disperse": 3}, "[1].disperse", "a volume has no such key"),
        ({"replica": "many", "allow": ["replica_change"]}, "[1]", "replica"),
        ({"options": ["cluster.quorum-type"]}, "[1]", "dict"),
        ({"options": None}, "[1].options", "it is left empty"),
        ({"allow": "shrink"}, "[1].allow", "'shrink' is no list"),
        ({"options_purge": "nope"}, "[1]", "bool"),
        ({"name": "gv0"}, "", "2 volumes are named gv0"),
    ],
)
def test_volumes_that_storage_would_not_understand(
    looked: Looked, settings: Settings, more: dict[str, Any], variable: str, found: str
) -> None:
    settings["volumes"] = [{"name": "gv0"}, {"name": "gv1", **more}]
    findings = [finding for finding in judge(looked, settings) if finding.variable == f"storage_volumes{variable}"]
    assert [finding.host for finding in findings] == ["cluster"] and found in findings[0].found


def test_volume_without_a_disk_on_one_node(looked: Looked, settings: Settings) -> None:
    del looked["node3"]["declared"]["disks"][2]
    finding = only(looked, settings)
    assert finding.host == "node3"
    assert "no disk for bmv0" in finding.found


@pytest.mark.parametrize("index", [0, 1, 2])
def test_volume_without_any_disk(looked: Looked, settings: Settings, index: int) -> None:
    for host in settings["nodes"]:
        del looked[host]["declared"]["disks"][index]
    findings = judge(looked, settings)
    assert [(finding.host, finding.variable) for finding in findings] == [
        (host, "cluster_disks") for host in settings["nodes"]
    ]
    assert {finding.found for finding in findings} == {f"there is no disk for {['gv0', 'gv1', 'bmv0'][index]}"}


def test_volume_that_nobody_declares(looked: Looked, settings: Settings) -> None:
    for host in settings["nodes"]:
        declare(looked, host, "gv2")
    findings = judge(looked, settings)
    assert [finding.variable for finding in findings] == ["cluster_disks[3].volume"] * 3
    assert "'gv2'" in findings[0].found and "gv0, gv1, bmv0" in findings[0].remedy
    settings["local_volumes"].append("gv2")
    assert judge(looked, settings) == []


def test_second_disk_on_one_node_only(looked: Looked, settings: Settings) -> None:
    declare(looked, "node2", "gv1", name="gv1b")
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_disks")
    assert "for gv1 do not make sets of 3" in finding.found
    assert "node1 has 1, node2 has 2, node3 has 1" in finding.found


def test_second_disk_on_every_node(looked: Looked, settings: Settings) -> None:
    for host in settings["nodes"]:
        declare(looked, host, "gv1", name="gv1b")
    assert judge(looked, settings) == []


def test_several_local_disks_on_one_node(looked: Looked, settings: Settings) -> None:
    declare(looked, "node2", "bmv0", name="bmv0b")
    assert judge(looked, settings) == []


def test_two_copies_on_one_node(looked: Looked, settings: Settings) -> None:
    for name in ("b", "c", "d"):
        declare(looked, "node3", "gv0", name=name)
    assert "two copies would be on the same node" in only(looked, settings).found


def test_five_nodes_with_one_disk_each_make_no_sets_of_three(looked: Looked, settings: Settings) -> None:
    add_node(looked, settings, "node4")
    add_node(looked, settings, "node5")
    findings = judge(looked, settings)
    assert [finding.variable for finding in findings] == ["cluster_disks", "cluster_disks"]
    assert "each of 3 nodes" in findings[0].remedy


def test_sets_are_not_judged_without_all_nodes(looked: Looked, settings: Settings) -> None:
    declare(looked, "node2", "gv1", name="gv1b")
    del looked["node3"]
    assert judge(looked, settings) == []


@pytest.mark.parametrize("replica", [1, "1", -3])
@pytest.mark.parametrize(("allow", "findings"), [([], 1), (["replica_change"], 0)])
def test_too_few_copies(
    looked: Looked, settings: Settings, replica: int | str, allow: list[str], findings: int
) -> None:
    settings["volumes"] = [{"name": "gv0"}, {"name": "gv1", "replica": replica, "allow": allow}]
    assert [finding.variable for finding in judge(looked, settings)] == ["storage_volumes"] * findings


def test_volume_without_a_usable_name(looked: Looked, settings: Settings) -> None:
    settings["volumes"] = [*settings["volumes"], {"replica": 3}]
    assert "storage_volumes" in {finding.variable for finding in judge(looked, settings)}


def test_sectors_of_different_sizes_in_one_volume(settings: Settings) -> None:
    """What a disk is encrypted with counts, and its own sectors, which encryption makes no smaller."""
    looked = recorded_lab("lab-converged-trixie.json")
    for host in ("node1", "node2", "node3"):
        looked[host]["node"]["disks"][GV0]["luks"]["sector_size"] = 4096
        looked[host]["declared"]["format"] = {"sector_size": 2048}
    assert judge(looked, settings) == [], "each volume may have its own, and no disk is blank"
    looked["node2"]["node"]["disks"][GV0]["luks"]["sector_size"] = 512
    found = only(looked, settings)
    assert (found.host, found.variable) == ("cluster", "encryption_format.sector_size")
    assert "512 bytes: gv0 of node2; 4096 bytes: gv0 of node1, gv0 of node3" in found.found
    looked["node2"]["node"]["disks"][GV0]["block_size"] = 4096
    assert judge(looked, settings) == []


def test_a_blank_disk_that_would_get_other_sectors(settings: Settings) -> None:
    looked = recorded_lab("lab-converged-trixie.json")
    disk = looked["node2"]["node"]["disks"][GV0]
    disk.update(luks=None, signatures=[], holders=[], mounts=[])
    assert judge(looked, settings) == []
    looked["node2"]["declared"]["format"] = {"sector_size": "4096"}
    assert "4096 bytes: gv0 of node2" in only(looked, settings).found
    looked["node2"]["declared"]["format"] = {}
    disk["block_size"] = 4096
    assert "4096 bytes: gv0 of node2" in only(looked, settings).found
    disk["signatures"] = ["xfs"]
    assert "xfs" in only(looked, settings).found, "of a disk that is refused anyway nothing more is said"


@pytest.mark.parametrize("declared", ["4k", [4096], 3000, 0, True, {"a": 1}])
def test_no_size_of_a_sector(looked: Looked, settings: Settings, declared: Any) -> None:
    looked["node1"]["declared"]["format"] = {"sector_size": declared}
    found = judge(looked, settings)
    assert {(one.host, one.variable) for one in found} == {("node1", "encryption_format")}
    assert all("sector_size" in one.found for one in found)


@pytest.mark.parametrize("declared", ["aes", 512, ["sector_size"], {"pbkdf": "md5"}, {"sectors": 512}])
def test_format_that_is_none(looked: Looked, settings: Settings, declared: Any) -> None:
    looked["node1"]["declared"]["format"] = declared
    assert only(looked, settings).variable == "encryption_format"


def test_what_is_wrong_with_others_counts_only_where_they_are_asked_about(looked: Looked, settings: Settings) -> None:
    del looked["node3"]["node"]["disks"][GV1]
    assert only(looked, settings).host == "node3"
    settings["about"] = ["cluster", "node2"]
    assert judge(looked, settings) == []
    looked["node2"]["node"]["disks"][GV0]["block_size"] = 4096
    assert only(looked, settings).host == "cluster"
    looked["node2"]["node"]["disks"][GV0]["read_only"] = True
    assert [finding.host for finding in judge(looked, settings)] == ["cluster", "node2"]


def test_a_silent_server_whose_advertisement_was_kept(settings: Settings) -> None:
    looked = recorded_lab("lab-converged-trixie.json")
    adv = json.loads((RECORDED.parent / "clevis/trixie/adv.json").read_text())
    servers = [{"url": "http://10.10.0.10:7500/", "thp": "a", "adv": adv}, {"url": "http://192.0.2.7", "thp": "b"}]
    for host in ("node1", "node2", "node3"):
        looked[host]["node"]["tang_problems"] = {"10.10.0.10:7500": "no route"}
        looked[host]["declared"]["policy"] = {"tang": servers}
    assert judge(looked, settings) == []
    del servers[0]["adv"]
    assert len(judge(looked, settings)) == 3


def test_playbook_declares_the_volumes_that_storage_makes() -> None:
    """Defaults of a role are not seen by another one; copies of its defaults must not drift apart."""
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / "preflight.yml").read_text())
    default = play["roles"][0]["vars"]["preflight_volumes"]
    volumes = yaml.safe_load((REPOSITORY / "roles/storage/defaults/main.yml").read_text())["storage_volumes"]
    assert default == "{{ storage_volumes | default(%s) }}" % [{"name": volume["name"]} for volume in volumes]
    assert not any("replica" in volume for volume in volumes)


def test_bridge_without_a_network_card(looked: Looked, settings: Settings) -> None:
    del looked["node1"]["declared"]["nics"]["wan0"]
    assert only(looked, settings).variable == "cluster_nics.wan0"


@pytest.mark.parametrize("nics", [["52:54:00:ab:01:01"], "enp0s4", 7])
def test_network_cards_that_are_no_mapping(looked: Looked, settings: Settings, nics: Any) -> None:
    looked["node1"]["declared"]["nics"] = nics
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node1", "cluster_nics")
    assert finding.found == f"{nics!r} is no mapping"
    assert finding.remedy.startswith("write it as {br0: CARD, wan0: CARD, vlans: CARD}")


def test_network_cards_left_empty(looked: Looked, settings: Settings) -> None:
    looked["node1"]["declared"]["nics"] = None
    assert [finding.variable for finding in judge(looked, settings)] == [
        f"cluster_nics.{bridge}" for bridge in settings["bridges"]
    ]


def test_card_for_a_bridge_that_nobody_asks_for(looked: Looked, settings: Settings) -> None:
    """The network layer makes a bridge for every key."""
    looked["node1"]["declared"]["nics"]["wan"] = "enp0s3"
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node1", "cluster_nics.wan")
    assert "br0, wan0, vlans" in finding.remedy
    settings["networks"].append("wan")
    assert judge(looked, settings) == []


@pytest.mark.parametrize("text", ["11:22:33:44:55:16", "1234"])
def test_mac_address_that_yaml_takes_for_a_number(looked: Looked, settings: Settings, text: str) -> None:
    number = looked["node1"]["declared"]["nics"]["wan0"] = yaml.safe_load(text)
    assert isinstance(number, int)
    finding = only(looked, settings)
    assert finding.variable == "cluster_nics.wan0"
    assert "a number is declared" in finding.found
    assert "in quotes" in finding.remedy


def test_one_network_card_for_two_bridges(looked: Looked, settings: Settings) -> None:
    nics = looked["node1"]["declared"]["nics"]
    nics["wan0"] = nics["br0"].upper()
    assert [finding.variable for finding in judge(looked, settings)] == ["cluster_nics", "cluster_nics.wan0"]


@pytest.mark.parametrize("tag", [0, 4095, "101", None, True])
def test_invalid_vlan_tag(looked: Looked, settings: Settings, tag: Any) -> None:
    settings["vlans"][0]["tag"] = tag
    finding = only(looked, settings)
    assert finding.variable == "cluster_vlans[0].tag"
    assert finding.found == f"{tag!r} is no VLAN tag"
    assert "without quotes" in finding.remedy


@pytest.mark.parametrize("name", [None, "", " ", "two\nlines", ["a"]])
def test_vlan_without_a_name(looked: Looked, settings: Settings, name: Any) -> None:
    settings["vlans"][1]["name"] = name
    assert only(looked, settings).variable == "cluster_vlans[1].name"
    del settings["vlans"][1]["name"]
    assert only(looked, settings).variable == "cluster_vlans[1].name"


@pytest.mark.parametrize("vlan", ["blue", 101, None, ["blue", 101]])
def test_vlan_that_is_none(looked: Looked, settings: Settings, vlan: Any) -> None:
    settings["vlans"][0] = vlan
    for host in settings["nodes"]:
        looked[host]["declared"]["vlans"] = settings["vlans"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "cluster_vlans[0]")
    assert repr(vlan) in finding.found


def test_vlans_left_empty(looked: Looked, settings: Settings) -> None:
    settings["vlans"] = looked["node1"]["declared"]["vlans"] = None
    assert judge(looked, settings) == []


@pytest.mark.parametrize("vlans", ["blue", {"blue": 101}])
def test_vlans_that_are_no_list(looked: Looked, settings: Settings, vlans: Any) -> None:
    settings["vlans"] = vlans
    looked["node1"]["declared"]["vlans"] = vlans
    assert only(looked, settings).variable == "cluster_vlans"


def test_unknown_key_of_a_vlan(looked: Looked, settings: Settings) -> None:
    settings["vlans"][0]["adress"] = "10.20.0.1/24"
    assert only(looked, settings).variable == "cluster_vlans[0].adress"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("10.20.0.300/24", "does not appear to be"),
        ("10.20.0.11", "it has no prefix length"),
        ("10.20.0.11/33", "does not appear to be"),
        ("10.20.0.0/24", "is no host address"),
        ("10.20.0.255/24", "is no host address"),
        (["10.20.0.11/24"], "does not appear to be"),
    ],
)
def test_unusable_address_in_a_vlan(looked: Looked, settings: Settings, address: Any, found: str) -> None:
    looked["node2"]["declared"]["vlans"] = [settings["vlans"][0], {**settings["vlans"][1], "address": address}]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_vlans[1].address")
    assert found in finding.found


def test_addresses_in_a_vlan(looked: Looked, settings: Settings) -> None:
    for number, host in enumerate(settings["nodes"], start=1):
        looked[host]["declared"]["vlans"] = [{**settings["vlans"][0], "address": f"10.20.0.{number}/24"}]
    assert judge(looked, settings) == []


def test_one_address_in_a_vlan_for_two_nodes(looked: Looked, settings: Settings) -> None:
    settings["vlans"][0]["address"] = "10.20.0.1/24"
    for host in settings["nodes"]:
        looked[host]["declared"]["vlans"] = settings["vlans"]
    findings = judge(looked, settings)
    assert [(finding.host, finding.variable) for finding in findings] == [
        ("node2", "cluster_vlans[0].address"),
        ("node3", "cluster_vlans[0].address"),
    ]
    assert findings[0].found == "10.20.0.1 belongs to node1 already"


def test_a_vlan_cannot_take_the_name_of_the_portgroup_of_all(looked: Looked, settings: Settings) -> None:
    settings["vlans"][0]["name"] = "trunk"
    assert only(looked, settings).variable == "cluster_vlans[0].name"


@pytest.mark.parametrize("key", ["name", "tag"])
def test_vlan_declared_twice(looked: Looked, settings: Settings, key: str) -> None:
    settings["vlans"][1][key] = settings["vlans"][0][key]
    assert f"{key} {settings['vlans'][0][key]} is used 2 times" in only(looked, settings).found


@pytest.mark.parametrize("value", [500, 101, 0, -1, "500", "many", 85.5, True, [85]])
def test_percentage_that_is_none(looked: Looked, settings: Settings, value: Any) -> None:
    settings["numbers"]["storage_volume_percent"] = value
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "storage_volume_percent")
    assert finding.found == f"{value!r} is no whole number from 1 to 100"


@pytest.mark.parametrize("value", [1, 100, "85"])
def test_percentage(looked: Looked, settings: Settings, value: Any) -> None:
    settings["numbers"]["storage_volume_percent"] = value
    assert judge(looked, settings) == []


def test_a_filesystem_as_large_as_its_disk(looked: Looked, settings: Settings) -> None:
    settings["numbers"] |= {"storage_pool_percent": 100, "storage_volume_percent": "100"}
    assert only(looked, settings).variable == "storage_pool_percent and storage_volume_percent"
    settings["numbers"]["storage_pool_percent"] = 99
    assert judge(looked, settings) == []


@pytest.mark.parametrize("variable", RANGES)
def test_number_out_of_range(looked: Looked, settings: Settings, variable: str) -> None:
    for limit, beyond in zip(RANGES[variable], (-1, 1), strict=True):
        settings["numbers"][variable] = limit
        assert judge(looked, settings) == []
        settings["numbers"][variable] = limit + beyond
        assert only(looked, settings).variable == variable


def test_playbook_passes_every_number_that_has_a_range(looked: Looked, settings: Settings) -> None:
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / "preflight.yml").read_text())
    passed = play["roles"][0]["vars"]["preflight_numbers"]
    assert passed == {variable: f"{{{{ {variable} | default(none) }}}}" for variable in RANGES}
    for variable in RANGES:
        defaults = REPOSITORY / "roles" / variable.split("_")[0] / "defaults" / "main.yml"
        settings["numbers"][variable] = yaml.safe_load(defaults.read_text())[variable]
    assert judge(looked, settings) == []


def test_a_threshold_at_which_nothing_is_extended(looked: Looked, settings: Settings) -> None:
    settings["numbers"]["storage_autoextend_threshold"] = 100
    assert only(looked, settings).variable == "storage_autoextend_threshold"


@pytest.mark.parametrize(
    ("base", "ports", "meet"),
    [
        (None, [61152, 61215], False),
        (None, [49152, 49215], False),
        (None, [49152, 49250], True),
        (None, ["60999", 61100], True),
        (49215, [49152, 49215], True),
        ("49216", [49152, 49215], False),
        (1024, [49152, 49215], True),
        (60900, [61000, 61063], False),
    ],
)
def test_bricks_and_migrations_have_ports_of_their_own(
    looked: Looked, settings: Settings, base: Any, ports: list[Any], meet: bool
) -> None:
    settings["numbers"]["storage_base_port"] = base
    settings["migration_ports"] = ports
    findings = judge(looked, settings)
    names = ["storage_base_port and hypervisor_migration_ports"]
    assert [finding.variable for finding in findings] == (names if meet else [])


@pytest.mark.parametrize("ports", [None, 61152, [61152], [61215, 61152], ["a", "b"], [61152, 61153, 61154], [0, 70000]])
def test_ports_of_migrations_that_are_no_pair(looked: Looked, settings: Settings, ports: Any) -> None:
    settings["migration_ports"] = ports
    assert only(looked, settings).variable == "hypervisor_migration_ports"


def test_preflight_knows_the_ports_of_the_roles() -> None:
    """Defaults of a role are not seen by another one; copies of its defaults must not drift apart."""
    roles = REPOSITORY / "roles"
    defaults = {
        name: yaml.safe_load((roles / name / "defaults/main.yml").read_text())
        for name in ("storage", "hypervisor", "preflight")
    }
    ports = defaults["hypervisor"]["hypervisor_migration_ports"]
    assert defaults["preflight"]["preflight_migration_ports"] == ports
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / "preflight.yml").read_text())
    passed = play["roles"][0]["vars"]["preflight_migration_ports"]
    assert passed == f"{{{{ hypervisor_migration_ports | default({ports}) }}}}"
    assert defaults["storage"]["storage_base_port"] == BASE_PORT
    assert f"option max-port {LAST_BRICK_PORT}\n" in (roles / "storage/templates/glusterd.vol.j2").read_text()


@pytest.mark.parametrize("variable", ["cluster_recovery_passphrase", "cluster_backup_passphrase"])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (None, "empty"),
        ("CHANGE-ME-please", "placeholder"),
        ("<put yours here>", "placeholder"),
        ("tr0ub4dor", "shorter"),
        ("two lines of\ntext", "more than one line"),
        *((yaml.safe_load(text), "without quotes") for text in NO_TEXTS),
    ],
)
def test_secret(looked: Looked, settings: Settings, variable: str, value: Any, found: str) -> None:
    settings["secrets"][variable] = value
    finding = only(looked, settings)
    assert finding.variable == variable
    assert found in finding.found
    assert "`ansible-vault edit " in finding.remedy
    assert ("in quotes" in finding.remedy) == ("without quotes" in finding.found)
    shown = str(value or "").strip()
    assert not shown or shown not in preflight_report(preflight_findings(looked, settings))
    assert secret_findings({variable: value}) == [dataclasses.asdict(finding)]


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        (
            "cluster_recovery_passphrase",
            "cluster_backup_passphrase",
            "who steals a node has cluster_recovery_passphrase",
        ),
        ("cluster_backup_passphrase", "cluster_escrow_passphrase", "who steals a node has cluster_escrow_passphrase"),
        ("cluster_recovery_passphrase", "telemetry_grafana_admin_password", "a node has cluster_recovery_passphrase"),
        ("cluster_recovery_passphrase", "cluster_escrow_passphrase", "who learns one has both"),
        ("cluster_recovery_passphrase", "encryption_recovery_key", "who learns one has both"),
    ],
)
def test_two_secrets_that_are_one(looked: Looked, settings: Settings, one: str, two: str, why: str) -> None:
    settings["secrets"] |= {one: "equal-to-another", two: "equal-to-another"}
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", f"{one} and {two}")
    assert why in finding.found and "equal-to-another" not in preflight_report(preflight_findings(looked, settings))
    assert secret_findings(settings["secrets"]) == [dataclasses.asdict(finding)]
    settings["secrets"][two] = "not equal to it"
    assert judge(looked, settings) == []


@pytest.mark.parametrize("text", NO_TEXTS)
def test_secret_of_a_receiver(looked: Looked, settings: Settings, text: str) -> None:
    mail = {"to": "alice@example.org", "require_tls": False, "auth_password": "123"}
    receiver = {"email_configs": [mail], "telegram_configs": [{"chat_id": 7, "bot_token": "1:a"}]}
    settings["receivers"] = {"telemetry_receiver": receiver}
    assert judge(looked, settings) == []
    mail["auth_password"] = yaml.safe_load(text)
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "telemetry_receiver.email_configs[0].auth_password")
    assert "in quotes" in finding.remedy


# Names of variables

MISSPELT = {
    "encryption_tang_treshold": "encryption_tang_threshold",
    "cluster_gatway": "cluster_gateway",
    "backup_keep_dayly": "backup_keep_daily",
    "telemetry_reciever": "telemetry_receiver",
    "cluster_recovery_passphrase_": "cluster_recovery_passphrase",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_misspelt_variable(looked: Looked, settings: Settings, name: str) -> None:
    for host in looked.values():
        host["declared"]["variables"] = [name, "ansible_host", "groups"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", name)
    assert finding.remedy.startswith(f"did you mean {MISSPELT[name]}? ")
    looked["node3"]["declared"]["variables"] = []
    assert [one.host for one in judge(looked, settings)] == ["node1", "node2", "tang1"]
    settings["own_variables"] = [name]
    assert judge(looked, settings) == []


def test_variable_that_is_like_none(looked: Looked, settings: Settings) -> None:
    looked["node2"]["declared"]["variables"] = [
        "cluster_xyzzy_quux_0815",
        "mail_password",
        "networking",
        "lab_cluster_x",
    ]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_xyzzy_quux_0815")
    assert finding.remedy.startswith("A variable of your own")


def inventory_variables() -> set[str]:
    """Return the names of all variables that the inventories here have, those of the comments too."""
    texts = [path.read_text() for path in (REPOSITORY / "inventories").rglob("*.yml")]
    return {name for text in texts for name in re.findall(r"^(?:# |  +)?([a-z]\w+):", text, re.M)}


def passed_variables() -> set[str]:
    """Return the names of all variables that playbooks pass on."""
    plays = [play for path in (REPOSITORY / "playbooks").glob("*.yml") for play in yaml.safe_load(path.read_text())]
    roles = [role for play in plays for role in play.get("roles", ())]
    files = [yaml.safe_load(path.read_text()) for path in (REPOSITORY / "playbooks/vars").glob("*.yml")]
    return {name for part in (*plays, *roles) for name in part.get("vars", {})}.union(*files)


def test_no_variable_of_ours_is_taken_for_misspelt(looked: Looked, settings: Settings) -> None:
    variables = inventory_variables() | passed_variables() | {"tang_thumbprint", "preflight_own_variables"}
    for path in (REPOSITORY / "roles").glob("*/defaults/main.yml"):
        variables |= set(yaml.safe_load(path.read_text()) or {})
    assert {"cluster_gateway", "telemetry_receiver", "storage_rebalance", "encryption_replaced"} <= variables
    looked["node1"]["declared"]["variables"] = sorted(variables)
    assert judge(looked, settings) == []


# The guests


def guest(**more: Any) -> dict[str, Any]:
    return {
        "name": "web",
        "node": "node1",
        "memory": "4G",
        "vcpus": 2,
        "disks": [
            {"pool": "gv0", "size": "20G"},
            {"device": "cdrom", "target": "sda", "bus": "sata", "path": "/a.iso"},
        ],
        "nics": [{"network": "br0"}, {"network": "vlans", "vlan": "blue"}, {"network": "vlans", "vlan": "trunk"}],
        **more,
    }


def test_guests(looked: Looked, settings: Settings) -> None:
    settings["guests"] = [guest(), guest(name="db", vcpus="2", autostart="yes"), {"name": "small", "node": "node3"}]
    assert judge(looked, settings) == []
    settings["guests"] = None
    assert judge(looked, settings) == []


def test_guest_of_the_readme(looked: Looked, settings: Settings) -> None:
    (example,) = re.findall(r"^cluster_guests:\n(?: .*\n)+", (REPOSITORY / "README.md").read_text(), re.M)
    settings["guests"] = yaml.safe_load(example)["cluster_guests"]
    assert len(settings["guests"]) == 1 and judge(looked, settings) == []


@pytest.mark.parametrize(
    ("more", "place", "found"),
    [
        ({"vcpu": 2}, ".vcpu", "a guest has no such key"),
        ({"node": "node9"}, ".node", "'node9' is no host of group nodes"),
        ({"node": None}, ".node", "it is not set"),
        ({"name": ""}, ".name", "'' is no name"),
        ({"name": None}, ".name", "None is no name"),
        ({"name": "a/b"}, ".name", "'a/b' is no name"),
        ({"memory": "4 gigs"}, ".memory", "'4 gigs' is not a size"),
        ({"vcpus": "two"}, "", "argument 'vcpus' is of type"),
        ({"state": "runing"}, "", "got: runing"),
        ({"disks": {"pool": "gv0"}}, ".disks", "is no list"),
        ({"disks": None}, ".disks", "it is left empty"),
        ({"graphics": None}, ".graphics", "it is left empty"),
        ({"disks": ["gv0"]}, ".disks[0]", "'gv0' is no mapping"),
        ({"disks": [{"pool": "gv0", "size": "9G"}, {"pool": "gv0", "sise": "9G"}]}, ".disks[1].sise", "a disk has no"),
        ({"disks": [{"pool": "gv7", "size": "9G"}]}, ".disks[0].pool", "'gv7' is no pool"),
        ({"disks": [{"pool": "gv0", "size": "9 Go"}]}, ".disks[0].size", "'9 Go' is not a size"),
        ({"disks": [{"size": "9G"}]}, ".disks[0]", "one of the following is required: pool, path"),
        ({"disks": [{"pool": "gv0", "path": "/a"}]}, ".disks[0]", "mutually exclusive: pool|path"),
        ({"nics": "br0"}, ".nics", "'br0' is no list"),
        ({"nics": [{"network": "br0", "vlans": "blue"}]}, ".nics[0].vlans", "a network card has no such key"),
        ({"nics": [{"network": "lan"}]}, ".nics[0].network", "'lan' is no network"),
        ({"nics": [{"vlan": "blue"}]}, ".nics[0].network", "it is not set"),
        ({"nics": [{"network": "vlans", "vlan": "bleu"}]}, ".nics[0].vlan", "'bleu' is no VLAN"),
        ({"nics": [{"network": "vlans"}]}, ".nics[0].vlan", "it is not set"),
        ({"nics": [{"network": "br0", "vlan": "blue"}]}, ".nics[0].vlan", "br0 has no VLANs"),
    ],
)
def test_guest_that_would_stop_the_build(
    looked: Looked, settings: Settings, more: dict[str, Any], place: str, found: str
) -> None:
    settings["guests"] = [guest(name="other"), guest(**more)]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", f"cluster_guests[1]{place}")
    assert found in finding.found


@pytest.mark.parametrize("guests", ["web", {"web": {"node": "node1"}}, ["web"], [None]])
def test_guests_that_are_no_list_of_mappings(looked: Looked, settings: Settings, guests: Any) -> None:
    settings["guests"] = guests
    assert only(looked, settings).variable == ("cluster_guests[0]" if isinstance(guests, list) else "cluster_guests")


def test_two_guests_with_one_name(looked: Looked, settings: Settings) -> None:
    settings["guests"] = [guest(), guest(node="node2")]
    assert only(looked, settings).found == "2 guests are named web"


def test_guest_that_goes_needs_no_node_that_is_there(looked: Looked, settings: Settings) -> None:
    settings["guests"] = [guest(node="node9", state="absent")]
    assert judge(looked, settings) == []


def test_guest_where_there_is_no_node(looked: Looked, settings: Settings) -> None:
    settings.update(nodes=[], guests=[guest()])
    (finding,) = [
        one for one in judge({"tang1": looked["tang1"]}, settings) if one.variable == "cluster_guests[0].node"
    ]
    assert finding.remedy == "name one; the inventory group `nodes` has them, and it is empty"


def test_of_vlans_nothing_is_told_where_no_node_is_looked_at(looked: Looked, settings: Settings) -> None:
    settings.update(guests=[guest()], vlans=[])
    assert judge({"tang1": looked["tang1"]}, settings) == []


def test_what_is_wrong_with_the_vlans_is_not_told_again_for_each_guest(looked: Looked, settings: Settings) -> None:
    settings.update(guests=[guest()], vlans={"blue": 101})
    assert only(looked, settings).variable == "cluster_vlans"


def test_playbook_knows_the_networks_and_pools_that_hypervisor_makes() -> None:
    """Defaults of a role are not seen by another one; copies of its defaults must not drift apart."""
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / "preflight.yml").read_text())
    passed = play["roles"][0]["vars"]
    defaults = yaml.safe_load((REPOSITORY / "roles/hypervisor/defaults/main.yml").read_text())
    networks, bridge = defaults["hypervisor_bridges"], defaults["hypervisor_vlan_bridge"]
    pools = [{"name": pool["name"]} for pool in defaults["hypervisor_pools"]]
    assert passed["preflight_networks"] == f"{{{{ hypervisor_bridges | default({networks}) }}}}"
    assert passed["preflight_vlan_bridge"] == f"{{{{ hypervisor_vlan_bridge | default({bridge!r}) }}}}"
    assert passed["preflight_pools"] == f"{{{{ hypervisor_pools | default({pools}) }}}}"


def test_a_guest_takes_what_virt_domain_takes() -> None:
    """Preflight asks the module's specification, since the role's own has no options of disks and cards."""
    specs = yaml.safe_load((REPOSITORY / "roles/hypervisor/meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]["hypervisor_guests"]["options"]
    assert set(GUEST) == set(options)


# The hosts


def test_unreachable_host_is_one_finding_among_others(looked: Looked, settings: Settings) -> None:
    looked["node2"] = {"declared": looked["node2"]["declared"], "problem": "it cannot be reached: No route to host"}
    looked["node3"]["node"]["memory_mib"] = 1024
    assert "--ask-vault-pass" in judge(looked, settings)[0].remedy
    assert [(finding.host, finding.variable) for finding in judge(looked, settings)] == [
        ("node2", "ansible_host"),
        ("node3", "preflight_memory_min_mib"),
    ]


def test_not_root(looked: Looked, settings: Settings) -> None:
    looked["node1"]["node"]["root"] = False
    assert only(looked, settings).variable == "ansible_become"


def test_no_apt_bindings(looked: Looked, settings: Settings) -> None:
    looked["tang1"]["node"]["python_apt"] = False
    finding = only(looked, settings)
    assert finding.host == "tang1"
    assert "python3-apt" in finding.remedy


def test_a_pool_without_tls_is_not_cut_off(looked: Looked, settings: Settings) -> None:
    looked["node2"]["node"]["plain_volumes"] = ["gv0", "other"]
    finding = only(looked, settings)
    assert finding.host == "node2" and "without TLS has the volumes gv0, other" in finding.found
    assert "secure-access" in finding.remedy


@pytest.mark.parametrize(("distribution", "version"), [("debian", "11"), ("ubuntu", "13"), ("debian", "")])
def test_unsupported_release(looked: Looked, settings: Settings, distribution: str, version: str) -> None:
    looked["tang1"]["node"]["release"].update(id=distribution, version_id=version)
    assert only(looked, settings).variable == "preflight_releases"


def test_different_releases(looked: Looked, settings: Settings) -> None:
    looked["node2"]["node"]["release"]["version_id"] = "12"
    finding = only(looked, settings)
    assert finding.host == "node2"
    assert finding.found == "it runs Debian 12, most nodes run 13"


def test_tang_host_may_run_another_release(looked: Looked, settings: Settings) -> None:
    looked["tang1"]["node"]["release"]["version_id"] = "12"
    assert judge(looked, settings) == []


def test_host_calls_itself_otherwise(looked: Looked, settings: Settings) -> None:
    looked["node3"]["node"]["hostname"] = "debian"
    finding = only(looked, settings)
    assert finding.variable == "inventory_hostname"
    assert "hostnamectl set-hostname node3" in finding.remedy


def test_too_little_memory(looked: Looked, settings: Settings) -> None:
    looked["node1"]["node"]["memory_mib"] = 1990
    assert only(looked, settings).found.startswith("1990 MiB")


def test_no_virtualisation_where_it_is_asked_for(looked: Looked, settings: Settings) -> None:
    looked["node1"]["node"]["kvm"] = False
    assert judge(looked, settings) == []
    settings["kvm"] = True
    assert only(looked, settings).variable == "cluster_domain_type"


@pytest.mark.parametrize(("low", "high", "side"), [(61.2, 62.0, "ahead of"), (-62.0, -61.2, "behind")])
def test_clock_is_wrong(looked: Looked, settings: Settings, low: float, high: float, side: str) -> None:
    looked["node2"]["clock_offset"] = {"low": low, "high": high}
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "preflight_clock_limit")
    assert f"at least 61 s {side}" in finding.found


def test_slow_answer_does_not_make_a_clock_wrong(looked: Looked, settings: Settings) -> None:
    looked["node2"]["clock_offset"] = {"low": -40.0, "high": 4.0}
    assert judge(looked, settings) == []


def test_clocks_apart_from_each_other(looked: Looked, settings: Settings) -> None:
    for host in looked:
        looked[host]["clock_offset"] = {"low": 0.0, "high": 1.0}
    looked["node1"]["clock_offset"] = {"low": -5.0, "high": -4.5}
    looked["node2"]["clock_offset"] = {"low": 3.9, "high": 4.5}
    finding = only(looked, settings)
    assert finding.host == "node2"
    assert "at least 8 s away from that of node1" in finding.found


# Disks


def test_missing_disk(looked: Looked, settings: Settings) -> None:
    del looked["node1"]["node"]["disks"][GV1]
    finding = only(looked, settings)
    assert finding.variable == "cluster_disks[1].device"
    assert finding.found == f"{GV1} does not exist there"


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("xfs", "it holds xfs"),
        ("gpt", "it holds PMBR, gpt"),
        ("lvm", "it holds LVM2_member"),
        ("swap", "it holds swap"),
        ("ext4", "it holds ext4"),
        ("luks1", "it holds LUKS1"),
        ("luks2", "it holds a LUKS2 device with the label other that is not bound to tang, not luks-gv0"),
    ],
)
def test_disk_that_is_neither_blank_nor_ours(looked: Looked, settings: Settings, image: str, found: str) -> None:
    put(looked, "node3", images()[image])
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node3", "cluster_disks[0].device")
    assert finding.found.endswith(f"is neither blank nor a disk of this cluster: {found}")
    assert f"wipefs --all {GV0}" in finding.remedy


def test_blank_image_is_blank(looked: Looked, settings: Settings) -> None:
    put(looked, "node3", images()["blank"])
    assert judge(looked, settings) == []


def test_disk_in_use_without_a_signature(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["blank"], "holders": ["/dev/md0"]})
    assert only(looked, settings).found.endswith("it is in use by /dev/md0")


def test_mounted_disk(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["blank"], "mounts": ["/srv"]})
    assert only(looked, settings).found.endswith("it is mounted at /srv")


def test_luks_open_under_another_name(looked: Looked, settings: Settings) -> None:
    ours = {"version": 2, "label": "luks-gv0", "uuid": "u", "clevis": True, "sector_size": 512}
    put(looked, "node1", {**images()["luks2"], "luks": ours, "holders": ["/dev/mapper/data"]})
    serve_tang(looked, "")
    assert only(looked, settings).found.endswith("it is in use by /dev/mapper/data")


@pytest.mark.parametrize(
    ("luks", "holders"),
    [
        ({"label": "luks-gv0", "clevis": False}, []),
        ({"label": "", "clevis": True}, []),
        ({"label": "", "clevis": False}, ["/dev/mapper/luks-gv0", "/dev/mapper/vg_gv0-data"]),
    ],
)
def test_disk_that_is_ours(looked: Looked, settings: Settings, luks: dict[str, Any], holders: list[str]) -> None:
    put(looked, "node1", {**images()["luks2"], "luks": {**images()["luks2"]["luks"], **luks}, "holders": holders})
    serve_tang(looked, "")
    assert judge(looked, settings) == []


@pytest.mark.parametrize("clevis", [True, False])
def test_disks_that_changed_places(looked: Looked, settings: Settings, clevis: bool) -> None:
    """Both are of this cluster, and each would be taken for the other; nobody is told to erase them."""
    for device, label in ((GV0, "luks-gv1"), (GV1, "luks-gv0")):
        disk = looked["node1"]["node"]["disks"][device]
        luks = {"version": 2, "label": label, "uuid": "u", "clevis": clevis, "sector_size": 512}
        disk.update(signatures=["crypto_LUKS"], luks=luks)
    serve_tang(looked, "")
    findings = judge(looked, settings)
    assert [(finding.host, finding.variable) for finding in findings] == [
        ("node1", "cluster_disks[0].device"),
        ("node1", "cluster_disks[1].device"),
    ]
    assert findings[0].found.endswith("it is labelled luks-gv1, and gv0 is declared")
    assert "wipefs" not in findings[0].remedy + findings[1].remedy


def test_disk_that_is_open_under_the_name_of_another(looked: Looked, settings: Settings) -> None:
    wrong = {"version": 2, "label": "luks-gv1", "uuid": "u", "clevis": True, "sector_size": 512}
    put(looked, "node1", {**images()["luks2"], "luks": wrong, "holders": ["/dev/mapper/luks-gv0"]})
    serve_tang(looked, "")
    assert "labelled luks-gv1" in only(looked, settings).found


def test_disk_of_the_running_system(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["ext4"], "mounts": ["/", "/boot"]})
    assert only(looked, settings).found.endswith("carries the running system")


def test_partition(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["blank"], "type": "part"})
    assert only(looked, settings).found.endswith("is a partition")


def test_unreadable_disk(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["blank"], "unreadable": "Input/output error"})
    assert "cannot be read: Input/output error" in only(looked, settings).found


def test_read_only_disk(looked: Looked, settings: Settings) -> None:
    put(looked, "node1", {**images()["blank"], "read_only": True})
    assert only(looked, settings).found.endswith("is read-only")


def test_disk_too_small(looked: Looked, settings: Settings) -> None:
    looked["node1"]["node"]["disks"][GV0]["size"] = 2**29
    assert "0.5 GiB, 1.0 GiB are needed" in only(looked, settings).found


def test_one_disk_under_two_names(looked: Looked, settings: Settings) -> None:
    disks = looked["node1"]["node"]["disks"]
    disks[GV1] = copy.deepcopy(disks[GV0])
    finding = only(looked, settings)
    assert finding.variable == "cluster_disks[1].device"
    assert "is the same disk as cluster_disks[0]" in finding.found


# Network cards


@pytest.mark.parametrize("nic", ["52:54:00:ff:ff:ff", "enp9s9", "lo"])
def test_missing_network_card(looked: Looked, settings: Settings, nic: str) -> None:
    looked["node2"]["declared"]["nics"]["vlans"] = nic
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_nics.vlans")
    assert "52:54:00:ab:02:03" in finding.remedy


def test_network_card_by_name_or_upper_case(looked: Looked, settings: Settings) -> None:
    nics = looked["node1"]["declared"]["nics"]
    nics["br0"] = "enp0s4"
    nics["wan0"] = nics["wan0"].upper()
    assert judge(looked, settings) == []


def test_same_network_card_by_name_and_by_address(looked: Looked, settings: Settings) -> None:
    looked["node1"]["declared"]["nics"]["wan0"] = "enp0s4"
    finding = only(looked, settings)
    assert finding.variable == "cluster_nics.wan0"
    assert "enp0s4, which br0 has already" in finding.found


def test_a_bridge_takes_one_network_card(looked: Looked, settings: Settings) -> None:
    nics = looked["node1"]["declared"]["nics"]
    nics["br0"] = [nics["br0"], nics.pop("wan0")]
    settings["bridges"] = ["br0", "vlans"]
    finding = only(looked, settings)
    assert finding.variable == "cluster_nics.br0" and "a list" in finding.found


@pytest.mark.parametrize("card", [{"name": "enp0s4"}, True])
def test_card_that_is_none(looked: Looked, settings: Settings, card: Any) -> None:
    looked["node1"]["declared"]["nics"]["br0"] = card
    assert only(looked, settings).found == f"{card!r} is no network card"


def test_address_that_is_on_no_interface(looked: Looked, settings: Settings) -> None:
    for host, card in (("node2", "enp0s5"), ("tang1", "enp0s4")):
        looked[host]["node"]["interfaces"][card]["addresses"] = ["10.10.0.99"]
    findings = judge(looked, settings)
    assert [(finding.host, finding.variable) for finding in findings] == [
        ("node2", "cluster_address"),
        ("tang1", "cluster_address"),
    ]
    assert findings[0].found == "no interface has 10.10.0.12; there are: enp0s5 10.10.0.99"


@pytest.mark.parametrize("card", ["52:54:00:AB:02:02", "enp0s6"])
def test_address_that_is_on_another_card_than_that_of_br0(looked: Looked, settings: Settings, card: str) -> None:
    """The network layer takes the address from the declared card; from this one it would not."""
    nics = looked["node2"]["declared"]["nics"]
    nics["br0"], nics["wan0"] = card, nics["br0"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "cluster_nics.br0")
    assert finding.found == f"10.10.0.12 is on enp0s5 52:54:00:ab:02:01, and {card.lower()} is declared"


def test_address_that_is_on_a_bridge_of_the_operator_is_no_finding(looked: Looked, settings: Settings) -> None:
    interfaces = looked["node2"]["node"]["interfaces"]
    interfaces["lan"] = {"mac": "52:54:00:ab:02:01", "physical": False, "addresses": ["10.10.0.12"]}
    interfaces["enp0s5"]["addresses"] = []
    assert judge(looked, settings) == []


def test_br0_that_lost_its_address_is_left_to_the_network_layer(settings: Settings) -> None:
    looked = recorded_lab("lab-converged-trixie.json")
    looked["node2"]["node"]["interfaces"]["br0"]["addresses"] = []
    assert judge(looked, settings) == []


# Tang


def test_tang_does_not_answer_one_node(looked: Looked, settings: Settings) -> None:
    serve_tang(looked, "")
    looked["node3"]["node"]["tang_problems"]["10.10.0.10:7500"] = "timed out"
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node3", "group tang")
    assert finding.found == "tang at 10.10.0.10:7500 does not answer: timed out"


def test_tang_that_is_not_set_up_yet_is_no_finding(looked: Looked, settings: Settings) -> None:
    assert looked["node1"]["node"]["tang_problems"]["10.10.0.10:7500"]
    assert judge(looked, settings) == []


def test_tang_stopped_after_disks_were_bound(looked: Looked, settings: Settings) -> None:
    disk = images()["luks2"]
    put(looked, "node1", {**disk, "luks": {**disk["luks"], "label": "", "clevis": True}})
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("tang1", "tang_port")


def test_a_node_that_is_built_anew_may_become_a_tang_host(settings: Settings) -> None:
    looked = recorded_lab("lab-converged-trixie.json")
    for number, name in enumerate(settings["nodes"], 1):
        looked[name]["declared"]["tang_threshold"] = 2
        looked[name]["node"].update(tang_keys=name != "node2")
        looked[name]["node"]["listening"] += [7500] if name != "node2" else []
        settings["tang"].append(name)
        settings["tang_servers"].append(f"10.10.0.1{number}:7500")
        looked[name]["node"]["tang_problems"] = {"10.10.0.12:7500": "refused"}
    assert judge(looked, settings) == []
    looked["node2"]["node"]["tang_keys"] = True
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node2", "tang_port")
    looked["node2"] = {"declared": looked["node2"]["declared"], "problem": "it cannot be reached: timed out"}
    assert "it cannot be reached" in {finding.host: finding.found for finding in judge(looked, settings)}["node2"]


def test_no_tang_host(looked: Looked, settings: Settings) -> None:
    """Disks would be encrypted and bound to nothing: none would unlock by itself."""
    settings.update(tang=[], tang_servers=[])
    del looked["tang1"]
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("cluster", "group tang")


@pytest.mark.parametrize(
    "policy",
    [{"tpm2": {}}, {"tang": [{"url": "http://192.0.2.7"}]}, {"tang": [{"url": "http://10.10.0.14"}], "tpm2": {}}],
)
def test_no_tang_host_is_needed_where_all_nodes_have_a_policy(
    looked: Looked, settings: Settings, policy: dict[str, Any]
) -> None:
    settings.update(tang=[], tang_servers=[])
    del looked["tang1"]
    for host in settings["nodes"]:
        looked[host]["declared"]["policy"] = policy
    assert judge(looked, settings) == []
    del looked["node3"]["declared"]["policy"]
    assert only(looked, settings).variable == "group tang"


def test_policy_that_asks_nodes_alone(looked: Looked, settings: Settings) -> None:
    peers = [{"url": URL.format("10.10.0.12")}, {"url": URL.format("node3")}]
    looked["node1"]["declared"]["policy"] = {"threshold": 2, "tang": peers}
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node1", "encryption_policy")
    assert "it asks nodes alone" in finding.found
    wider: tuple[dict[str, Any], ...] = ({"tpm2": {}}, {"tang": [*peers, {"url": URL.format("10.10.0.10")}]})
    for more in wider:
        looked["node1"]["declared"]["policy"] = {"threshold": 2, "tang": peers, **more}
        assert judge(looked, settings) == []


def test_first_build_of_one_node_alone(looked: Looked, settings: Settings) -> None:
    assert judge({"node1": looked["node1"]}, settings) == []


def test_unreachable_tang_host(looked: Looked, settings: Settings) -> None:
    looked["tang1"] = {"declared": looked["tang1"]["declared"], "problem": "it cannot be reached: timed out"}
    assert {finding.host for finding in judge(looked, settings)} == {"tang1", "node1", "node2", "node3"}


def test_tang_server_outside_of_the_inventory_must_answer(looked: Looked, settings: Settings) -> None:
    settings["tang_servers"] = ["192.0.2.7:80"]
    for host in settings["nodes"]:
        looked[host]["node"]["tang_problems"] = {"192.0.2.7:80": "timed out"}
    assert len(judge(looked, settings)) == 3


URL = "http://{}:7500"


@pytest.mark.parametrize(
    "own",
    [
        URL.format("10.10.0.12"),
        "http://10.10.0.12",
        "10.10.0.12:7500/",
        URL.format("10.20.0.12"),
        URL.format("192.0.2.12"),
        URL.format("[2001:DB8:0::12]"),
        URL.format("NODE2"),
        URL.format("node2.lan"),
        URL.format("localhost"),
        URL.format("127.0.0.1"),
        URL.format("0.0.0.0"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_policy_that_asks_the_node_itself(looked: Looked, settings: Settings, own: str, depth: int) -> None:
    policy: dict[str, Any] = {"tang": [{"url": URL.format("10.10.0.10"), "thp": ""}, {"url": own, "thp": "a"}]}
    for _ in range(depth):
        policy = {"tpm2": {}, "sss": [policy]}
    for host in settings["nodes"]:
        looked[host]["declared"]["policy"] = policy
        looked[host]["declared"]["vlans"] = [{"name": "blue", "tag": 101, "address": f"10.20.0.1{host[-1]}/24"}]
    looked["node2"]["node"]["interfaces"]["enp0s3"]["addresses"] = ["192.0.2.12", "2001:db8::12"]
    findings = [finding for finding in judge(looked, settings) if finding.variable == "encryption_policy"]
    everywhere = any(name in own for name in ("localhost", "127.0.0.1", "0.0.0.0"))
    assert [finding.host for finding in findings] == (settings["nodes"] if everywhere else ["node2"])
    assert own.rstrip("/") in findings[0].found


OUTSIDE = {"url": URL.format("10.10.0.10")}


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("tang", "'tang' is no mapping"),
        ({"servers": []}, "it is not understood: servers. Supported parameters include: pin, sss, tang"),
        ({"threshold": 3, "tang": [{"url": URL.format("10.10.0.10")}]}, "threshold 3 exceeds 1 pin"),
        ({"tang": [{"thp": "a"}]}, "missing required arguments: url"),
        ({"sss": [{"sss": [{"tang": []}]}]}, "the policy names no tang server"),
        (
            {"threshold": 2, "tang": [OUTSIDE], "sss": [{"tang": [OUTSIDE, {"url": "http://192.0.2.7"}]}]},
            "unlocks alone, though",
        ),
    ],
)
def test_policy_that_cannot_be_bound_to(looked: Looked, settings: Settings, policy: Any, found: str) -> None:
    looked["node3"]["declared"]["policy"] = policy
    finding = only(looked, settings)
    assert (finding.host, finding.variable) == ("node3", "encryption_policy")
    assert found in finding.found


@pytest.mark.parametrize("url", ["http://[10.10.0.12", "http://", ""])
def test_server_of_a_policy_without_a_name(looked: Looked, settings: Settings, url: str) -> None:
    looked["node2"]["declared"]["policy"] = {"tang": [{"url": url}]}
    assert judge(looked, settings) == []


def test_policy_of_a_node_that_cannot_be_reached(looked: Looked, settings: Settings) -> None:
    declared = {**looked["node2"]["declared"], "policy": {"tang": [{"url": URL.format("10.10.0.12")}]}}
    looked["node2"] = {"declared": declared, "problem": "it cannot be reached: timed out"}
    assert {finding.variable for finding in judge(looked, settings)} == {"ansible_host", "encryption_policy"}


# The report


def test_hosts_outside_of_the_limit_are_not_judged(looked: Looked, settings: Settings) -> None:
    looked["node2"]["node"]["memory_mib"] = 1
    del looked["node1"], looked["tang1"], looked["node3"]
    assert [finding.host for finding in judge(looked, settings)] == ["node2"]


def test_one_report_names_every_host_variable_and_remedy(looked: Looked, settings: Settings) -> None:
    looked["node1"]["node"]["memory_mib"] = 1
    put(looked, "node1", images()["xfs"])
    looked["node3"]["node"]["hostname"] = "debian"
    settings["secrets"]["cluster_backup_passphrase"] = ""
    findings = preflight_findings(looked, settings)
    report = preflight_report(findings)
    assert report.startswith("4 things stand in the way; nothing was changed.")
    assert [line for line in report.splitlines() if line and not line.startswith(" ")][1:] == [
        "cluster",
        "node1",
        "node3",
    ]
    for finding in findings:
        assert f"  - {finding['variable']}: {finding['found']}" in report
        assert f"    Remedy: {finding['remedy']}" in report


def test_what_is_declared_is_judged_without_asking_a_host(looked: Looked, settings: Settings) -> None:
    declared = {host: {"declared": about["declared"]} for host, about in looked.items()}
    assert judge(declared, settings) == []
    settings["vlans"] = [{"name": "blue", "tag": 5000}, {"name": "green", "tag": 7}, {"name": "red", "tag": 7}]
    settings["secrets"]["cluster_recovery_passphrase"] = "<replace me>"
    declared["node2"]["declared"]["nics"] = {"wan": "enp0s3"}
    assert {finding.variable for finding in judge(declared, settings)} == {
        "cluster_recovery_passphrase",
        "cluster_vlans[0].tag",
        "cluster_vlans",
        "cluster_nics.br0",
        "cluster_nics.wan0",
        "cluster_nics.vlans",
        "cluster_nics.wan",
    }


def test_report_of_one(looked: Looked, settings: Settings) -> None:
    settings["network"] = "x"
    assert preflight_report(preflight_findings(looked, settings)).startswith("1 thing stands in the way")


def test_lab_inventory_passes(looked: Looked, settings: Settings) -> None:
    """What the lab declares, on what its machines are like."""
    lab = REPOSITORY / "inventories" / "lab"
    group = yaml.safe_load((lab / "group_vars" / "all.yml").read_text())
    nodes = yaml.safe_load((lab / "group_vars" / "nodes.yml").read_text())
    groups = yaml.safe_load((lab / "hosts.yml").read_text())["all"]["children"]
    settings.update(network=group["cluster_network"], vlans=group["cluster_vlans"])
    nodes["cluster_vlans"] = group["cluster_vlans"]
    settings["numbers"] = {variable: group.get(variable) for variable in RANGES}
    for name, hosts in groups.items():
        assert settings[name] == list(hosts["hosts"])
        for host, about in hosts["hosts"].items():
            declared = {**about, **(nodes if name == "nodes" else {})}
            looked[host]["declared"] = {key.removeprefix("cluster_"): value for key, value in declared.items()}
            looked[host]["declared"]["format"] = group["encryption_format"]
    assert judge(looked, settings) == []


def test_example_inventory_needs_only_its_secrets(settings: Settings) -> None:
    """Newcomers copy the example: nothing but the placeholders in it may be wrong before any host was looked at."""
    example = REPOSITORY / "inventories" / "example"
    group = yaml.safe_load((example / "group_vars" / "all" / "main.yml").read_text())
    settings["secrets"] = yaml.safe_load((example / "group_vars" / "all" / "vault.yml").read_text())
    settings.update(
        network=group["cluster_network"],
        gateway=group["cluster_gateway"],
        dns=group["cluster_dns"],
        vlans=group["cluster_vlans"],
        tang_servers=["192.168.10.10:7500"],
    )
    looked: Looked = {}
    for host in ("node1", "node2", "node3", "tang1"):
        declared = yaml.safe_load((example / "host_vars" / f"{host}.yml").read_text())
        looked[host] = {"declared": {key.removeprefix("cluster_"): value for key, value in declared.items()}}
    findings = judge(looked, settings)
    assert {(finding.variable, finding.found) for finding in findings} == {
        ("cluster_recovery_passphrase", "it still holds a placeholder"),
        ("cluster_backup_passphrase", "it still holds a placeholder"),
    }
