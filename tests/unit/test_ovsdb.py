# SPDX-License-Identifier: GPL-3.0-or-later
"""Open vSwitch: the model, its difference, refusals and safe apply, on recorded output of both Debian releases."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb import host, safe_apply, switch
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.difference import argv, difference
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.handover import Handover
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.host import (
    Link,
    State,
    parse_links,
    without_stanzas,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import parse
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.safe_apply import Safety, rollback_script
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.switch import Switch
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.wanted import NO_PORT, Wanted, expand
from ansible_collections.personal.cluster.plugins.module_utils._engine import converge
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded" / "ovs"
RELEASES = ("debian12", "debian13")
NODE_INTERFACES = """\
# The loopback network interface
auto lo
iface lo inet loopback

auto enp0s3
iface enp0s3 inet dhcp

# The primary network interface
auto enp0s4
iface enp0s4 inet static
    address 10.10.0.11/24
"""
BRIDGE: dict[str, Any] = {
    "state": "present",
    **dict.fromkeys(("fail_mode", "stp", "rstp", "mcast_snooping", "hwaddr", "datapath_type")),
    **dict.fromkeys(("other_config", "external_ids", "gateway")),
    "clear": [],
    "take_addresses": False,
    "ports": [],
    "vlans": [],
}


def port(name: str, **more: Any) -> dict[str, Any]:
    return {**NO_PORT, "name": name, **more}


def bridge(name: str, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**BRIDGE, "name": name, "ports": list(ports), **more}


def vlan(name: str, tag: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "tag": tag, "state": "present", "type": "internal", **more}


def no_run(argv: Sequence[str], **_more: Any) -> Completed:
    raise AssertionError(f"planning must not run anything: {argv}")


def recorded(release: str) -> State:
    return State(
        parse((RECORDED / f"{release}.json").read_text()),
        parse_links((RECORDED / f"{release}-address.json").read_text()),
        tuple(json.loads((RECORDED / f"{release}-route.json").read_text())),
    )


def fresh_node() -> State:
    return State(
        {},
        parse_links((RECORDED / "debian13-node-address.json").read_text()),
        tuple(json.loads((RECORDED / "debian13-node-route.json").read_text())),
        {"/etc/network/interfaces": NODE_INTERFACES},
    )


def planned(state: State, *specs: dict[str, Any], purge: str = "none", **safety: Any) -> Any:
    return Switch(list(specs), no_run, purge=purge, safety=Safety(token="t", **safety)).plan(state)


def sentences(state: State, *specs: dict[str, Any], purge: str = "none") -> list[str]:
    plan = planned(state, *specs, purge=purge)
    assert plan.refusals == []
    return [step.sentence for step in plan.steps]


def refusals(state: State, *specs: dict[str, Any], purge: str = "none", **safety: Any) -> str:
    return "; ".join(planned(state, *specs, purge=purge, **safety).refusals)


# The model.


@pytest.mark.parametrize("release", RELEASES)
def test_model_of_what_ovs_vsctl_prints(release: str) -> None:
    model = recorded(release).bridges
    assert list(model) == ["agg", "br0", "vlans"]
    assert model["br0"].owned and not model["vlans"].owned
    assert model["br0"].columns["other_config"] == {"hwaddr": "02:00:00:00:00:01"}
    assert model["vlans"].columns["rstp_enable"] is True
    assert model["vlans"].ports["eth2"].columns == {"vlan_mode": "trunk", "trunks": [101, 102]}
    assert model["vlans"].ports["fake101"].columns == {"fake_bridge": True, "tag": 101}
    assert model["vlans"].ports["own102"].interfaces["own102"].columns == {"type": "internal", "mtu_request": 1400}
    assert model["agg"].ports["bond0"].columns == {"bond_mode": "balance-tcp", "lacp": "active"}
    assert list(model["agg"].ports["bond0"].interfaces) == ["eth3", "eth4"]
    assert model["agg"].ports["gone"].interfaces["gone"].ofport == -1
    assert "No such device" in model["agg"].ports["gone"].interfaces["gone"].error
    assert model["br0"].ports["vnet0"].guest and not model["br0"].ports["eth1"].guest


@pytest.mark.parametrize("release", RELEASES)
def test_model_of_an_empty_database(release: str) -> None:
    assert parse((RECORDED / f"{release}-empty.json").read_text()) == {}


@pytest.mark.parametrize("release", RELEASES)
def test_global_addresses_of_interfaces(release: str) -> None:
    links = recorded(release).links
    assert links["eth1"].addresses == ("192.0.2.11/24", "2001:db8::11/64")
    assert links["eth2"].addresses == ()


@pytest.mark.parametrize("release", RELEASES)
def test_no_difference_between_equal_models(release: str) -> None:
    model = recorded(release).bridges
    assert difference(model, parse((RECORDED / f"{release}.json").read_text())) == []


def test_there_and_back_touch_the_same_objects() -> None:
    now = recorded("debian13").bridges
    then = {"br0": now["br0"]}
    there, back = difference(now, then), difference(then, now)
    assert [change.sentence for change in there] == ["remove bridge agg", "remove bridge vlans"]
    made = [command[:4] for change in back for command in change.commands if command[0].startswith("add-")]
    assert made == [
        ["add-br", "agg"],
        ["add-bond", "agg", "bond0", "eth3"],
        ["add-port", "agg", "gone"],
        ["add-port", "agg", "to-vlans"],
        ["add-br", "vlans"],
        ["add-port", "vlans", "eth2"],
        ["add-br", "fake101", "vlans", "101"],
        ["add-port", "vlans", "own102"],
        ["add-port", "vlans", "to-agg"],
    ]


# What is wanted.


def test_omitted_settings_stay() -> None:
    state = recorded("debian13")
    assert sentences(state, bridge("vlans", port("eth2"), port("own102"))) == []


def test_changed_settings_in_one_call() -> None:
    state = recorded("debian13")
    spec = bridge(
        "vlans",
        port("eth2", trunks=["101-103", "200"]),
        port("own102", tag=104, mtu=9000),
        rstp=False,
        stp=True,
        other_config={"mac-table-size": 4096, "disable-in-band": True},
    )
    plan = planned(state, spec)
    assert [step.sentence for step in plan.steps] == [
        "set bridge vlans, other_config: disable-in-band=true, mac-table-size=4096",
        "set bridge vlans, rstp_enable: True -> none",
        "set bridge vlans, stp_enable: none -> True",
        "set port eth2, trunks: 101, 102 -> 101, 102, 103, 200",
        "set port own102, tag: 102 -> 104",
        "set port own102, mtu_request: 1400 -> 9000",
    ]
    calls: list[list[str]] = []

    def record(argv: Sequence[str], **_more: Any) -> Completed:
        calls.append(list(argv))
        return Completed(0, "", "")

    switch = Switch([spec], record)
    for step in switch.plan(state).steps:
        step.apply()
    assert len(calls) == 1
    assert "rstp_enable=false" in calls[0] and "trunks=101,102,103,200" in calls[0]
    assert 'other_config:"mac-table-size"="4096"' in calls[0]


def test_clear_empties_and_only_that() -> None:
    state = recorded("debian13")
    spec = bridge("vlans", port("own102", clear=["tag"]), other_config={"absent": None})
    (change,) = difference(state.bridges, Wanted(state, [spec], "none").model)
    assert change.commands == [["clear", "Port", "own102", "tag"]]


def test_bond_loses_and_gains_a_member() -> None:
    state = recorded("debian13")
    spec = bridge("agg", port("bond0", members=["eth3", "eth5"]), port("gone", state="absent"))
    assert sentences(state, spec) == [
        "remove port gone from bridge agg",
        "remove eth4 from bond bond0",
        "add eth5 to bond bond0",
    ]


def test_port_becomes_a_bond_of_the_same_bridge() -> None:
    state = recorded("debian13")
    spec = bridge("vlans", port("bond1", members=["eth2", "eth5"]))
    assert sentences(state, spec) == [
        "remove port eth2 from bridge vlans",
        "add bond bond1 to bridge vlans (members: eth2, eth5)",
    ]


def test_purge_owned_spares_what_others_made() -> None:
    state = recorded("debian13")
    assert sentences(state, bridge("br0"), purge="owned")[-1:] == ["remove port eth1 from bridge br0"]
    assert "guests use it (vnet0)" in refusals(state, bridge("vlans"), purge="owned")


def test_purge_all_spares_guests() -> None:
    state = recorded("debian13")
    spec = bridge("br0")
    steps = sentences(state, spec, bridge("vlans"), bridge("agg"), purge="all")
    assert "remove port eth1 from bridge br0" in steps
    assert not any("vnet0" in step for step in steps)
    assert "remove port fake101 from bridge vlans" in steps


def test_move_takes_a_port_from_another_bridge() -> None:
    state = recorded("debian13")
    spec = bridge("br9", port("eth2", move=True))
    assert sentences(state, spec) == [
        "remove port eth2 from bridge vlans",
        "create bridge br9",
        "add port eth2 to bridge br9",
    ]


def test_vlans_of_the_host() -> None:
    state = recorded("debian13")
    spec = bridge("vlans", vlans=[vlan("store", 300), vlan("old", 301, type="fake_bridge"), vlan("own102", 102)])
    assert sentences(state, spec) == [
        "add fake bridge old to bridge vlans (tag: 301)",
        "add port store to bridge vlans (tag: 300; type: internal)",
    ]


# What is refused.


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (bridge("b", port("eth5", vlan_mode="trunk")), "passes ALL VLANs; write trunks: all"),
        (bridge("b", port("eth5", trunks=[])), "passes ALL VLANs"),
        (bridge("b", port("eth5", tag=5, trunks=["6"])), "needs vlan_mode native-tagged or native-untagged"),
        (bridge("b", port("eth5", tag=5, vlan_mode="trunk", trunks=["6"])), "vlan_mode trunk takes no tag"),
        (bridge("b", port("eth2")), "eth2 is in bridge vlans; to take it to b say move: true"),
        (bridge("b", port("eth3")), "eth3 is in bridge agg"),
        (bridge("b", port("eth5"), port("eth6")), "bridge b would loop: eth5 and eth6"),
        (bridge("b", port("bond1", members=["eth5"])), "a bond has at least two members"),
        (bridge("b", port("eth5", lacp="active")), "LACP needs a bond of at least two members"),
        (bridge("b", port("i", type="internal", tag=0)), "VLAN 0 is outside 1-4094"),
        (bridge("b", port("i", type="internal", tag=4095)), "VLAN 4095 is outside 1-4094"),
        (bridge("b", port("eth5", trunks=["4000-4095"])), "VLAN 4095 in trunks is outside 1-4094"),
        (bridge("b", port("eth9")), "this host has no interface eth9"),
        (bridge("b", port("p", type="patch")), "a patch port needs peer"),
        (bridge("b", port("vnet0", tag=5)), "vnet0 is in bridge br0"),
        (bridge("br0", port("vnet0", tag=5)), "port vnet0 belongs to a guest"),
        (bridge("br0", state="absent"), "bridge br0 would go, but guests use it (vnet0)"),
        (bridge("b", port("02:ff:00:00:00:01")), "no single network card has the address 02:ff:00:00:00:01"),
    ],
)
def test_refused(spec: dict[str, Any], said: str) -> None:
    assert said in refusals(recorded("debian13"), spec)


def test_refused_in_two_bridges() -> None:
    said = refusals(recorded("debian13"), bridge("a", port("eth5")), bridge("b", port("eth5")))
    assert "eth5 is declared twice, in bridge a and in bridge b" in said


def test_refused_fake_bridge_with_ports() -> None:
    state = recorded("debian13")
    spec = bridge("vlans", port("p", type="internal", tag=101), vlans=[vlan("fake101", 101, state="absent")])
    assert "fake bridge fake101 would go with its ports p" in refusals(state, spec)


def test_refused_without_safe_apply() -> None:
    spec = bridge("b", port("eth1", move=True), take_addresses=True, gateway="192.0.2.1")
    state = recorded("debian13")
    assert refusals(state, spec) == ""
    assert "could cut this host off: allow safe_apply" in refusals(state, spec, enabled=False)


def test_refused_to_lose_address_or_way_out() -> None:
    state = replace(recorded("debian13"), bridges={})
    said = refusals(state, bridge("b", port("eth1")))
    assert "eth1 has the address 192.0.2.11/24, 2001:db8::11/64; bridge b does not take addresses" in said
    assert "the default route leads through eth1, and no gateway is declared for bridge b" in said


def test_allowed_on_purpose() -> None:
    state = recorded("debian13")
    assert refusals(state, bridge("b", port("eth5", vlan_mode="trunk", trunks=["all"]))) == ""
    assert refusals(state, bridge("b", port("eth5"), port("eth6"), rstp=True)) == ""
    assert refusals(state, bridge("b", port("eth5", tag=1, vlan_mode="native-untagged", trunks=["2"]))) == ""


def test_broken_interface_is_told_when_nothing_else_is_to_do() -> None:
    state = recorded("debian13")
    state = replace(state, links={**state.links, "gone": Link("gone", "")})
    said = refusals(state, bridge("agg", port("gone")))
    assert "Open vSwitch cannot use gone in bridge agg: could not open network device gone" in said


def test_trunks_that_are_no_numbers() -> None:
    with pytest.raises(ClusterError, match="neither a VLAN number nor a range"):
        expand(["every"])


# From ifupdown to the bridge, safely.


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["eth1"], "auto lo\niface lo inet loopback\n\n# keep\nauto eth0\niface eth0 inet dhcp\n\n"),
        (["eth2"], "auto lo\niface lo inet loopback\n\n# keep\nauto eth0 eth1\niface eth0 inet dhcp\n\n"
                   "iface eth1 inet static\n    address 192.0.2.1/24\n    # inside\n    up echo \\\n      twice\n"),
    ],
)  # fmt: skip
def test_stanzas_of_one_card_go(names: list[str], expected: str) -> None:
    text = (
        "auto lo\niface lo inet loopback\n\n# keep\nauto eth0 eth1\niface eth0 inet dhcp\n\niface eth1 inet static\n"
        "    address 192.0.2.1/24\n    # inside\n    up echo \\\n      twice\n"
        "allow-hotplug eth2\niface eth2 inet6 auto\n"
    )
    kept = without_stanzas(text, names)
    if names == ["eth1"]:
        expected += "    # inside\nallow-hotplug eth2\niface eth2 inet6 auto\n"
    assert kept == expected


NODE_SPECS = (
    bridge("br0", port("52:54:00:AB:01:01"), hwaddr="uplink", take_addresses=True),
    bridge("wan0", port("52:54:00:ab:01:02"), hwaddr="uplink"),
    bridge("vlans", port("52:54:00:ab:01:03", vlan_mode="trunk", trunks=["101", "102"]), hwaddr="uplink"),
)


def test_fresh_node_is_taken_over() -> None:
    plan = planned(fresh_node(), *NODE_SPECS, peers=("10.10.0.12",))
    assert plan.refusals == []
    assert [step.sentence for step in plan.steps] == [
        "arm a rollback within 120 s, to keep 10.10.0.11/24 on enp0s4",
        "take enp0s4 out of /etc/network/interfaces (a copy stays in /var/lib/personal-cluster/network)",
        "create bridge br0 (other_config: hwaddr=52:54:00:ab:01:01)",
        "add port enp0s4 to bridge br0",
        "create bridge wan0 (other_config: hwaddr=52:54:00:ab:01:02)",
        "add port enp0s5 to bridge wan0",
        "create bridge vlans (other_config: hwaddr=52:54:00:ab:01:03)",
        "add port enp0s6 to bridge vlans (trunks: 101, 102; vlan_mode: trunk)",
        "move 10.10.0.11/24 from enp0s4 to br0",
        "check that the peers which answered before still answer",
    ]
    assert "enp0s4" not in plan.predicted.files["/etc/network/interfaces"]
    assert "iface enp0s3 inet dhcp" in plan.predicted.files["/etc/network/interfaces"]


def test_taken_over_node_needs_nothing() -> None:
    after = planned(fresh_node(), *NODE_SPECS).predicted
    assert planned(after, *NODE_SPECS).steps == []


def test_killed_after_the_transaction_the_address_still_moves() -> None:
    done = planned(fresh_node(), *NODE_SPECS).predicted
    state = replace(fresh_node(), bridges=done.bridges, files=done.files)
    assert sentences(state, *NODE_SPECS) == [
        "arm a rollback within 120 s, to keep 10.10.0.11/24 on enp0s4",
        "move 10.10.0.11/24 from enp0s4 to br0",
    ]


def test_change_of_a_bridge_without_addresses_is_not_armed() -> None:
    after = planned(fresh_node(), *NODE_SPECS).predicted
    third = bridge("vlans", port("enp0s6", trunks=["101", "102", "103"]))
    assert sentences(after, *NODE_SPECS[:2], third) == ["set port enp0s6, trunks: 101, 102 -> 101, 102, 103"]


def test_rollback_script_undoes_everything() -> None:
    state = fresh_node()
    nic = Handover("enp0s4", "br0", ("10.10.0.11/24",), ({"dst": "default", "gateway": "10.10.0.1"},), True)
    inverse = argv(difference(planned(state, *NODE_SPECS).predicted.bridges, state.bridges), ["ovs-vsctl"])
    script = rollback_script(
        "t", inverse, {"/etc/network/interfaces": "/x/interfaces.t"}, [nic], [("enp0s4", "10.10.0.11/24")]
    )
    lines = [line.strip() for line in script.splitlines()]
    order = [
        "ovs-vsctl -- --if-exists del-br br0 -- --if-exists del-br wan0 -- --if-exists del-br vlans",
        "cp -p /x/interfaces.t /etc/network/interfaces",
        'if [ "$1" != boot ]; then',
        "ip address delete 10.10.0.11/24 dev br0 2>/dev/null",
        "ifup --force enp0s4",
        "ip address replace 10.10.0.11/24 dev enp0s4",
        "ip route replace default via 10.10.0.1 dev enp0s4",
        "mv undoing-t.sh rolled-back-t.sh",
    ]
    assert [line for line in lines if line in order] == order


def test_change_left_by_a_killed_run_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(safe_apply, "STATE_DIR", str(tmp_path))
    (tmp_path / "rollback-0a1b.sh").write_text("")
    after = replace(planned(fresh_node(), *NODE_SPECS).predicted, pending=("0a1b",))
    calls: list[list[str]] = []

    def run(argv: Sequence[str], **_more: Any) -> Completed:
        calls.append(list(argv))
        return Completed(0, "", "")

    (step,) = Switch(list(NODE_SPECS), run).plan(after).steps
    step.apply()
    assert [path.name for path in tmp_path.iterdir()] == ["confirmed.sh"]
    assert calls == [["systemctl", "stop", "personal-cluster-network-rollback-0a1b.timer"]]
    with pytest.raises(ClusterError, match="was just rolled back; run again"):
        step.apply()


class Node:
    """A node that answers the module's commands from its state."""

    def __init__(self, silent: Collection[str] = ()) -> None:
        self.calls: list[list[str]] = []
        self.silent = silent

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 0,
        ok: Collection[int] | None = (0,),
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        self.calls.append(list(argv))
        if argv[0] == "ping":
            moved = any(call[:3] == ["ip", "address", "flush"] for call in self.calls)
            return Completed(int(moved and argv[-1] in self.silent), "", "")
        return Completed(0, "", "")


