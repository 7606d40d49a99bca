# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks of day two refuse, wait for and remember: their own expressions, filled in."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.vars.reserved import get_reserved_names
from ansible_collections.personal.cluster.plugins.filter.disks import disk_names
from plays import REPOSITORY, holds, plays_of, read, refusal, task_of, tasks_of, templated, value_of, variables_of

KNOWN = "Know what the options say"
NUMBERS = {
    "add_nodes": ["wait"],
    "bring_bricks_home": ["wait"],
    "compare_bricks": ["wait"],
    "migrate_vm": ["move_timeout"],
    "reboot_nodes": ["wait", "move_timeout"],
    "renew_certificates": ["days", "wait", "move_timeout"],
    "replace_disk": ["wait"],
    "replace_node": ["wait"],
}
SWITCHES = {
    "add_nodes": ["running"],
    "escrow": ["purge"],
    "replace_disk": ["compare"],
    "replace_node": ["kept"],
    "restore_vm": ["start"],
    "rotate_tang": ["purge"],
}


def told_at_the_end(playbook: str, **known: Any) -> str:
    """Return what a playbook tells about what is left to do, nothing where it tells nothing."""
    task = [task for _, task in tasks_of(playbook) if "ansible.builtin.debug" in task][-1]
    assert task["run_once"] and "changed_when" not in task
    if not holds(task["when"], {}, **known):
        return ""
    text: str = templated(task["ansible.builtin.debug"]["msg"], {}, **known)
    return text


def test_nodes_that_are_tang_hosts_need_a_threshold() -> None:
    """Whatever a role has for a default: it is there already when the play's own tasks run."""
    *_, known = plays_of("encryption")[-1]["pre_tasks"]
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
            **declared,
        }
        assert holds(known["when"], known["vars"], **variables), declared
        assert holds(known["ansible.builtin.assert"]["that"], known["vars"], **variables) is enough, declared


POLICY = "{{ {'sss': [{'tang': encryption_tang_servers | dict2items(key_name='url', value_name='thp')}]} }}"


@pytest.mark.parametrize("playbook", ["encryption", "replace_disk"])
@pytest.mark.parametrize(
    ("read", "policy", "unread"),
    [
        (["tang1", "tang2"], {}, ""),
        ([], {}, "http://10.0.0.1:7500, http://10.0.0.2:7500"),
        (["tang1"], {}, "http://10.0.0.2:7500"),
        (["tang1"], POLICY, "http://10.0.0.2:7500"),
        ([], {"tang": [{"url": "http://10.0.0.2:7500", "thp": "written out"}]}, ""),
        ([], {"tang": [{"url": "http://192.0.2.7:7500", "thp": "of others"}], "tpm2": {}}, ""),
    ],
)
def test_no_disk_is_bound_to_keys_that_nobody_has_read(
    playbook: str, read: list[str], policy: Any, unread: str
) -> None:
    hosts = {f"tang{number}": {"cluster_address": f"10.0.0.{number}"} for number in (1, 2)}
    for name in read:
        # Check mode finds none on a bare host.
        hosts[name]["tang_thumbprint"] = "" if name == "tang2" else "abc"
    play, task = task_of(playbook, "Know the keys of the tang hosts that the disks are bound to")
    declared = {**variables_of(play), **task["vars"], "encryption_policy": policy}
    known = {"inventory_hostname": "node1", "groups": {"tang": list(hosts), "nodes": ["node1"]}, "hostvars": hosts}
    assert holds(task["ansible.builtin.assert"]["that"], declared, **known) is (not unread)
    says = templated(task["ansible.builtin.assert"]["fail_msg"], declared, **known)
    assert says.startswith(f"node1: its disks are bound to {unread}, whose keys") and "--limit node1,tang." in says
    assert "roles" in play and play["pre_tasks"][0]["ansible.builtin.import_tasks"] == "tasks/known_thumbprints.yml"


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
    declared = {**read("playbooks/vars/storage.yml"), **plays_of("replace_node")[0]["vars"]}
    disks = [{"volume": "gv0"}, {"volume": "gv1"}, {"volume": "bmv0"}]
    known = {"host": "node1", "hostvars": {"node1": {"cluster_disks": disks}}, "cluster_guests": guests}
    own = {name: text for name, text in declared.items() if name.startswith("__")}
    found: list[str] = templated("{{ __replace_bound }}", own, **known)
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
    own = read("playbooks/vars/replaced_disk.yml")
    # What the filter of the collection makes of them, which is not loaded here.
    known = {"__replace_names": disk_names(disks), "__replace_disks": disks, "__gluster_names": ["gv0", "gv1"]}
    found = [templated(f"{{{{ __replace_{what} }}}}", own, **known, disk=asked) for what in ("devices", "volumes")]
    assert [found[0], sorted(found[1])] == [devices, volumes]


