# SPDX-License-Identifier: GPL-3.0-or-later
"""ovs_vlan against a real ovsdb-server and ovs-vswitchd (userspace datapath) in a network namespace of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.difference import argv, difference
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import Model, parse
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.safe_apply import STATE_DIR
from harness import needs

NEEDED = ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool", "ip")
NAMESPACE = "pc-ovs-test"
CARDS = [f"card{number}" for number in range(1, 6)]
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
INSIDE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from harness import run_module
print("RESULT", json.dumps(run_module("ovs_vlan", **json.load(sys.stdin))))
"""

needs(*NEEDED)


def call(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def inside(*argv: str, check: bool = True) -> str:
    return call("ip", "netns", "exec", NAMESPACE, *argv, check=check)


class Lab:
    """A switch, and the module run beside it."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self.database = f"unix:{directory}/db.sock"

    def start(self) -> None:
        call("ovsdb-tool", "create", f"{self._dir}/conf.db", SCHEMA)
        self._daemon("ovsdb-server", f"{self._dir}/conf.db", f"--remote=p{self.database}")
        self.vsctl("--no-wait", "init")
        self._daemon("ovs-vswitchd", self.database, "--disable-system")

    def _daemon(self, name: str, *argv: str) -> None:
        files = [f"--pidfile={self._dir}/{name}.pid", f"--unixctl={self._dir}/{name}.ctl"]
        inside(name, *argv, *files, f"--log-file={self._dir}/{name}.log", "--detach", "--no-chdir")

    def stop(self) -> None:
        for path in self._dir.glob("*.pid"):
            os.kill(int(path.read_text()), 15)
            end = time.monotonic() + 10
            while path.exists() and time.monotonic() < end:
                time.sleep(0.05)

    def vsctl(self, *argv: str) -> str:
        return inside("ovs-vsctl", "--timeout=20", f"--db={self.database}", *argv).strip()

    def model(self) -> Model:
        tables = ["--", "list", "Bridge", "--", "list", "Port", "--", "list", "Interface"]
        return parse(self.vsctl("--format=json", *tables))

    def module(self, *bridges: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        specs = [{"datapath_type": "netdev", **bridge} for bridge in bridges]
        given = {"params": {"bridges": specs, "database": self.database, **more}, "check": check}
        done = subprocess.run(
            ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", INSIDE, str(Path(__file__).parent)],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "RESULT" in done.stdout, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout.split("RESULT", 1)[1])
        return result


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    call("ip", "netns", "delete", NAMESPACE, check=False)
    call("ip", "netns", "add", NAMESPACE)
    lab = Lab(tmp_path_factory.mktemp("ovs"))
    try:
        inside("ip", "link", "set", "lo", "up")
        for name in CARDS:
            inside("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
            inside("ip", "link", "set", name, "up")
        lab.start()
        yield lab
    finally:
        lab.stop()
        call("ip", "netns", "delete", NAMESPACE, check=False)


@pytest.fixture
def lab(switch: Lab) -> Iterator[Lab]:
    yield switch
    for name in switch.vsctl("list-br").split():
        switch.vsctl("--if-exists", "del-br", name)


NODE: tuple[dict[str, Any], ...] = (
    {"name": "br0", "hwaddr": "uplink", "ports": [{"name": "card1"}]},
    {
        "name": "vlans",
        "rstp": True,
        "other_config": {"mac-table-size": 4096},
        "ports": [
            {"name": "card2", "vlan_mode": "trunk", "trunks": ["101-103"]},
            {"name": "agg", "members": ["card3", "card4"], "bond_mode": "active-backup", "lacp": "off"},
            {"name": "native", "type": "internal", "vlan_mode": "native-untagged", "tag": 5, "trunks": ["101"]},
            {"name": "to-br9", "type": "patch", "peer": "to-vlans"},
        ],
        "vlans": [{"name": "vlan101", "tag": 101}, {"name": "old102", "tag": 102, "type": "fake_bridge"}],
    },
    {"name": "br9", "fail_mode": "secure", "ports": [{"name": "to-vlans", "type": "patch", "peer": "to-br9"}]},
)


def test_builds_everything_that_check_mode_lists_and_then_rests(lab: Lab) -> None:
    announced = lab.module(*NODE, check=True)
    assert announced["changed"] and lab.vsctl("list-br") == ""
    done = lab.module(*NODE)
    assert not done.get("failed"), done
    assert done["actions"] == announced["actions"] and len(done["actions"]) == 11
    assert done["bridges"] == announced["bridges"]
    assert lab.vsctl("list-ports", "vlans").split() == ["agg", "card2", "native", "to-br9", "vlan101"]
    assert lab.vsctl("get", "Port", "card2", "trunks", "vlan_mode").split("\n") == ["[101, 102, 103]", "trunk"]
    assert lab.vsctl("br-to-vlan", "old102") == "102"
    assert lab.vsctl("get", "Port", "agg", "bond_mode", "lacp").split() == ["active-backup", "off"]
    card = json.loads(inside("ip", "-json", "link", "show", "card1"))[0]["address"]
    assert lab.vsctl("get", "Interface", "br0", "mac_in_use") == f'"{card}"'
    again = lab.module(*NODE)
    assert not again["changed"] and again["actions"] == []


def test_changes_settings_members_and_purges_its_own(lab: Lab) -> None:
    lab.module(*NODE)
    lab.vsctl("add-port", "vlans", "foreign", "--", "set", "Interface", "foreign", "type=internal")
    guest = "external_ids:iface-id=9c5e"
    lab.vsctl("add-port", "vlans", "vnet0", "tag=101", "--", "set", "Interface", "vnet0", "type=internal", guest)
    wanted = {
        "name": "vlans",
        "rstp": True,
        "ports": [
            {"name": "card2", "trunks": ["101"]},
            {"name": "agg", "members": ["card3", "card5"]},
            {"name": "native", "clear": ["tag"], "trunks": None, "vlan_mode": None},
        ],
    }
    announced = lab.module(wanted, purge="owned", check=True)
    done = lab.module(wanted, purge="owned")
    assert not done.get("failed"), done
    assert done["actions"] == announced["actions"]
    assert lab.vsctl("list-br") == "vlans"
    assert lab.vsctl("list-ports", "vlans").split() == ["agg", "card2", "foreign", "native", "vnet0"]
    assert lab.vsctl("get", "Port", "native", "tag", "trunks", "vlan_mode").split() == ["[]", "[]", "[]"]
    assert list(lab.model()["vlans"].ports["agg"].interfaces) == ["card3", "card5"]
    assert not lab.module(wanted, purge="owned")["changed"]
    assert lab.module(wanted, purge="all")["actions"] == ["remove port foreign from bridge vlans"]
    assert lab.vsctl("get", "Port", "vnet0", "tag") == "101"


def test_the_way_back_restores_what_was(lab: Lab) -> None:
    lab.module(*NODE)
    before = lab.model()
    lab.module({"name": "br0", "ports": [{"name": "card3", "move": True}]}, purge="all")
    after = lab.model()
    assert list(after) == ["br0"]
    inverse = argv(difference(after, before), ["ovs-vsctl", "--timeout=20", f"--db={lab.database}"])
    inside(*inverse)
    assert difference(lab.model(), before) == []
    assert not lab.module(*NODE)["changed"]


@pytest.mark.parametrize(
    ("bridge", "said"),
    [
        ({"name": "br0", "ports": [{"name": "card1"}, {"name": "card2"}]}, "would loop"),
        ({"name": "br0", "ports": [{"name": "card1", "vlan_mode": "trunk"}]}, "passes ALL VLANs"),
        ({"name": "br5", "ports": [{"name": "card1"}]}, "say move: true"),
        ({"name": "br0", "ports": [{"name": "nowhere"}]}, "has no interface nowhere"),
    ],
)
def test_refusals_change_nothing(lab: Lab, bridge: dict[str, Any], said: str) -> None:
    lab.vsctl("add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "--", "add-port", "br0", "card1")
    before = lab.model()
    refused = lab.module(bridge)
    assert refused["failed"] and said in refused["msg"] and "nothing was changed" in refused["msg"]
    assert lab.model() == before


def test_without_a_rollback_timer_nothing_moves(lab: Lab) -> None:
    """There is no service manager in the namespace's world that could hold a timer."""
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here and would arm the timer")
    inside("ip", "address", "replace", "192.0.2.9/24", "dev", "card1")
    try:
        bridge = {"name": "br0", "take_addresses": True, "ports": [{"name": "card1"}]}
        refused = lab.module(bridge)
        assert refused["failed"] and "systemd-run" in refused["msg"], refused
        assert lab.vsctl("list-br") == ""
        assert "192.0.2.9" in inside("ip", "address", "show", "card1")
        assert not list(Path(STATE_DIR).glob("rollback-*.sh"))
        unsafe = lab.module(bridge, safe_apply=False)
        assert unsafe["failed"] and "allow safe_apply" in unsafe["msg"]
    finally:
        inside("ip", "address", "flush", "dev", "card1")