@pytest.fixture
def node_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "interfaces").write_text(NODE_INTERFACES)
    monkeypatch.setattr(safe_apply, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(host, "INTERFACES", str(tmp_path / "interfaces"))
    monkeypatch.setattr(host, "INTERFACES_D", str(tmp_path / "interfaces.d"))
    monkeypatch.setattr(safe_apply, "PROBE_SECONDS", 0.05)
    return tmp_path


def test_safe_apply_arms_first_and_probes_last(node_files: Path) -> None:
    run = Node()
    state = replace(fresh_node(), files={str(node_files / "interfaces"): NODE_INTERFACES})
    safety = Safety(token="t", peers=("10.10.0.12", "10.10.0.13"))
    for step in Switch(list(NODE_SPECS), run, safety=safety).plan(state).steps:
        step.apply()
    programs = [call[0] for call in run.calls]
    assert programs.index("systemd-run") < programs.index("ifdown") < programs.index("ovs-vsctl") < programs.index("ip")
    assert ["systemctl", "is-active", "personal-cluster-network-rollback-t.timer"] in run.calls
    assert programs.count("ovs-vsctl") == 1 and programs[-2:] == ["ping", "ping"]
    assert "enp0s4" not in (node_files / "interfaces").read_text()
    assert (node_files / "state" / "interfaces.t").read_text() == NODE_INTERFACES
    assert (node_files / "state" / "rollback-t.sh").stat().st_mode & 0o777 == 0o700


def test_peer_that_falls_silent_rolls_back(node_files: Path) -> None:
    run = Node(silent=("10.10.0.13",))
    state = replace(fresh_node(), files={str(node_files / "interfaces"): NODE_INTERFACES})
    safety = Safety(token="t", peers=("10.10.0.12", "10.10.0.13"))
    steps = Switch(list(NODE_SPECS), run, safety=safety).plan(state).steps
    for step in steps[:-1]:
        step.apply()
    with pytest.raises(ClusterError, match="10.10.0.13 answered before the change and not after it; rolled back"):
        steps[-1].apply()
    assert run.calls[-1] == ["/bin/sh", str(node_files / "state" / "rollback-t.sh")]


# A host without Open vSwitch.


def test_fresh_host_plans_in_check_mode_only(node_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "SOCKET", str(node_files / "no.sock"))
    monkeypatch.setattr(switch, "CONF_DB", str(node_files / "no.db"))
    answers = {"address": "debian13-node-address.json", "-4": "debian13-node-route.json"}

    def run(argv: Sequence[str], **_more: Any) -> Completed:
        assert argv[0] == "ip"
        names = [name for word, name in answers.items() if word in argv]
        return Completed(0, (RECORDED / names[0]).read_text() if names else "", "")

    bare = Switch(list(NODE_SPECS), run)
    result = converge(bare, check=True, done=[])
    assert result["changed"] and len(result["actions"]) == 9
    assert result["addresses"]["br0"] == ["10.10.0.11/24"]
    with pytest.raises(NotYet, match="does not run on this host and never did"):
        converge(bare, check=False, done=[])


def test_view_hides_guests_and_marks(node_files: Path) -> None:
    switch = Switch([], no_run)
    view = switch.view(recorded("debian13"))
    assert view["bridges"]["br0"]["ports"] == {"eth1": {"interfaces": {"eth1": {}}, "owned": True}}
    assert view["addresses"] == {"eth1": ["192.0.2.11/24", "2001:db8::11/64"]}
