# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks pass to the roles is what the roles' argument specs take."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.personal.cluster.plugins.filter.disks import disk_names
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight import tang
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import Host, Site

REPOSITORY = Path(__file__).parents[2]
VLANS = [{"name": "servers", "tag": 101, "address": "10.20.0.11/24"}, {"name": "visitors", "tag": 102}]


def handed_over(layer: str) -> dict[str, Any]:
    """Return the variables of the layer's role that its playbook sets, with what it makes them of."""
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / f"{layer}.yml").read_text())
    variables: dict[str, Any] = play["roles"][0]["vars"]
    return variables


def specified(layer: str) -> dict[str, Any]:
    specs = yaml.safe_load((REPOSITORY / "roles" / layer / "meta" / "argument_specs.yml").read_text())
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


def trusted(value: Any) -> Any:
    """Return variables as Ansible has them of an inventory: what is text in them may be a template."""
    if isinstance(value, dict):
        return {name: trusted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def passed(layer: str, variable: str, **known: Any) -> Any:
    """Return what the layer's playbook makes of ``known`` for the role's variable."""
    own = {name: trust_as_template(text) for name, text in handed_over(layer).items() if name.startswith("__")}
    expression = trust_as_template(handed_over(layer)[variable])
    return Templar(loader=DataLoader(), variables=own | known).template(expression)


@pytest.mark.parametrize("layer", ["network", "hypervisor"])
@pytest.mark.parametrize("vlans", [VLANS, [], None])
def test_vlans_in_which_nodes_have_addresses(layer: str, vlans: list[dict[str, Any]]) -> None:
    variable = f"{layer}_vlans"
    spec = {variable: specified(layer)[variable]}
    given = passed(layer, variable, cluster_vlans=vlans)
    assert ArgumentSpecValidator(spec).validate({variable: given}).error_messages == []
    assert [(vlan["name"], vlan["tag"]) for vlan in given] == [(vlan["name"], vlan["tag"]) for vlan in vlans or []]


# What YAML makes of a variable without a value, and of what operators write who have not read on.
MISTAKES = (None, "/dev/sdb", 7, ["a"], [None], {"a": 1})
JUDGED = (
    "cluster_dns",
    "cluster_disks",
    "cluster_nics",
    "cluster_vlans",
    "cluster_guests",
    "encryption_policy",
    "storage_volumes",
)
TEXTS = (
    "cluster_name",
    "cluster_state_dir",
    "cluster_address",
    "cluster_network",
    "cluster_gateway",
    "cluster_domain_type",
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=repr)
@pytest.mark.parametrize("variable", JUDGED + TEXTS)
def test_preflight_judges_by_itself_what_was_declared(variable: str, mistake: Any) -> None:
    """A refusal of the argument specification would hide every other finding."""
    host = {"inventory_hostname": "node1", variable: mistake}
    known = {"groups": {"nodes": ["node1"], "tang": ["node1"]}, "hostvars": {"node1": host}, **host}
    given = {
        name: passed("preflight", name, **known)
        for name, expression in handed_over("preflight").items()
        if variable in str(expression)
    }
    spec = {name: option for name, option in specified("preflight").items() if name in given}
    assert given and ArgumentSpecValidator(spec).validate(given).error_messages == []


@pytest.mark.parametrize("groups", [{}, {"node": ["node1"]}])
def test_preflight_is_told_of_a_group_that_is_not_there(groups: dict[str, list[str]]) -> None:
    known = {"groups": groups, "inventory_hostname": "node1", "cluster_disks": [{}], "cluster_nics": {"br0": "eno1"}}
    defaults = yaml.safe_load((REPOSITORY / "roles" / "preflight" / "defaults" / "main.yml").read_text())
    for expression in (defaults["preflight_nodes"], specified("preflight")["preflight_nodes"]["default"]):
        assert Templar(loader=DataLoader(), variables=known).template(trust_as_template(expression)) == []
    assert passed("preflight", "preflight_disks", **known) == []
    assert passed("preflight", "preflight_nics", **known) == {}
    assert passed("preflight", "preflight_vlans", **known) == []


@pytest.mark.parametrize(
    ("layer", "variable", "cluster_variable", "none"),
    [
        ("network", "network_gateway", "cluster_gateway", ""),
        ("network", "network_dns", "cluster_dns", []),
        ("network", "network_vlans", "cluster_vlans", []),
        ("hypervisor", "hypervisor_domain_type", "cluster_domain_type", "kvm"),
        ("hypervisor", "hypervisor_vlans", "cluster_vlans", []),
        ("hypervisor", "hypervisor_guests", "cluster_guests", []),
        ("telemetry", "telemetry_disks", "cluster_disks", []),
    ],
)
def test_a_variable_left_empty_is_like_one_that_is_not_there(
    layer: str, variable: str, cluster_variable: str, none: Any
) -> None:
    assert passed(layer, variable, **{cluster_variable: None}) == none
    assert passed(layer, variable) == none


@pytest.mark.parametrize(("node", "servers"), [("node1", {"http://10.0.0.10:7500": "a"}), ("node2", None)])
def test_no_disk_is_bound_to_a_tang_on_its_own_node(node: str, servers: dict[str, str] | None) -> None:
    hosts = {
        "tang1": {"cluster_address": "10.0.0.10", "tang_thumbprint": "a"},
        "node1": {"cluster_address": "10.0.0.11", "tang_thumbprint": "b"},
    }
    told = yaml.safe_load((REPOSITORY / "playbooks/vars/encryption.yml").read_text())
    known = {name: trust_as_template(text) for name, text in told.items()}
    known |= {"groups": {"tang": list(hosts)}, "hostvars": hosts, "inventory_hostname": node}
    given = Templar(loader=DataLoader(), variables=known).template(known["encryption_tang_servers"])
    assert given == (
        servers or {f"http://{host['cluster_address']}:7500": host["tang_thumbprint"] for host in hosts.values()}
    )


def test_preflight_is_told_the_policy_that_disks_will_be_bound_to() -> None:
    """The servers of a policy may be taken from what the playbooks make of the tang hosts."""
    (play,) = yaml.safe_load((REPOSITORY / "playbooks/preflight.yml").read_text())
    told = yaml.safe_load((REPOSITORY / "playbooks" / play["vars_files"][0]).read_text())
    policy = "{{ {'tang': encryption_tang_servers | dict2items(key_name='url', value_name='thp')} }}"
    known = {name: trust_as_template(text) for name, text in {**told, "encryption_policy": policy}.items()}
    known |= {"groups": {"nodes": ["node1"], "tang": ["node1", "tang1", "tang2"]}, "inventory_hostname": "node1"}
    hosts = {"node1": {"cluster_address": "10.0.0.11"}, "tang1": {"cluster_address": "10.0.0.10"}, "tang2": {}}
    given = passed("preflight", "preflight_policy", **known, hostvars=hosts)
    assert {"url": "http://10.0.0.10:7500", "thp": ""} in given["tang"]
    assert "http://10.0.0.11:7500" not in [server["url"] for server in given["tang"]]


def policies_of_the_docs() -> list[dict[str, Any]]:
    examples = re.findall(r"^```yaml\n(.*?)^```$", (REPOSITORY / "docs" / "encryption.md").read_text(), re.M | re.S)
    return [yaml.safe_load(example) for example in examples]


@pytest.mark.parametrize("example", policies_of_the_docs(), ids=lambda example: ",".join(example))
def test_policies_of_the_docs_are_bound_to(example: dict[str, Any]) -> None:
    """By every node of a cluster whose nodes are tang hosts, too."""
    names = ["node1", "node2", "node3", "tang1"]
    hosts = {name: {"cluster_address": f"192.168.10.1{int(name[-1]) % 4}"} for name in names[:3]}
    hosts["tang1"] = {"cluster_address": "192.168.10.10"}
    told = yaml.safe_load((REPOSITORY / "playbooks/vars/encryption.yml").read_text())
    variables = trusted({**told, **example})
    nodes = []
    for name in names[:3]:
        groups = {"nodes": names[:3], "tang": names}
        known = {**variables, "groups": groups, "hostvars": hosts, "inventory_hostname": name}
        declared = {
            "address": hosts[name]["cluster_address"],
            "policy": passed("preflight", "preflight_policy", **known),
            "tang_threshold": passed("preflight", "preflight_tang_threshold", **known),
        }
        nodes.append(Host(name, declared, {}, {}, ""))
    site = Site(nodes, [], {"nodes": names[:3], "tang": names})
    assert [*tang.tang_declared(site), *tang.policies_valid(site)] == []


def test_a_rotation_binds_by_the_task_and_the_policy_of_the_layer() -> None:
    layer = yaml.safe_load((REPOSITORY / "playbooks/encryption.yml").read_text())[-1]
    plays = yaml.safe_load((REPOSITORY / "playbooks/rotate_tang.yml").read_text())
    (binding,) = [play for play in plays if play["hosts"] == "nodes" and "serial" in play]
    assert binding["vars_files"] == layer["vars_files"] and binding["serial"] == 1
    assert {task["ansible.builtin.import_role"]["tasks_from"] for task in binding["tasks"][-1:]} == {"bind.yml"}
    assert not [name for name in binding["vars"] if name.startswith("encryption_")]


def told_at_the_end(playbook: str, **known: Any) -> str:
    """Return what a playbook tells about what is left to do, nothing where it tells nothing."""
    plays = yaml.safe_load((REPOSITORY / "playbooks" / f"{playbook}.yml").read_text())
    tasks = [task for play in plays for task in (*play.get("tasks", ()), *play.get("post_tasks", ()))]
    task = [task for task in tasks if "ansible.builtin.debug" in task][-1]
    assert task["run_once"] and "changed_when" not in task
    templar = Templar(loader=DataLoader(), variables=known)
    if not templar.template(trust_as_template(f"{{{{ {task['when']} }}}}")):
        return ""
    text: str = templar.template(trust_as_template(task["ansible.builtin.debug"]["msg"]))
    return text


def test_nodes_that_are_tang_hosts_need_a_threshold() -> None:
    """Whatever a role has for a default: it is there already when the play's own tasks run."""
    (known,) = yaml.safe_load((REPOSITORY / "playbooks/encryption.yml").read_text())[-1]["pre_tasks"]
    for declared, enough in (
        ({}, False),
        ({"encryption_policy": {}}, False),
        ({"encryption_tang_threshold": 1}, True),
        ({"encryption_policy": {"tpm2": {}}}, True),
    ):
        variables: dict[str, Any] = {
            "encryption_tang_threshold": 1,
            "encryption_policy": {},
            "inventory_hostname": "node1",
            "groups": {"tang": ["tang1", "node1"], "nodes": ["node1", "node2", "node3"]},
            "hostvars": {"node1": declared},
            **{name: trust_as_template(text) for name, text in known["vars"].items()},
        }
        templar = Templar(loader=DataLoader(), variables={**variables, **declared})
        when, that = (
            templar.template(trust_as_template(f"{{{{ {text} }}}}"))
            for text in (known["when"], known["ansible.builtin.assert"]["that"])
        )
        assert when is True and that is enough, declared


def test_what_makes_the_bundle_old_is_told_where_there_is_one(tmp_path: Path) -> None:
    place: dict[str, Any] = {"cluster_state_dir": str(tmp_path)}
    new: dict[str, Any] = {"__replace_known": [], "__replace_fresh": ["/dev/disk/by-id/new"]}
    for known in ({}, place):
        assert told_at_the_end("rotate_tang", **known) == ""
        assert told_at_the_end("replace_disk", **new, **known) == ""
    (tmp_path / "escrow.tar.gpg").touch()
    assert told_at_the_end("replace_disk", **{**new, "__replace_fresh": []}, **place) == ""
    for died in ({}, {"__replace_known": ["/dev/disk/by-id/new"], "__replace_fresh": []}):
        assert "At the end run playbooks/escrow.yml" in told_at_the_end("replace_disk", **{**new, **died}, **place)
    assert told_at_the_end("rotate_tang", **place).endswith("has headers that need the old ones.")
    assert told_at_the_end("rotate_tang", purge="true", **place).endswith("need the old ones, which are purged.")


def bound_to(guests: list[dict[str, Any]]) -> list[str]:
    """Return the machines that replace_node.yml would give an empty disk on node1."""
    look = yaml.safe_load((REPOSITORY / "playbooks" / "replace_node.yml").read_text())[0]
    shared = yaml.safe_load((REPOSITORY / "playbooks" / "vars" / "storage.yml").read_text())
    disks = [{"volume": "gv0"}, {"volume": "gv1"}, {"volume": "bmv0"}]
    known = {"host": "node1", "hostvars": {"node1": {"cluster_disks": disks}}, "cluster_guests": guests}
    own = {name: trust_as_template(text) for name, text in {**shared, **look["vars"]}.items() if name.startswith("__")}
    templar = Templar(loader=DataLoader(), variables=own | known)
    found: list[str] = templar.template(trust_as_template("{{ __replace_bound }}"))
    return found


def test_machines_that_would_begin_with_an_empty_disk() -> None:
    local, shared = {"pool": "bmv0", "size": "1G"}, {"pool": "gv0", "size": "1G"}
    assert bound_to([{"name": "web", "node": "node1", "disks": [shared, {"path": "/x.iso"}]}, {"name": "bare"}]) == []
    assert bound_to([{"name": "db", "node": "node1", "disks": [shared, local]}]) == ["db"]
    assert bound_to([{"name": "db", "node": "node2", "disks": [local]}]) == []
    assert bound_to([{"name": "db", "node": "node1", "disks": [local], "state": "absent"}]) == []


@pytest.mark.parametrize(
    ("asked", "devices", "volumes"),
    [
        ("gv0", ["/dev/a"], ["gv0"]),
        ("gv1b,gv0", ["/dev/c", "/dev/a"], ["gv0", "gv1"]),
        ("bmv0", ["/dev/d"], []),
    ],
)
def test_the_disks_that_are_replaced(asked: str, devices: list[str], volumes: list[str]) -> None:
    disks = [
        {"device": "/dev/a", "volume": "gv0"},
        {"device": "/dev/b", "volume": "gv1"},
        {"device": "/dev/c", "volume": "gv1", "name": "gv1b"},
        {"device": "/dev/d", "volume": "bmv0"},
    ]
    told = yaml.safe_load((REPOSITORY / "playbooks/vars/replaced_disk.yml").read_text())
    own = {name: trust_as_template(text) for name, text in told.items()}
    # What the filter of the collection makes of them, which is not loaded here.
    known = {"__replace_names": disk_names(disks), "__replace_disks": disks, "__gluster_names": ["gv0", "gv1"]}
    templar = Templar(loader=DataLoader(), variables={**own, **known, "disk": asked})
    found = [templar.template(trust_as_template(f"{{{{ __replace_{what} }}}}")) for what in ("devices", "volumes")]
    assert [found[0], sorted(found[1])] == [devices, volumes]


def due_for_growth(disks: dict[str, list[dict[str, str]]], bricks: int, mark: str | None) -> list[str]:
    """Return the volumes that add_nodes.yml would grow or balance, on nodes with these disks."""
    look = yaml.safe_load((REPOSITORY / "playbooks" / "add_nodes.yml").read_text())[0]
    options = {} if mark is None else {"user.personal-cluster.balance": mark}
    known = {
        "groups": {"nodes": list(disks)},
        "hostvars": {name: {"cluster_disks": mine} for name, mine in disks.items()},
        "__add_known": {"volumes": {"gv0": {"bricks": list(range(bricks)), "options": options}}},
    }
    own = {name: trust_as_template(text) for name, text in look["vars"].items()}
    templar = Templar(loader=DataLoader(), variables=own | known)
    found: list[str] = templar.template(trust_as_template("{{ __add_due }}"))
    return found


def test_machines_may_run_where_nothing_is_added() -> None:
    three = {f"node{number}": [{"volume": "gv0"}, {"volume": "bmv0"}] for number in (1, 2, 3)}
    six = {f"node{number}": [{"volume": "gv0"}] for number in range(1, 7)}
    assert due_for_growth(three, 3, None) == [] and due_for_growth(three, 3, "layout") == []
    assert due_for_growth(six, 3, None) == ["gv0"]
    # A run that died between adding and balancing.
    assert due_for_growth(six, 6, "no") == ["gv0"] and due_for_growth(six, 6, "layout") == []


def value_of(playbook: str, task: str, key: str, **known: Any) -> Any:
    """Return what a value of a task of a playbook becomes on node1."""
    plays = yaml.safe_load((REPOSITORY / "playbooks" / f"{playbook}.yml").read_text())
    ((play, found),) = [
        (play, item)
        for play in plays
        for item in (*play.get("pre_tasks", ()), *play.get("tasks", ()))
        if item["name"] == task
    ]
    files = [yaml.safe_load((REPOSITORY / "playbooks" / name).read_text()) for name in play.get("vars_files", ())]
    shared = {name: value for file in files for name, value in file.items()}
    variables = trusted({**shared, **play.get("vars", {}), **found.get("vars", {})})
    templar = Templar(loader=DataLoader(), variables=variables | {"inventory_hostname": "node1"} | known)
    module = next(value for name, value in found.items() if name.startswith(("ansible.builtin.", "personal.cluster.")))
    value = module[key] if key else module
    if key != "that":
        return templar.template(trusted(value))
    conditions = value if isinstance(value, list) else [value]
    return all(templar.template(trust_as_template(f"{{{{ {text} }}}}")) for text in conditions)


def refusal(playbook: str, task: str, **known: Any) -> str:
    """Return what a playbook says when it refuses to go on at a task; nothing when it goes on."""
    if value_of(playbook, task, "that", **known):
        return ""
    text: str = value_of(playbook, task, "fail_msg", **known)
    return text


BOUND = {"keyslot": 1, "unlocks": True, "unreachable": []}


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (BOUND, ""),
        # One of two servers suffices.
        ({**BOUND, "unreachable": ["http://10.0.0.10:7500"]}, ""),
        ({**BOUND, "keyslot": None, "unlocks": False}, "there is no binding on /dev/b"),
        ({**BOUND, "unlocks": False}, "the binding of /dev/b does not unlock it. "),
        (
            {**BOUND, "unlocks": False, "unreachable": ["http://10.0.0.10:7500"]},
            "the binding of /dev/b does not unlock it; no answer from http://10.0.0.10:7500. ",
        ),
    ],
)
def test_no_node_goes_down_whose_disks_would_stay_locked(disk: dict[str, Any], says: str) -> None:
    known = {"__reboot_disks": {"devices": {"/dev/a": BOUND, "/dev/b": disk}}}
    task = "Refuse while a disk would stay locked"
    assert value_of("reboot_nodes", task, "that", **known) is (not says)
    message = value_of("reboot_nodes", task, "fail_msg", **known)
    assert says in message and message.startswith("node1 is not rebooted") and "/dev/a" not in message