@pytest.mark.parametrize(
    ("names", "end"), [([], "one of node1, node3."), (["gv0"], "one of node1, node3 and NAME one of gv0.")]
)
def test_which_disks_there_are_is_told(names: list[str], end: str) -> None:
    known = {"groups": {"nodes": ["node1", "node3"]}, "ansible_play_hosts": ["node1", "node3"], "host": "node9"}
    assert refusal("replace_disk", "Know what is asked", **known, __replace_names=names, disk="x").endswith(end)


@pytest.mark.parametrize(
    ("task", "left"),
    [("Remember which disk it is", ["/dev/b", "/dev/c"]), ("Forget which disk it was", ["/dev/c"])],
)
def test_a_disk_that_is_not_declared_any_more_is_forgotten(task: str, left: list[str]) -> None:
    """Were it put back months later, it would be taken for one that a run is about, and its old copy for a good one."""
    disks = [{"device": "/dev/b", "volume": "gv0"}, {"device": "/dev/c", "volume": "gv1"}]
    known = {
        "host": "node1",
        "disk": "gv0",
        "hostvars": {"node1": {"cluster_disks": disks}},
        "__replace_names": ["gv0", "gv1"],
        "__replace_remembered": {"stdout": "/dev/a\n/dev/c\n"},
        "__replace_fresh": ["/dev/b"],
    }
    (file,) = value_of("replace_disk", task, "files", **known)
    assert (sorted(file["content"].split()), file.get("state", "file")) == (left, "file")


