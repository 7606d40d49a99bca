# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks pass to the roles is what the roles' argument specs take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.personal.cluster.plugins.filter.preflight import secret_findings
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight import tang
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import Host, Site
from plays import REPOSITORY, flat, holds, plays_of, read, refusal, tasks_of, templated, variables_of

VLANS = [{"name": "servers", "tag": 101, "address": "10.20.0.11/24"}, {"name": "visitors", "tag": 102}]


def handed_over(layer: str) -> dict[str, Any]:
    """Return the variables of the layer's role that its playbook sets, with what it makes them of."""
    (play,) = [play for play in plays_of(layer) if "roles" in play]
    variables: dict[str, Any] = play["roles"][0]["vars"]
    return variables


def specified(layer: str) -> dict[str, Any]:
    options: dict[str, Any] = read(f"roles/{layer}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


def passed(layer: str, variable: str, declared: dict[str, Any] | None = None, **known: Any) -> Any:
    """Return what the layer's playbook makes of what is declared and known for the role's variable."""
    handed = handed_over(layer)
    own = {name: text for name, text in handed.items() if name.startswith("__")}
    return templated(handed[variable], {**own, **(declared or {})}, **known)


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
KNOWN_SECRETS = "tasks/known_secrets.yml"
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
    known: dict[str, Any] = {
        "groups": groups,
        "inventory_hostname": "node1",
        "cluster_disks": [{}],
        "cluster_nics": {"br0": "eno1"},
    }
    defaults = read("roles/preflight/defaults/main.yml")
    for expression in (defaults["preflight_nodes"], specified("preflight")["preflight_nodes"]["default"]):
        assert templated(expression, {}, **known) == []
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
    known = {"groups": {"tang": list(hosts)}, "hostvars": hosts, "inventory_hostname": node}
    given = templated("{{ encryption_tang_servers }}", read("playbooks/vars/encryption.yml"), **known)
    assert given == (
        servers or {f"http://{host['cluster_address']}:7500": host["tang_thumbprint"] for host in hosts.values()}
    )


def test_preflight_is_told_the_names_of_all_variables_of_a_host() -> None:
    hosts = {"node1": {"cluster_gatway": "10.0.0.1", "x": "{{ nothing }}"}, "node2": {"y": 1}}
    given = passed("preflight", "preflight_variables", inventory_hostname="node1", hostvars=hosts)
    assert given == ["cluster_gatway", "x"]


LAYERS = [play["ansible.builtin.import_playbook"].removesuffix(".yml") for play in read("playbooks/site.yml")][1:]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_judges_what_is_declared_before_anything_else(layer: str) -> None:
    first, *others = plays_of(layer)
    assert first["ansible.builtin.import_playbook"] == "preflight.yml" and first["vars"] == {"preflight_look": False}
    assert first["tags"] == [layer] and all(play["tags"] == [layer] for play in others)


def test_what_is_declared_is_judged_once_in_a_run() -> None:
    (play,) = plays_of("preflight")
    ask, take, report = read("roles/preflight/tasks/main.yml")
    assert (ask["when"], take["when"], report["run_once"]) == ("preflight_look", "not preflight_look", True)
    judged = {"node1": {report["register"]: {"skipped": True}}, "tang1": {}}
    for hostvars, more, asked in (
        ({"node1": {}}, {}, True),
        ({"node1": {}}, {"preflight_look": False}, True),
        (judged, {"preflight_look": False}, False),
        (judged, {"preflight_look": True}, True),
        (judged, {}, True),
    ):
        hosts = templated(play["hosts"], variables_of(play), hostvars=hostvars, **more)
        assert hosts == ("nodes:tang" if asked else "all:!all")
    assert templated(play["hosts"], variables_of(play), preflight_look=False) == "nodes:tang"


def test_preflight_is_told_the_policy_that_disks_will_be_bound_to() -> None:
    """The servers of a policy may be taken from what the playbooks make of the tang hosts."""
    (play,) = plays_of("preflight")
    policy = "{{ {'tang': encryption_tang_servers | dict2items(key_name='url', value_name='thp')} }}"
    declared = {**variables_of(play), "encryption_policy": policy}
    known = {"groups": {"nodes": ["node1"], "tang": ["node1", "tang1", "tang2"]}, "inventory_hostname": "node1"}
    hosts = {"node1": {"cluster_address": "10.0.0.11"}, "tang1": {"cluster_address": "10.0.0.10"}, "tang2": {}}
    given = passed("preflight", "preflight_policy", declared, **known, hostvars=hosts)
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
    bound = {**read("playbooks/vars/encryption.yml"), **example}
    nodes = []
    for name in names[:3]:
        groups = {"nodes": names[:3], "tang": names}
        known = {"groups": groups, "hostvars": hosts, "inventory_hostname": name}
        declared = {
            "address": hosts[name]["cluster_address"],
            "policy": passed("preflight", "preflight_policy", bound, **known),
            "tang_threshold": passed("preflight", "preflight_tang_threshold", bound, **known),
        }
        nodes.append(Host(name, declared, {}, {}, ""))
    site = Site(nodes, [], {"nodes": names[:3], "tang": names})
    assert [*tang.tang_declared(site), *tang.policies_valid(site)] == []


def test_a_rotation_binds_by_the_task_and_the_policy_of_the_layer() -> None:
    layer = plays_of("encryption")[-1]
    (binding,) = [play for play in plays_of("rotate_tang") if play["hosts"] == "nodes" and "serial" in play]
    assert binding["vars_files"] == layer["vars_files"] and binding["serial"] == 1
    assert {task["ansible.builtin.import_role"]["tasks_from"] for task in binding["tasks"][-1:]} == {"bind.yml"}
    assert not [name for name in binding["vars"] if name.startswith("encryption_")]


def tasks_here() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all tasks of all playbooks and roles, with the file that they are in."""
    paths = [*(REPOSITORY / "playbooks").glob("*.yml"), *(REPOSITORY / "roles").glob("*/tasks/*.yml")]
    for path in paths:
        place = path.relative_to(REPOSITORY)
        if place.parts[0] == "playbooks":
            yield from ((str(place), task) for _, task in tasks_of(path.stem))
        else:
            tasks = [task for task in read(str(place)) if "ansible.builtin.import_tasks" not in task]
            yield from ((str(place), task) for task in flat(tasks))


def test_nothing_on_this_computer_is_done_as_root() -> None:
    """A variable of the inventory, which holds for this computer too, outranks a task's become: false."""
    here = [(path, task) for path, task in tasks_here() if task.get("delegate_to") == "localhost"]
    assert len(here) > 5
    assert [
        f"{path}: {task['name']}" for path, task in here if task.get("vars", {}).get("ansible_become") is not False
    ] == []


NO_TEXT = yaml.safe_load("0123456701234567")
SECRETS = read("playbooks/vars/secrets.yml")["__secrets_or_none"]


@pytest.mark.parametrize("name", SECRETS)
def test_preflight_is_told_each_secret_as_it_is(name: str) -> None:
    declared = {**read("playbooks/vars/secrets.yml"), name: NO_TEXT}
    given = passed("preflight", "preflight_secrets", declared)
    assert given == {"cluster_recovery_passphrase": "", "cluster_backup_passphrase": "", name: NO_TEXT}
    assert secret_findings({name: given[name]})[0]["found"].startswith("without quotes")
    for empty in ("", None):
        given = passed("preflight", "preflight_secrets", {**declared, name: empty})
        assert given == {"cluster_recovery_passphrase": "", "cluster_backup_passphrase": ""}


def test_preflight_is_told_of_every_secret_of_the_roles() -> None:
    own = {"backup_passphrase": "cluster_backup_passphrase", "encryption_passphrase": "cluster_recovery_passphrase"}
    roles = [path.parents[1].name for path in (REPOSITORY / "roles").glob("*/meta/argument_specs.yml")]
    secret = re.compile("_(passphrase|password|recovery_key)$")
    named = {name for role in roles for name in specified(role) if secret.search(name)}
    found = {own.get(name, name) for name in named if "remove" not in name}
    assert found | {"cluster_escrow_passphrase"} == set(SECRETS)


@pytest.mark.parametrize("playbook", ["escrow", "restore_header", "rotate_tang"])
@pytest.mark.parametrize(("value", "refused"), [(NO_TEXT, True), ("<put it here>", True), ("correct-horse-bat", False)])
def test_a_playbook_without_preflight_refuses_a_secret_in_its_words(playbook: str, value: Any, refused: bool) -> None:
    play = plays_of(playbook)[0]
    (known,) = read("playbooks/tasks/known_secrets.yml")
    (needed,) = [task["vars"] for task in play["tasks"] if task.get("ansible.builtin.import_tasks") == KNOWN_SECRETS]
    declared = {**variables_of(play), **needed, "cluster_escrow_passphrase": value}
    secrets = templated("{{ __secrets_needed }}", declared)
    findings = secret_findings(secrets)
    assert [finding["variable"] for finding in findings] == ["cluster_escrow_passphrase"] * refused
    judged = known["ansible.builtin.assert"]
    assert holds(judged["that"], {}, __secrets_unfit=findings) is not refused
    assert known["vars"] == {"__secrets_unfit": "{{ __secrets_needed | personal.cluster.secret_findings }}"}
    assert judged["fail_msg"] == "{{ __secrets_unfit | personal.cluster.preflight_report }}"


def test_a_passphrase_that_is_a_number_ends_no_playbook_in_an_error_of_python() -> None:
    known = {"host": "node1", "disk": "gv0", "ansible_play_hosts": ["node1"]}
    assert refusal("restore_header", "Know what is asked", **known, cluster_escrow_passphrase=NO_TEXT) == ""
    grafana = read("roles/telemetry/tasks/main.yml")[0]["ansible.builtin.assert"]["that"]
    assert not holds(grafana, {}, telemetry_grafana_admin_password=NO_TEXT)
    assert holds(grafana, {}, telemetry_grafana_admin_password="correct-horse-battery")


def test_whoever_is_left_out_may_trust_an_authority() -> None:
    look, refuse, *_ = read("roles/base/tasks/main.yml")
    assert (look["run_once"], look["loop"], look["delegate_to"]) == (True, "{{ base_certificate_hosts }}", "{{ item }}")
    found = [{"item": "node1", "stat": {"exists": False}}, {"item": "node2", "stat": {"exists": True}}]
    known = {"__base_trusted": {"results": found}, "base_state_dir": "/here"}
    assert holds(refuse["when"], refuse["vars"], **known)
    assert templated(refuse["ansible.builtin.fail"]["msg"], refuse["vars"], **known).startswith(
        "A certificate authority is trusted already by node2 ("
    )
    assert not holds(refuse["when"], refuse["vars"], __base_trusted={"skipped": True})


@pytest.mark.parametrize("check", [True, False])
def test_only_check_mode_plans_with_empty_certificates(tmp_path: Path, check: bool) -> None:
    known = {"ansible_check_mode": check, "base_state_dir": str(tmp_path), "inventory_hostname": "node1"}
    known |= {"base_key_group": "x", "base_key_mode": "0600"}
    hypervisor = {f"hypervisor_{what}_file": str(tmp_path / what) for what in ("ca", "certificate", "key")}
    for role, names in (("base", ["base_certificate_files"]), ("hypervisor", ["hypervisor_ca", "hypervisor_key"])):
        for name in names:
            declared = read(f"roles/{role}/vars/main.yml")
            if check:
                assert templated(f"{{{{ __{name} }}}}", declared, **known, **hypervisor) is not None
                continue
            with pytest.raises(AnsibleError, match="not found|Unable to find|could not locate"):
                templated(f"{{{{ __{name} }}}}", declared, **known, **hypervisor)


def test_every_play_ends_with_the_first_host_that_does_not_answer() -> None:
    first = {"name": "Go on only while all answer", "ansible.builtin.import_tasks": "tasks/all_answered.yml"}
    for path in sorted((REPOSITORY / "playbooks").glob("*.yml")):
        plays = plays_of(path.stem)
        for play in plays:
            tidies_up = any("always" in task for task in play.get("tasks", ()))
            if tidies_up:
                # With a limit, hosts that did not fail leave out what is always to be done; nothing may follow then.
                assert "max_fail_percentage" not in play and len(plays) == 1, path.name
            elif play.get("any_errors_fatal"):
                assert play["max_fail_percentage"] == 0, f"{path.name}: {play['name']}"
            if "serial" in play:
                assert play["tasks"][0] == first, f"{path.name}: {play['name']}"