def test_a_node_is_asked_to_prove_that_its_disks_unlock() -> None:
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / "reboot_nodes.yml").read_text())
    (look,) = [task for task in play["tasks"] if "personal.cluster.luks_clevis_info" in task]
    assert look["personal.cluster.luks_clevis_info"]["prove"] is True


def test_a_node_is_back_when_each_of_its_volumes_is_mounted() -> None:
    command = value_of("reboot_nodes", "Wait until its volumes are mounted and its pools and guests started", "")
    units = ("personal-cluster-mount@gv0", "personal-cluster-mount@gv1", "personal-cluster-guests")
    assert command == " && ".join(f"systemctl is-active {unit}" for unit in units)
    template = REPOSITORY / "roles/storage/templates/mounts.yml.j2"
    assert '"personal-cluster-mount@{{ volume.name }}.service"' in template.read_text()


@pytest.mark.parametrize(
    ("memory", "newer", "reboots", "boot"),
    [
        ("{}", None, True, "now"),
        ('{"boot": "now", "guests": ["g1"]}', None, True, "now"),
        # It has booted, by the run that died or by hand; a file that changed after that asks for one more boot.
        ('{"boot": "old", "guests": ["g1"]}', None, False, "old"),
        ('{"boot": "old", "guests": ["g1"]}', "", False, "old"),
        ('{"boot": "old", "guests": ["g1"]}', "/f", True, "now"),
    ],
)
def test_a_node_that_has_booted_since_a_run_died_reboots_for_a_newer_file_alone(
    memory: str, newer: str | None, reboots: bool, boot: str
) -> None:
    known: dict[str, Any] = {
        "__reboot_looked": {"stdout_lines": ["now", memory]},
        "__reboot_found": {"domains": {"g2": {"state": "running"}}},
    }
    if newer is not None:
        known |= {"after": "/f", "__reboot_newer": {"stdout": newer}}
    written = value_of("reboot_nodes", "Write down which guests come back", "files", **known)
    left = json.loads(written[0]["content"])
    assert left["boot"] == boot
    assert left["guests"] == [name for name, here in (("g1", memory != "{}"), ("g2", reboots)) if here]