def due_for_growth(disks: dict[str, list[dict[str, str]]], bricks: int, mark: str | None) -> list[str]:
    """Return the volumes that add_nodes.yml would grow or balance, on nodes with these disks."""
    options = {} if mark is None else {"user.personal-cluster.balance": mark}
    known = {
        "groups": {"nodes": list(disks)},
        "hostvars": {name: {"cluster_disks": mine} for name, mine in disks.items()},
        "__add_known": {
            "volumes": {"gv0": {"bricks": [{"set": number // 3} for number in range(bricks)], "options": options}}
        },
    }
    found: list[str] = templated("{{ __add_due }}", plays_of("add_nodes")[0]["vars"], **known)
    return found


def test_machines_may_run_where_nothing_is_added() -> None:
    three = {f"node{number}": [{"volume": "gv0"}, {"volume": "bmv0"}] for number in (1, 2, 3)}
    six = {f"node{number}": [{"volume": "gv0"}] for number in range(1, 7)}
    assert due_for_growth(three, 3, None) == [] and due_for_growth(three, 3, "layout") == []
    assert due_for_growth(six, 3, None) == ["gv0"]
    # A run that died between adding and balancing, or while it waited for that.
    assert due_for_growth(six, 6, "no") == due_for_growth(six, 6, "fix-layout begun") == ["gv0"]
    assert due_for_growth(six, 6, "yes") == [] and due_for_growth(six, 6, "layout") == []
    # The bricks were refused after the mark was set, and taken out of the inventory again.
    assert due_for_growth(three, 3, "no") == []


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


def test_a_node_is_looked_at_before_its_guests_move_and_after_that() -> None:
    """Moving them may take an hour, in which another node or tang may fail."""
    tasks = [task for _, task in tasks_of("reboot_nodes")]
    gates = [at for at, task in enumerate(tasks) if "personal.cluster.gluster_heal" in task]
    proofs = [at for at, task in enumerate(tasks) if "personal.cluster.luks_clevis_info" in task]
    assert all(tasks[at]["personal.cluster.luks_clevis_info"]["prove"] is True for at in proofs)
    names = [task["name"] for task in tasks]
    away, down = names.index("Move the guests away"), names.index("Reboot")
    for looks in (gates, proofs):
        assert [at for at in looks if at < away] and [at for at in looks if away < at < down]


def test_no_node_goes_down_with_what_a_paused_guest_has_in_memory() -> None:
    task, guests = "Refuse while one is paused", {"g1": {"state": "paused"}, "g2": {"state": "running"}}
    known: dict[str, Any] = {"__reboot_found": {"domains": guests}, "__reboot_done": False}
    message = refusal("reboot_nodes", task, **known)
    assert message.startswith("node1 is not rebooted: g1 would lose what is in memory. ") and "virsh resume" in message
    assert refusal("reboot_nodes", task, **known, leave="db, g1") == ""
    assert refusal("reboot_nodes", task, **{**known, "__reboot_done": True}) == ""


def test_no_guest_stays_away_unsaid() -> None:
    task, guests = "See that none stayed away", {"g1": {"state": "paused"}, "g2": {"state": "paused"}}
    item = {"item": "node2", "domains": guests}
    message = refusal("reboot_nodes", task, item=item, __reboot_away=["g1", "g3"])
    assert message.startswith("g1 is paused on node2 ") and "node1 is not rebooted twice" in message
    assert refusal("reboot_nodes", task, item=item, __reboot_away=["g3"]) == ""


@pytest.mark.parametrize("failed", ["", "gv1", "guests"])
def test_a_node_is_back_when_each_of_its_volumes_is_mounted(tmp_path: Path, failed: str) -> None:
    command = value_of("reboot_nodes", "Wait until its volumes are mounted and its pools and guests started", "")
    for name, script in (
        (
            "systemctl",
            'for unit; do :; done; echo "$unit" >>"$0.asked"; case "$unit" in *$FAILED) echo failed; exit 3; esac',
        ),
        ("journalctl", 'for unit; do :; done; echo "why $unit"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "FAILED": failed or "none"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    units = ["personal-cluster-mount@gv0", "personal-cluster-mount@gv1", "personal-cluster-guests"]
    asked = (tmp_path / "systemctl.asked").read_text().split()
    if not failed:
        assert done.returncode == 0 and asked == units
        template = REPOSITORY / "roles/storage/templates/mounts.yml.j2"
        assert '"personal-cluster-mount@{{ volume.name }}.service"' in template.read_text()
        return
    (unit,) = [unit for unit in units if unit.endswith(failed)]
    assert done.returncode != 0 and f"{unit} is failed:\nwhy {unit}\n" in done.stdout
    known = {"__reboot_ready": {"stdout_lines": done.stdout.splitlines()}}
    message = value_of("reboot_nodes", "Tell what did not start", "msg", **known)
    assert "node1 has booted, and after 3600 s" in message and f"{unit} is failed: why {unit} Mend it there" in message


@pytest.mark.parametrize("before", ["", "\r\n", "\n"])
def test_what_sudo_says_before_an_answer_is_no_part_of_it(before: str) -> None:
    """After a password it ends the line, on a terminal of its own."""
    said = f'{before}now\r\n{{"boot": "old", "guests": ["g1"]}}\r\n'
    known: dict[str, Any] = {
        "__reboot_looked": {"stdout": said, "stdout_lines": said.splitlines()},
        "__reboot_found": {"domains": {}},
    }
    written = value_of("reboot_nodes", "Write down which guests come back", "files", **known)
    assert json.loads(written[0]["content"]) == {"boot": "old", "guests": ["g1"]}


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
        "__reboot_looked": {"stdout": f"now\n{memory}\n"},
        "__reboot_found": {"domains": {"g2": {"state": "running"}}},
    }
    if newer is not None:
        known |= {"after": "/f", "__reboot_newer": {"stdout": newer}}
    written = value_of("reboot_nodes", "Write down which guests come back", "files", **known)
    left = json.loads(written[0]["content"])
    assert left["boot"] == boot
    assert left["guests"] == [name for name, here in (("g1", memory != "{}"), ("g2", reboots)) if here]


@pytest.mark.parametrize(
    ("after", "there", "refused"),
    [
        ("/var/lib/dpkg/status", ["", "there\r\n", ""], False),
        ("/var/lib/dpkg/statsu", ["", "", ""], True),
        ("TYPO", ["", "", ""], True),
        # No node needs a reboot.
        ("/var/run/reboot-required", ["", "", ""], False),
        ("/run/reboot-required", ["", "", ""], False),
    ],
)
def test_a_file_that_no_node_has_is_refused(after: str, there: list[str], refused: bool) -> None:
    nodes = ["node1", "node2", "node3"]
    found = {name: {"__reboot_after": {"stdout": said}} for name, said in zip(nodes, there, strict=True)}
    task = "Refuse a file that no node has"
    says = refusal("reboot_nodes", task, after=after, ansible_play_hosts=nodes, hostvars=found)
    assert says.startswith(f"No node of this run has {after}, so none would be rebooted. ") is refused
    condition = task_of("reboot_nodes", task)[1]["when"]
    assert holds(condition, {}, after=after)
    # Without it, and in renew_certificates.yml, whose file check mode does not write.
    for known in ({}, {"after": ""}, {"after": after, "after_this_run": False}):
        assert not holds(condition, {}, **known)


def test_whether_a_file_is_there_is_asked_of_a_shell(tmp_path: Path) -> None:
    for name, answer in (("it is", "there\n"), ("it is not", "")):
        (tmp_path / "it is").touch()
        command = value_of("reboot_nodes", "See whether the file is there", "", after=str(tmp_path / name))
        assert subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout == answer


def test_who_is_left_alone_is_told() -> None:
    tell, leave = (
        task_of("reboot_nodes", name)[1]
        for name in ("Tell that a node is left alone", "Leave a node alone that has booted since")
    )
    assert tell["when"] == leave["when"]
    assert value_of("reboot_nodes", tell["name"], "msg", after="/f").startswith("node1 is left alone: there, /f has ")


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
    for name in ("reboot_nodes", "rotate_tang"):
        module = "personal.cluster.luks_clevis_info"
        looks = [task[module] for _, task in tasks_of(name) if task.get(module)]
        assert looks and all("encryption_tang_timeout | default(omit)" in look["tang_timeout"] for look in looks)


def test_a_disk_that_comes_with_a_header_is_not_taken_for_a_blank_one() -> None:
    task, disk = "Refuse a disk that comes with data", {"kind": "luks2", "mapper": ""}
    known: dict[str, Any] = {
        "host": "node1",
        "__replace_devices": ["/dev/a"],
        "__replace_disks": [{"device": "/dev/a", "volume": "gv0"}],
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
    known = {"__add_pool": {"available": True, "peers": members}}
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


@pytest.mark.parametrize(
    ("path", "looked", "says"),
    [
        ("/bricks/gv1/brick", {"skipped": True}, ""),
        ("/run/gluster/snaps/x/brick1/brick", {"stdout": "\r\nmounted\r\n"}, ""),
        (
            "/run/gluster/snaps/x/brick1/brick",
            {"stdout": ""},
            "node1: nothing is mounted on /run/gluster/snaps/x/brick1, where its brick of gv1 lies. ",
        ),
    ],
)
def test_bricks_come_home_where_each_is_mounted(path: str, looked: dict[str, Any], says: str) -> None:
    found = {"volumes": {"gv1": {"bricks": [{"host": "node1", "path": path}, {"host": "node2", "path": f"/2{path}"}]}}}
    known = {"volume": "gv1", "__home_known": found, "__home_mounted": looked}
    if path.startswith("/run"):
        command = value_of("bring_bricks_home", "See whether its brick is mounted", "", **known)
        for place, answer in (("/proc", "mounted\n"), ("/proc/self", "")):
            asked = ["sh", "-c", command.replace("/run/gluster/snaps/x/brick1", place)]
            assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == answer
    message = refusal("bring_bricks_home", "Refuse while its brick is not mounted", **known)
    assert message.startswith(says) and ("sudo systemctl restart glusterd" in message) is bool(says)


def test_a_tang_that_says_nothing_is_not_waited_for() -> None:
    ask, judge, _ = read("roles/tang/tasks/thumbprint.yml")
    tool, limit, *question = templated(ask["ansible.builtin.command"]["argv"], {}, tang_port=7500)
    assert [str(word) for word in question] == ["tang-show-keys", "7500"] and int(limit) <= 60
    done = subprocess.run([tool, "0.1", "sleep", "9"], stdin=subprocess.DEVNULL, check=False)
    known: dict[str, Any] = {"inventory_hostname": "tang1", "tang_port": 7500, "ansible_check_mode": False}
    for rc, words, why in ((done.returncode, "", "for 60 s"), (7, "curl: (7) no", "curl: (7) no")):
        known["__tang_keys"] = {"rc": rc, "stderr": words}
        assert not holds(judge["ansible.builtin.assert"]["that"], {}, **known)
        message = templated(judge["ansible.builtin.assert"]["fail_msg"], {}, **known)
        assert message.startswith(f"tang1: no answer from tang on port 7500 ({why}). See there: systemctl status")
    assert holds(judge["ansible.builtin.assert"]["that"], {}, **{**known, "ansible_check_mode": True})
    known["__tang_keys"] = {"rc": 0, "stderr": ""}
    assert holds(judge["ansible.builtin.assert"]["that"], {}, **known)


@pytest.mark.parametrize(("value", "good"), [("3600", True), (600, True), ("10m", False), ("", False), ("-1", False)])
def test_a_number_is_one(value: Any, good: bool) -> None:
    said = f"wait is {value}; give a whole number, without a unit. Nothing was changed."
    assert refusal("replace_disk", KNOWN, wait=value) == ("" if good else said)


@pytest.mark.parametrize("value", ["flase", "ture", "", None, 2, "nope", "true", "Yes", True, "no", "off", False, 0])
def test_a_switch_is_one_that_ansible_knows(value: Any) -> None:
    good = str(value).lower() in {"true", "yes", "no", "off", "false", "0"}
    said = f"compare is {value}; give true or false. Nothing was changed."
    assert refusal("replace_disk", KNOWN, compare=value) == ("" if good else said)


@pytest.mark.parametrize("playbook", sorted({*NUMBERS, *SWITCHES}))
def test_what_the_options_are_is_known_before_anything_is_asked(playbook: str) -> None:
    (_, first), *_ = tasks_of(playbook)
    assert first["name"] == KNOWN and refusal(playbook, KNOWN) == ""
    for option in (*NUMBERS.get(playbook, ()), *SWITCHES.get(playbook, ())):
        assert refusal(playbook, KNOWN, **{option: "-5"}).startswith(f"{option} is -5; give ")


def test_all_that_is_mistyped_is_told_at_once() -> None:
    says = refusal("replace_disk", KNOWN, wait="1h", compare="flase")
    assert says == (
        "wait is 1h; give a whole number, without a unit. compare is flase; give true or false. Nothing was changed."
    )


@pytest.mark.parametrize("playbook", sorted(path.stem for path in (REPOSITORY / "playbooks").glob("*.yml")))
def test_each_number_and_each_switch_is_looked_at(playbook: str) -> None:
    text = (REPOSITORY / f"playbooks/{playbook}.yml").read_text()
    for known, kind in ((NUMBERS, "int"), (SWITCHES, "bool")):
        # A variable of the inventory has the name of its role before it.
        used = re.findall(rf"(?<![\w.])([a-z]+|move_timeout) \| default\(\w*\) \| {kind}\b", text)
        assert set(used) <= set(known.get(playbook, ()))


def test_no_option_has_a_name_that_ansible_keeps_for_itself() -> None:
    texts = [path.read_text() for path in (REPOSITORY / "playbooks").glob("*.yml")]
    options = {name for text in texts for name in re.findall(r"-e (\w+)=", text)}
    assert len(options) > 15 and options & set(get_reserved_names()) == set()


@pytest.mark.parametrize("playbook", ["replace_disk", "replace_node", "add_nodes"])
def test_a_wait_holds_for_the_filling_of_a_brick_too(playbook: str) -> None:
    (given,) = [play["vars"] for play in plays_of(playbook) if "storage_fill_wait" in play.get("vars", {})]
    waits = [templated("{{ storage_fill_wait }}", given, **known) for known in ({}, {"wait": "7"})]
    assert waits == [86400, "7"]


def test_new_nodes_before_the_old_ones_are_told_as_such() -> None:
    """The first of the inventory has no gluster then, and knows nobody."""
    _, ask = task_of("add_nodes", "Ask the pool who is in it")
    assert ask["check_mode"] is True
    known: dict[str, Any] = {"ansible_play_hosts": ["node4", "node1"], "groups": {"nodes": ["node4", "node1"]}}
    task = "See that the new nodes come after the old ones"
    says = refusal("add_nodes", task, __add_pool={"available": False}, **known)
    assert says.startswith(
        "node4 is in no pool; the inventory has node4, node1. Write new nodes after those of the pool"
    )


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


@pytest.mark.parametrize(
    ("left_out", "connected", "up"),
    [(["node2"], True, "node2"), (["node2"], False, ""), (["node3", "node2"], True, "node2"), (["node3"], True, "")],
)
def test_no_guest_is_started_twice_for_a_node_that_was_left_out(left_out: list[str], connected: bool, up: str) -> None:
    nodes = ["node1", "node2", "node3"]
    peers = {
        "node1": {"names": ["node1"], "connected": True},
        "10.0.0.12": {"names": ["10.0.0.12", "node2"], "connected": connected},
        "node3": {"names": ["node3"], "connected": False},
    }
    known = {"groups": {"nodes": nodes}, "vm": "db", "__restore_pool": {"available": True, "peers": peers}}
    known["ansible_play_hosts_all"] = [name for name in nodes if name not in left_out]
    task = "Refuse while a node that is left out is up"
    says = refusal("restore_vm", task, **known)
    assert says.startswith(f"{up} is left out of this run and up, and may be running db") if up else says == ""
    play, found = task_of("restore_vm", task)
    assert holds(found["when"], play["vars"], **known)
    assert not holds(found["when"], play["vars"], **{**known, "ansible_play_hosts_all": nodes})


def test_a_guest_does_not_move_while_a_node_may_have_it_too() -> None:
    known: dict[str, Any] = {"groups": {"nodes": ["node1", "node2"]}, "vm": "web"}
    for answer, says in (
        ({"rc": 0}, ""),
        ({"unreachable": True}, "No answer from node2, which may have guest web too."),
    ):
        hosts = {"node1": {"__answer": {"rc": 0}}, "node2": {"__answer": answer}}
        told = refusal("migrate_vm", "Refuse while a node is away", **known, hostvars=hosts)
        assert told.startswith(says) and ("docs/replacing.md" in told) is bool(says)