def test_a_node_is_back_when_each_of_its_volumes_takes_a_write(tmp_path: Path) -> None:
    known = {"storage_mounts_dir": str(tmp_path), "storage_volumes": [{"name": "gv 0"}, {"name": "gv1"}]}
    command = value_of("reboot_nodes", "Wait until its volumes can be written to", "", **known)
    assert subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode != 0
    (tmp_path / "gv 0").mkdir()
    assert subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode != 0
    (tmp_path / "gv1").mkdir()
    assert subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode == 0
    assert list(tmp_path.glob("*/*")) == list(tmp_path.glob("*/.*")) == []


def test_what_proves_bindings_waits_as_long_as_what_makes_them() -> None:
    for name in ("reboot_nodes.yml", "rotate_tang.yml"):
        plays = yaml.safe_load((REPOSITORY / "playbooks" / name).read_text())
        tasks = [task for play in plays for task in play.get("tasks", [])]
        looks = [task.get("personal.cluster.luks_clevis_info") for task in tasks]
        looks = [look for look in looks if look]
        assert looks and all("encryption_tang_timeout | default(omit)" in look["tang_timeout"] for look in looks)


def test_a_disk_that_comes_with_a_header_is_not_taken_for_a_blank_one() -> None:
    task, disk = "Refuse a disk that comes with data", {"kind": "luks2", "mapper": ""}
    known: dict[str, Any] = {
        "host": "node1",
        "__replace_devices": ["/dev/a"],
        "__replace_remembered": {"stdout": ""},
        "__replace_looked": {"devices": {"/dev/a": disk}},
    }
    assert "/dev/a of node1 is not blank: it is encrypted already" in refusal("replace_disk", task, **known)
    for harmless in ({"kind": "blank", "mapper": ""}, {**disk, "mapper": "luks-gv0"}):
        assert refusal("replace_disk", task, **{**known, "__replace_looked": {"devices": {"/dev/a": harmless}}}) == ""
    # A run that died has encrypted it, and the node has booted since.
    assert refusal("replace_disk", task, **{**known, "__replace_remembered": {"stdout": "/dev/a\n"}}) == ""


def test_a_disk_that_kept_its_data_is_not_formatted() -> None:
    task = "Refuse to format a disk that kept its data"
    for kind, refused in (("luks2", False), ("unread", False), ("blank", True), ("damaged", True)):
        kept = {"devices": {"/dev/a": {"kind": kind}}}
        says = refusal("replace_node", task, host="node1", __replace_kept=kept)
        assert ("/dev/a of node1 has no LUKS2 header" in says) is refused
    assert refusal("replace_node", task, host="node1", __replace_kept={"skipped": True}) == ""


def test_new_nodes_come_after_those_of_the_pool() -> None:
    members = {name: {"member": True} for name in ("node2", "node3")} | {"node9": {"member": False}}
    known = {"__add_pool": {"peers": members}}
    for nodes, plays, refused in (
        (["node1", "node2", "node3", "node4"], 4, False),
        (["node1", "node2", "node4", "node3"], 4, True),
        (["node1", "node2", "node3", "node4"], 3, True),
    ):
        groups = {"groups": {"nodes": nodes}, "ansible_play_hosts": nodes[:plays]}
        says = refusal("add_nodes", "See that the new nodes come after the old ones", **known, **groups)
        assert ("Write new nodes after those of the pool" in says) is refused


def test_bricks_come_home_where_it_is_known_which_and_nothing_holds_them() -> None:
    home, snapshot = {"path": "/bricks/gv1/brick"}, {"path": "/run/gluster/snaps/x/brick1"}
    for disks, refused in ((["gv0", "gv1"], False), (["gv1", "gv1"], True), (["gv0"], True)):
        own = {"volume": "gv1", "cluster_disks": [{"volume": name} for name in disks]}
        says = refusal("bring_bricks_home", "Refuse where a node has several bricks of it", **own)
        assert bool(says) is refused
    for count, brick, refused in ((0, snapshot, False), (1, home, False), (1, snapshot, True)):
        found = {"volumes": {"gv1": {"snapshots": count, "bricks": [brick]}}}
        says = refusal("bring_bricks_home", "Refuse while it has snapshots", volume="gv1", __home_known=found)
        assert ("gv1 has 1 snapshots" in says) is refused


def test_a_rotation_stops_while_a_disk_would_stay_locked() -> None:
    item = {"item": "node2", "devices": {"/dev/a": {"unlocks": True}, "/dev/b": {"unlocks": False}}}
    assert "node2: the binding of /dev/b does not unlock it" in refusal(
        "rotate_tang", "Stop where one does not", item=item
    )
    item["devices"] = {"/dev/a": {"unlocks": True}}
    assert refusal("rotate_tang", "Stop where one does not", item=item) == ""
    task = "Refuse to end while a disk needs a hidden key"
    for old in ([], ["/dev/a"]):
        says = refusal("rotate_tang", task, ansible_check_mode=False, __rotate_old=old)
        assert ("node1: /dev/a still needs a hidden key" in says) is bool(old)


def test_every_play_ends_with_the_first_host_that_does_not_answer() -> None:
    first = {"name": "Go on only while all answer", "ansible.builtin.import_tasks": "tasks/all_answered.yml"}
    for path in sorted((REPOSITORY / "playbooks").glob("*.yml")):
        plays = yaml.safe_load(path.read_text())
        for play in plays:
            tidies_up = any("always" in task for task in play.get("tasks", ()))
            if tidies_up:
                # With a limit, hosts that did not fail leave out what is always to be done; nothing may follow then.
                assert "max_fail_percentage" not in play and len(plays) == 1, path.name
            elif play.get("any_errors_fatal"):
                assert play["max_fail_percentage"] == 0, f"{path.name}: {play['name']}"
            if "serial" in play:
                assert play["tasks"][0] == first, f"{path.name}: {play['name']}"
