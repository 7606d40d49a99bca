# SPDX-License-Identifier: GPL-3.0-or-later
"""How bricks are replaced, added and taken away, on XML recorded from GlusterFS 10.3 and 11.1: two sets of three."""

from __future__ import annotations

import re
import subprocess
import tarfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.balancing import BALANCE
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import (
    Moved,
    task_problems,
    work,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import LOST_AFTER, Healers, end
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.keeping import NEWEST
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    BEGUN,
    TOLD,
    Brick,
    Cluster,
    Directory,
    Heal,
    Layout,
    Task,
    Volume,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_lists
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import look_at, with_heals
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.refilling import (
    Noted,
    Reopened,
    lacks_names,
    parse_pid,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import data_bricks
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.volumes import Volumes
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed
from declared import volume

RELEASES = Path(__file__).parent / "recorded" / "gluster"
FOLDER: dict[str, Path] = {}
NODES = ("node1", "node2", "node3")
USUAL = Directory(exists=True, on_root=False, is_mountpoint=False, volume_id="")
READS = (["pool", "list"], ["volume", "info"], ["volume", "status"], ["volume", "heal"])
Change = Callable[[Cluster], Cluster]
Answers = dict[str, str | list[str]]
# The name of a list, and how many of its entries the bricks of some nodes had at that time.
Recorded = tuple[str, dict[str, int]]


@pytest.fixture(autouse=True, params=["10.3", "11.1"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs on what each release answered."""
    monkeypatch.setitem(FOLDER, "release", RELEASES / request.param)


def text(name: str) -> str:
    """Return a recording, of a volume whose bricks move if no folder is named."""
    return (FOLDER["release"] / (name if "/" in name else f"moving/{name}")).with_suffix(".xml").read_text()


class Fake:
    """A gluster command that answers with recordings or XML, a list of them one after the other."""

    def __init__(self, **answers: str | list[str]) -> None:
        self.asked: list[list[str]] = []
        self._answers: Answers = {
            "pool list": "pool",
            "volume info": "info",
            "volume status": "status",
            "volume heal": "heal",
            **answers,
        }

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        found = self._answers.get(" ".join([*words[:2], *words[-1:]]), self._answers.get(" ".join(words[:2]), "ok"))
        name = found if isinstance(found, str) else found.pop(0)
        return Completed(0, name if name.startswith("<") else text("./start" if name == "ok" else name), "")

    @property
    def changes(self) -> list[list[str]]:
        return [words for words in self.asked if words[:2] not in READS]


def places(*names: str, nodes: Sequence[str] = NODES) -> list[dict[str, str]]:
    return [{"host": node, "path": f"/bricks/{name}/brick"} for name in names for node in nodes]


def item(*names: str, **more: Any) -> dict[str, Any]:
    usual = {"name": "gv2", "bricks": places(*names), "options": {"cluster.quorum-type": "auto"}}
    return volume(**{**usual, **more})


class Site(Volumes):
    """Volumes whose bricks lie on directories that are as they should be, unless the test says otherwise."""

    def __init__(self, run: Fake, wanted: dict[str, Any], work: Path, change: Change = lambda state: state) -> None:
        super().__init__([wanted], Cli(run, str(work), "", 0), "node1", str(work / "backups"))
        self._change = change

    def read(self) -> Cluster:
        seen = super().read()
        return self._change(replace(seen, directories=dict.fromkeys(seen.directories, USUAL)))


def planned(run: Fake, wanted: dict[str, Any], work: Path, change: Change = lambda state: state) -> list[str]:
    """Return the sentences of a plan without refusals, after its steps were applied."""
    site = Site(run, wanted, work, change)
    found = site.plan(site.read())
    assert found.refusals == []
    for step in found.steps:
        step.apply()
    return [step.sentence for step in found.steps]


def refused(run: Fake, wanted: dict[str, Any], work: Path, why: str, change: Change = lambda state: state) -> None:
    """The engine refuses for this reason, and asked for nothing that changes anything."""
    with pytest.raises(Refused, match=re.escape(why)):
        _engine.converge(Site(run, wanted, work, change), check=False, done=[])
    assert all(words[:2] in READS for words in run.asked)


def of_volume(**more: Any) -> Change:
    def change(state: Cluster) -> Cluster:
        return replace(state, volumes={"gv2": replace(state.volumes["gv2"], **more)})

    return change


def with_options(**more: str) -> Change:
    def change(state: Cluster) -> Cluster:
        have = state.volumes["gv2"]
        options = {**have.options, **{name.replace("__", "."): value for name, value in more.items()}}
        return replace(state, volumes={"gv2": replace(have, options=options)})

    return change


def with_task(task: Task) -> Change:
    return lambda state: replace(state, tasks={"gv2": (task,)})


def lies(**more: Any) -> Change:
    def change(state: Cluster) -> Cluster:
        return replace(state, directories=dict.fromkeys(state.directories, replace(USUAL, **more)))

    return change


BALANCE_MARK = "user__personal-cluster.balance"
B2 = [f"{node}:/bricks/b2/brick" for node in NODES]
B3 = [f"{node}:/bricks/b3/brick" for node in NODES]
SHRUNK = {"bricks_purge": True, "allow": ["shrink"]}


def rebalance_of(name: str) -> str:
    """Return the id of the rebalance that a recorded ``volume status`` lists."""
    found = re.search(r"<type>Rebalance</type>\s*<id>([0-9a-f-]{36})</id>", text(name))
    assert found
    return found[1]


def test_nothing_is_to_do(tmp_path: Path) -> None:
    run = Fake()
    assert planned(run, item("b1", "b2", **SHRUNK, options_purge=True, rebalance="full"), tmp_path) == []
    assert run.asked == [["pool", "list"], ["volume", "info"], ["volume", "status"]]


def test_options_that_nobody_declares_are_reset_but_those_of_the_cluster_and_of_glusterd(tmp_path: Path) -> None:
    run = Fake()
    change = with_options(performance__flush_behind="off", user__mine="1", features__quota="on")
    wanted = item("b1", "b2", options={"network.ping-timeout": 20}, options_purge=True)
    assert "cluster.server-quorum-ratio" in text("info")
    assert planned(run, wanted, tmp_path, change) == [
        "set on volume gv2: network.ping-timeout=20 (was not set)",
        "reset on volume gv2: cluster.quorum-type (was auto), performance.flush_behind (was off)",
    ]
    assert run.changes[1:] == [
        ["volume", "reset", "gv2", "cluster.quorum-type"],
        ["volume", "reset", "gv2", "performance.flush_behind"],
    ]
    assert planned(Fake(), item("b1", "b2", options={}), tmp_path) == []


# What volume info (10.3) lists after the commands quota and bitrot have set all that they can set.
OF_QUOTA_AND_BITROT = (
    *("features.alert-time", "features.bitrot", "features.default-soft-limit", "features.expiry-time"),
    *("features.hard-timeout", "features.inode-quota", "features.quota", "features.quota-deem-statfs"),
    *("features.scrub", "features.scrub-freq", "features.scrub-throttle", "features.signer-threads"),
    "features.soft-timeout",
)


@pytest.mark.parametrize("name", OF_QUOTA_AND_BITROT)
def test_purging_leaves_quota_and_bitrot_as_their_commands_set_them(tmp_path: Path, name: str) -> None:
    change = with_options(**{name.replace(".", "__"): "10"})
    assert planned(Fake(), item("b1", "b2", options_purge=True), tmp_path, change) == []


@pytest.mark.parametrize(
    ("name", "command"),
    [("features.quota", "quota"), ("features.scrub", "bitrot"), ("cluster.granular-entry-heal", "heal")],
)
def test_what_gluster_changes_with_other_commands_is_not_set(tmp_path: Path, name: str, command: str) -> None:
    wanted = item("b1", "b2", options={name: "Active"})
    refused(Fake(), wanted, tmp_path, f"option {name} is changed with gluster volume {command} gv2, not here")
    assert planned(Fake(), wanted, tmp_path, with_options(**{name.replace(".", "__"): "Active"})) == []


def test_purging_does_not_turn_off_sharding_or_tls(tmp_path: Path) -> None:
    wanted = item("b1", "b2", options={}, options_purge=True)
    refused(Fake(), wanted, tmp_path, "changing features.shard of a volume", with_options(features__shard="on"))
    refused(Fake(), wanted, tmp_path, "changing client.ssl cuts off", with_options(client__ssl="on"))


def test_a_set_is_taken_out_when_its_data_has_moved(tmp_path: Path) -> None:
    run = Fake(**{"volume remove-brick status": ["removal_running", "removal_status", "removal_status"] * 2})
    assert planned(run, item("b1", **SHRUNK), tmp_path) == [
        "move the data of volume gv2 off " + ", ".join(B2),
        "take out of volume gv2: " + ", ".join(B2),
    ]
    last = [words[-1] for words in run.changes]
    assert last == ["start", *["status"] * 3, "commit"] and run.changes[0][:3] == ["volume", "remove-brick", "gv2"]
    assert all("force" not in words for words in run.asked)


@pytest.mark.parametrize("status", ["status_removing", "status_removed"])
def test_an_interrupted_removal_is_completed(tmp_path: Path, status: str) -> None:
    run = Fake(**{"volume status": status, "volume remove-brick status": "removal_status"})
    assert planned(run, item("b1", **SHRUNK), tmp_path) == ["take out of volume gv2: " + ", ".join(B2)]
    assert [words[-1] for words in run.changes] == ["status", "commit"]


def test_without_wait_data_begins_to_move_and_nothing_is_taken_out(tmp_path: Path) -> None:
    run = Fake()
    assert len(planned(run, item("b1", **SHRUNK, wait=False), tmp_path)) == 1
    assert run.changes == [["volume", "remove-brick", "gv2", *B2, "start"]]
    for status in ("status_removing", "status_removed"):
        assert planned(Fake(**{"volume status": status}), item("b1", **SHRUNK, wait=False), tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("<failures>0", "<failures>1", "files stayed behind on"),
        ("<skipped>0", "<skipped>1", "files stayed behind on"),
        ("<statusStr>completed", "<statusStr>failed", "has not ended its part"),
        ("<id>", "<id>elsewhere", "host [0-9a-f-]{36} has not"),
    ],
)
def test_bricks_on_which_data_stayed_are_not_taken_out(tmp_path: Path, old: str, new: str, why: str) -> None:
    class Left(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            done = super().__call__(argv, **more)
            return replace(done, stdout=done.stdout.replace(old, new)) if "remove-brick" in argv else done

    run = Left(**{"volume status": "status_removed", "volume remove-brick status": "removal_status"})
    site = Site(run, item("b1", **SHRUNK), tmp_path)
    step = site.plan(site.read()).steps[0]
    with pytest.raises(ClusterError, match=why) as caught:
        step.apply()
    assert "stop keeps the bricks" in str(caught.value) and "commit" not in [words[-1] for words in run.asked]


@pytest.mark.parametrize("where", ["", "Brick ops failed on 127.1.1.2. "])
def test_a_task_is_asked_again_while_its_process_begins_or_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    said = f"{where}Glusterd Syncop Mgmt brick op 'Rebalance' failed. Please check brick log file for details."
    answers = [
        f"<cliOutput><opRet>-1</opRet><opErrno>0</opErrno><opErrstr>{said}</opErrstr></cliOutput>",
        text("rebalance_running"),
        text("rebalance_status"),
    ]
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    call = Moved(("volume", "rebalance", "gv2", "status"), 60, "run again")

    def run(argv: Sequence[str], **_: Any) -> Completed:
        return Completed(0, answers.pop(0), "")

    work(Cli(run, str(tmp_path), "", 0), [call])
    assert not answers


def test_a_slow_answer_is_waited_for_and_its_absence_is_no_refusal(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.extend(argv)
        return Completed(1, "Error : Request timed out\n", "")

    # A glusterd that hangs has all others wait for it, each time.
    why = "add-brick gv0: no answer within 300 s; the pool may still be at work on it.*restart glusterd on the node"
    with pytest.raises(ClusterError, match=why):
        Cli(run, str(tmp_path), "", 0)("volume", "add-brick", "gv0", "n4:/b")
    assert "--timeout=300" in asked


def test_a_task_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    call = Moved(("volume", "rebalance", "gv2", "status"), -1, "run again")
    with pytest.raises(
        ClusterError, match="gluster volume rebalance gv2 status: not over within .*; it goes on, run again"
    ):
        work(Cli(Fake(**{"volume rebalance": "rebalance_running"}), str(tmp_path), "", 0), [call])
    assert task_problems(ET.fromstring(text("rebalance_status")), frozenset()) == []


@pytest.mark.parametrize(
    ("wanted", "change", "why"),
    [
        (item("b1"), None, "bricks that are not declared: node1:/bricks/b2/brick"),
        (item("b1", bricks_purge=True), None, "allow: [shrink] permits it"),
        (item("b9", **SHRUNK), None, "no set would be left"),
        (item("b1", bricks=places("b1") + places("b2")[:2] + places("b9")[:1], **SHRUNK), None, "only whole sets"),
        (item("b1", **SHRUNK), with_options(features__shard="on"), "moving the shards of a volume"),
        (item("b1", **SHRUNK, state="present"), of_volume(status="created"), "it was never started; data moves"),
        (item("b1", **SHRUNK), of_volume(status="stopped"), "taken out while it is stopped, and what waits"),
        (item("b1", **SHRUNK), of_volume(snapshots=1), "taken out while it has 1 snapshot"),
        (item("b1", replica=2, **{**SHRUNK, "allow": ["shrink", "replica_change"]}), None, "while its layout changes"),
    ],
)
def test_what_is_not_taken_out(tmp_path: Path, wanted: dict[str, Any], change: Change | None, why: str) -> None:
    refused(Fake(), wanted, tmp_path, why, change or (lambda state: state))


@pytest.mark.parametrize("wanted", [item("b1", **SHRUNK), item("b1", "b2", "b3")], ids=["shrink", "grow"])
@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"volume status": "status_dead"}, "brick node3:/bricks/b1/brick is offline"),
        ({"volume heal": "heal_dead"}, "the number of entries to heal is unknown"),
        ({"volume status": "status_rebalancing"}, "a Rebalance is in progress"),
    ],
)
def test_a_troubled_volume_neither_shrinks_nor_grows(
    tmp_path: Path, wanted: dict[str, Any], answers: Answers, why: str
) -> None:
    refused(Fake(**answers), wanted, tmp_path, why)


def two_copies(state: Cluster) -> Cluster:
    have = state.volumes["gv2"]
    two = of_volume(layout=Layout(2), bricks=(*have.bricks[:2], *have.bricks[3:5]))(state)
    return replace(two, heals={"gv2": {str(brick): Heal(0, 0) for brick in have.bricks}})


class Stopped(Fake):
    """A gluster whose volume was started once, and is not now."""

    def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
        done = super().__call__(argv, **more)
        return replace(done, stdout=done.stdout.replace("<status>1</status>", "<status>2</status>"))


COPIES = {"allow": ["replica_change"]}


@pytest.mark.parametrize(
    ("wanted", "change", "what"),
    [
        (item("b1", "b2", "b3", state="present"), None, "no bricks are added"),
        (item("b1", "b2", "b3", state="started"), None, "no bricks are added"),
        (item("b1", "b2", state="present", **COPIES), two_copies, "no bricks are added"),
        (item("b1", "b2", state="started", **COPIES), two_copies, "no bricks are added"),
        (item("b1", "b2", rebalance="full"), with_options(**{BALANCE_MARK: "no"}), "it is not rebalanced"),
    ],
)
def test_what_a_stopped_volume_lacks_is_unknown(
    tmp_path: Path, wanted: dict[str, Any], change: Change | None, what: str
) -> None:
    why = f"{what} while it is stopped, and what waits to be healed is unknown; start it first, by a run"
    refused(Stopped(), wanted, tmp_path, why, change or (lambda state: state))
    assert planned(Stopped(), item("b1", "b2"), tmp_path) == ["start volume gv2"]


def test_a_volume_that_was_never_started_lacks_nothing(tmp_path: Path) -> None:
    sentences = planned(Fake(), item("b1", "b2", "b3"), tmp_path, of_volume(status="created"))
    assert [sentence.split()[0] for sentence in sentences] == ["start", "add"]


def test_a_removal_that_failed_is_neither_committed_nor_begun_again(tmp_path: Path) -> None:
    class Failed(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            done = super().__call__(argv, **more)
            return replace(done, stdout=done.stdout.replace("<statusStr>completed", "<statusStr>failed"))

    b2 = ", ".join(B2)
    why = f"moving the data off {b2} failed; gluster volume remove-brick gv2 {' '.join(B2)} stop keeps the bricks"
    refused(Failed(**{"volume status": "status_removed"}), item("b1", **SHRUNK), tmp_path, why)


def test_a_removal_that_nobody_committed_bars_other_changes(tmp_path: Path) -> None:
    run = Fake(**{"volume status": "status_removed"})
    refused(run, item("b1", "b2", "b3"), tmp_path, "a Remove brick (completed) waits to be committed or stopped")


@pytest.mark.parametrize(
    ("rebalance", "start", "mark"),
    [("full", ["start"], "yes"), ("fix-layout", ["fix-layout", "start"], "layout")],
)
def test_new_bricks_are_balanced(tmp_path: Path, rebalance: str, start: list[str], mark: str) -> None:
    run = Fake(**{"volume rebalance status": "rebalance_status"})
    wanted = item("b1", "b2", "b3", rebalance=rebalance)
    assert planned(run, wanted, tmp_path)[1:] == [f"rebalance volume gv2 ({rebalance})"]
    assert run.changes == [
        ["volume", "set", "gv2", BALANCE, "no"],
        ["volume", "add-brick", "gv2", *B3],
        # A run that dies while it waits, or waits in vain, has no other one begin it anew.
        ["volume", "set", "gv2", BALANCE, f"{rebalance} begun"],
        ["volume", "rebalance", "gv2", *start],
        ["volume", "rebalance", "gv2", "status"],
        ["volume", "set", "gv2", BALANCE, mark],
    ]


class Marked(Fake):
    """A gluster whose volume has a mark of an earlier run."""

    def __init__(self, mark: str, **answers: str | list[str]) -> None:
        super().__init__(**answers)
        self._option = f"<option><name>{BALANCE}</name><value>{mark}</value></option></options>"

    def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
        done = super().__call__(argv, **more)
        return replace(done, stdout=done.stdout.replace("</options>", self._option))


@pytest.mark.parametrize(("mark", "rebalance", "due"), [
    ("no", "none", False), ("no", "fix-layout", True), ("no", "full", True),
    ("layout", "fix-layout", False), ("layout", "full", True), ("yes", "full", False),
])  # fmt: skip
def test_what_an_earlier_run_left_unbalanced_is_balanced(tmp_path: Path, mark: str, rebalance: str, due: bool) -> None:
    run = Marked(mark, **{"volume rebalance status": "rebalance_status"})
    assert bool(planned(run, item("b1", "b2", rebalance=rebalance), tmp_path)) is due
    assert (["volume", "heal", "gv2", "info", "summary"] in run.asked) is due


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"volume status": "status_dead"}, "brick node3:/bricks/b1/brick is offline"),
        ({"volume heal": "heal_dead"}, "the number of entries to heal is unknown"),
        ({"volume status": "status_removed"}, "a Remove brick (completed) waits to be committed or stopped"),
    ],
)
def test_a_troubled_volume_is_not_rebalanced(tmp_path: Path, answers: Answers, why: str) -> None:
    wanted = item("b1", "b2", rebalance="full")
    refused(Marked("no", **answers), wanted, tmp_path, f"it is not rebalanced while {why}")


def test_a_single_set_has_nothing_to_balance(tmp_path: Path) -> None:
    def one_set(state: Cluster) -> Cluster:
        have = state.volumes["gv2"]
        marked = with_options(**{BALANCE_MARK: "no"})(state).volumes["gv2"]
        return replace(state, volumes={"gv2": replace(marked, bricks=have.bricks[:3])})

    assert planned(Fake(), item("b1", rebalance="full"), tmp_path, one_set) == []


def test_a_rebalance_that_an_interrupted_run_began_is_waited_for(tmp_path: Path) -> None:
    run = Fake(**{"volume status": "status_rebalancing", "volume rebalance status": "rebalance_status"})
    site = Site(run, item("b1", "b2", rebalance="full"), tmp_path, with_options(**{BALANCE_MARK: "no"}))
    seen = site.read()
    found = site.plan(replace(seen, heals={"gv2": Site(Fake(), item("b1"), tmp_path).read().heals["gv2"]}))
    assert found.refusals == []
    found.steps[0].apply()
    assert [words[3:] for words in run.changes] == [
        ["status"],
        [BALANCE, f"full begun after {rebalance_of('status_rebalancing')}"],
        ["start"],
        ["status"],
        [BALANCE, "yes"],
    ]


@pytest.mark.parametrize(
    ("status", "wait", "calls"),
    [
        ("status_rebalancing", False, []),
        ("status_rebalanced", False, []),
        ("status_rebalancing", True, [["status"], [BALANCE, "yes"]]),
        ("status_rebalanced", True, [["status"], [BALANCE, "yes"]]),
        ("status", True, [[BALANCE, "full begun"], ["start"], ["status"], [BALANCE, "yes"]]),
        ("status", False, [[BALANCE, "full begun"], ["start"]]),
    ],
)
def test_a_rebalance_that_was_not_waited_for_is_not_taken_for_done(
    tmp_path: Path, status: str, wait: bool, calls: list[list[str]]
) -> None:
    run = Fake(**{"volume status": status, "volume rebalance status": "rebalance_status"})
    wanted = item("b1", "b2", rebalance="full", wait=wait)

    def begun(state: Cluster) -> Cluster:
        return with_heals(
            Cli(Fake(), str(tmp_path), "", 0), with_options(**{BALANCE_MARK: "full begun"})(state), ["gv2"]
        )

    planned(run, wanted, tmp_path, begun)
    assert [words[3:] for words in run.changes] == calls


def test_what_was_balanced_before_bricks_came_is_balanced_again(tmp_path: Path) -> None:
    run = Fake(**{"volume status": "status_rebalanced", "volume rebalance status": "rebalance_status"})
    wanted = item("b1", "b2", "b3", rebalance="full")

    def begun(state: Cluster) -> Cluster:
        seen = with_options(**{BALANCE_MARK: "full begun"})(state)
        return replace(seen, tasks={"gv2": (Task("Rebalance", "completed"),)})

    planned(run, wanted, tmp_path, begun)
    assert [words[3:] for words in run.changes if words[1] == "rebalance"] == [["start"], ["status"]]


def test_a_rebalance_that_did_not_come_to_its_start_is_started(tmp_path: Path) -> None:
    """The run died between the mark and the start: what is listed is the one before."""
    run = Fake(**{"volume status": "status_rebalanced", "volume rebalance status": "rebalance_status"})

    def begun(state: Cluster) -> Cluster:
        marked = with_options(**{BALANCE_MARK: f"full begun after {rebalance_of('status_rebalanced')}"})(state)
        return with_heals(Cli(Fake(), str(tmp_path), "", 0), marked, ["gv2"])

    planned(run, item("b1", "b2", rebalance="full"), tmp_path, begun)
    assert ["start"] in [words[3:] for words in run.changes]


@pytest.mark.parametrize("state", ["started", "stopped", "present"])
@pytest.mark.parametrize("status", ["stopped", "created"])
def test_a_reset_may_stay_declared_where_the_volume_does_not_run(tmp_path: Path, state: str, status: str) -> None:
    uuid = Site(Fake(), item("b1", "b2"), tmp_path).read().volumes["gv2"].uuid
    wanted = item("b1", "b2", state=state, reset=places("b1")[2:])

    def still(volume_id: str) -> Change:
        return lambda seen: replace(on_node3(volume_id=volume_id)(of_volume(status=status)(seen)), online=frozenset())

    site = Site(Fake(), wanted, tmp_path, still(uuid))
    found = site.plan(site.read())
    assert found.refusals == []
    assert [step.sentence for step in found.steps] == (["start volume gv2"] if state == "started" else [])
    refused(Fake(), wanted, tmp_path, "change only while" if state == "stopped" else "reset only while", still(""))
    # Of the bricks of other hosts, nothing can be told while none runs.
    elsewhere = Site(Fake(), wanted, tmp_path, lambda seen: replace(of_volume(status=status)(seen), online=frozenset()))
    assert elsewhere.plan(elsewhere.read()).refusals == []


def test_no_names_are_waited_for_in_a_volume_that_stops(tmp_path: Path) -> None:
    site = Site(Fake(), item("b1", "b2", state="stopped"), tmp_path, on_node3(refilling=TOLD))
    assert [step.sentence for step in site.plan(site.read()).steps] == ["stop volume gv2"]


def test_what_would_need_the_volume_running_is_not_asked_of_one_that_is_to_be_stopped(tmp_path: Path) -> None:
    why = "it is declared stopped, and its bricks change only while it is started"
    for wanted in (item("b1", state="stopped", **SHRUNK), swapped("b1", "new", state="stopped")):
        refused(Fake(), wanted, tmp_path, why)
    assert planned(Fake(), item("b1", "b2", state="stopped"), tmp_path) == ["stop volume gv2"]


def lost(state: Cluster) -> Cluster:
    return replace(state, peers=tuple(replace(peer, connected=peer.local) for peer in state.peers))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lost, "it is not deleted while peer node2"),
        (of_volume(snapshots=2), "it has 2 snapshots; delete them first"),
    ],
)
def test_a_volume_is_not_half_deleted(tmp_path: Path, change: Change, why: str) -> None:
    wanted = item("b1", "b2", state="absent", allow=["delete"])
    refused(Fake(), wanted, tmp_path, why, change)
    assert len(planned(Fake(), wanted, tmp_path)) == 2


@pytest.mark.parametrize("wanted", [{"state": "absent", "allow": ["delete"]}, {"state": "stopped"}])
def test_a_volume_is_not_stopped_while_its_data_moves(tmp_path: Path, wanted: dict[str, Any]) -> None:
    options = {"cluster.quorum-type": "auto", "network.ping-timeout": 21}
    wanted = item("b1", "b2", options=options, **wanted)
    for kind in ("Rebalance", "Remove brick"):
        why = f"it is not stopped while a {kind} is in progress"
        refused(Fake(), wanted, tmp_path, why, with_task(Task(kind, "in progress")))
    # Gluster stops it when all data has moved, committed or not.
    assert planned(Fake(), wanted, tmp_path, with_task(Task("Remove brick", "completed")))


def test_the_new_brick_of_a_set_is_declared_as_the_arbiter_that_it_becomes(tmp_path: Path) -> None:
    grown = {"replica": 3, "arbiter": 1, "allow": ["replica_change"]}
    bricks = places("b1", "b2")
    wanted = item(bricks=[bricks[2], *bricks[:2], *bricks[3:]], **grown)
    refused(Fake(), wanted, tmp_path, "declare it last, after node2:/bricks/b1/brick", two_copies)
    assert planned(Fake(), item(bricks=bricks, **grown), tmp_path, two_copies)


@pytest.mark.parametrize("value", ["1", "on", "Enable"])
def test_a_volume_is_sharded_whatever_the_word_for_it(tmp_path: Path, value: str) -> None:
    sharded = with_options(features__shard=value)
    refused(Fake(), item("b1", "b2", "b3"), tmp_path, "it is sharded, and adding bricks", sharded)
    same = item("b1", "b2", options={"features.shard": "on", "cluster.quorum-type": "auto", "client.ssl": 0})
    assert planned(Fake(), same, tmp_path, sharded) in ([], ["set on volume gv2: client.ssl=0 (was not set)"])


def test_shards_are_not_moved(tmp_path: Path) -> None:
    change = with_options(features__shard="on")
    refused(
        Fake(),
        item("b1", "b2", "b3", rebalance="full", allow=["grow"]),
        tmp_path,
        "moving shards under running guests",
        change,
    )
    refused(Fake(), item("b1", "b2", "b3"), tmp_path, "it is sharded, and adding bricks below running guests", change)
    assert len(planned(Fake(), item("b1", "b2", "b3", allow=["grow"]), tmp_path, change)) == 1


def swapped(old: str, new: str, **more: Any) -> dict[str, Any]:
    """Replace the brick of node1 in the first set."""
    first = {"host": "node1", "path": f"/bricks/{new}/brick"}
    pair = {"from": {"host": "node1", "path": f"/bricks/{old}/brick"}, "to": first}
    return item(bricks=[first, *places("b1")[1:], *places("b2")], replace=[pair], **more)


def test_a_brick_is_replaced_while_all_is_well(tmp_path: Path) -> None:
    run = Fake(**{"volume status gv2": "online_new"})
    site = Site(run, swapped("b1", "new"), tmp_path)
    found = site.plan(site.read())
    assert found.refusals == []
    old, new = "node1:/bricks/b1/brick", "node1:/bricks/new/brick"
    assert [step.sentence for step in found.steps] == [
        f"replace brick {old} of volume gv2 by {new}: the others of its set fill it"
    ]
    with pytest.raises(FileNotFoundError):
        found.steps[0].apply()
    assert run.changes == [["volume", "replace-brick", "gv2", old, new, "commit", "force"]]
    assert planned(Fake(), swapped("b9", "b1"), tmp_path) == []


def test_a_dead_brick_is_reset_and_one_that_runs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = {"host": "node3", "path": "/bricks/b1/brick"}
    answers: Answers = {"volume status": ["status_dead", "status"], "volume heal": "heal_dead"}
    notes: list[str] = []
    monkeypatch.setattr(Noted, "act", lambda self, _cli: notes.append(self.text))
    run = Fake(**answers)
    site = Site(run, item("b1", "b2", reset=[dead]), tmp_path)
    seen = site.read()
    peers = tuple(replace(peer, local="node3" in peer.names) for peer in seen.peers)
    found = site.plan(replace(seen, peers=peers))
    assert found.refusals == []
    found.steps[0].apply()
    brick = "node3:/bricks/b1/brick"
    assert [step.sentence for step in found.steps] == [
        f"reset brick {brick} of volume gv2: the others of its set fill it",
        f"start brick {brick} of volume gv2 anew when it has all names, so that open files are opened on it",
    ]
    assert notes == [BEGUN, TOLD]
    assert [words[2:] for words in run.changes] == [
        ["gv2", brick, "start"],
        ["gv2", brick, brick, "commit", "force"],
    ]
    assert planned(Fake(), item("b1", "b2", reset=[dead]), tmp_path) == []


def test_a_brick_is_reset_under_the_name_that_its_volume_has_for_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noted, "act", lambda self, _cli: None)
    bricks = [{**brick, "host": brick["host"].replace("node3", "node3.lan")} for brick in places("b1", "b2")]

    def change(state: Cluster) -> Cluster:
        (uuid,) = (peer.uuid for peer in state.peers if "node3" in peer.names)
        return on_node3()(replace(state, hosts={**state.hosts, "node3.lan": uuid}))

    answers: Answers = {"volume status": ["status_dead", "status"], "volume heal": "heal_dead"}
    run = Fake(**answers)
    site = Site(run, item(bricks=bricks, reset=bricks[2:3]), tmp_path, change)
    found = site.plan(site.read())
    assert found.refusals == []
    found.steps[0].apply()
    brick = "node3:/bricks/b1/brick"
    # The answers of gluster that are waited for afterwards name it so, and not as it is declared.
    assert [words[2:] for words in run.changes] == [["gv2", brick, "start"], ["gv2", brick, brick, "commit", "force"]]


def test_snapshots_do_not_keep_a_dead_brick_from_being_reset(tmp_path: Path) -> None:
    run = Fake(**{"volume status": "status_dead", "volume heal": "heal_dead"})
    site = Site(run, item("b1", "b2", reset=[{"host": "node3", "path": "/bricks/b1/brick"}]), tmp_path)
    found = site.plan(on_node3()(of_volume(snapshots=3)(site.read())))
    assert found.refusals == [] and len(found.steps) == 2


def on_node3(**more: Any) -> Change:
    """Return what node3 sees, its directories being so."""

    def change(state: Cluster) -> Cluster:
        peers = tuple(replace(peer, local="node3" in peer.names) for peer in state.peers)
        return replace(state, peers=peers, directories=dict.fromkeys(state.directories, replace(USUAL, **more)))

    return change


def test_a_brick_that_has_its_data_is_started_and_not_reset(tmp_path: Path) -> None:
    dead = {"host": "node3", "path": "/bricks/b1/brick"}
    answers: Answers = {"volume status": ["status_dead", "status", "status"], "volume heal": "heal_dead"}
    run = Fake(**answers)
    uuid = Site(Fake(), item("b1", "b2"), tmp_path).read().volumes["gv2"].uuid
    assert planned(run, item("b1", "b2", reset=[dead]), tmp_path, on_node3(volume_id=uuid)) == [
        "start brick node3:/bricks/b1/brick of volume gv2, which has its data and needs no reset"
    ]
    assert run.changes == [["volume", "start", "gv2", "force"]]
    run = Fake(**{"volume status": "status_dead", "volume heal": "heal_dead"})
    refused(run, item("b1", "b2", reset=[dead]), tmp_path, "carries the id of a volume", on_node3(volume_id="x"))
    run = Fake(**{"volume status": "status_dead", "volume heal": "heal_dead"})
    unmounted = on_node3(volume_id=uuid, on_root=True)
    refused(run, item("b1", "b2", reset=[dead]), tmp_path, "lies on the root filesystem", unmounted)


def test_a_run_that_died_before_the_brick_was_started_anew_is_completed(tmp_path: Path) -> None:
    site = Site(Fake(), item("b1", "b2"), tmp_path, on_node3(refilling=TOLD))
    assert [step.sentence.split(" of volume")[0] for step in site.plan(site.read()).steps] == [
        "start brick node3:/bricks/b1/brick",
        "start brick node3:/bricks/b2/brick",
    ]


def test_a_reset_that_gluster_was_not_told_of_is_begun_again_though_the_brick_runs(tmp_path: Path) -> None:
    uuid = Site(Fake(), item("b1", "b2"), tmp_path).read().volumes["gv2"].uuid

    def change(state: Cluster) -> Cluster:
        seen = with_heals(Cli(Fake(), str(tmp_path), "", 0), on_node3(volume_id=uuid)(state), ["gv2"])
        begun = replace(USUAL, volume_id=uuid, refilling=BEGUN)
        return replace(seen, directories={**seen.directories, "/bricks/b1/brick": begun})

    site = Site(Fake(), item("b1", "b2"), tmp_path, change)
    found = site.plan(site.read())
    assert found.refusals == []
    assert [step.sentence.split(" of volume")[0] for step in found.steps] == [
        "reset brick node3:/bricks/b1/brick",
        "start brick node3:/bricks/b1/brick",
    ]


def test_a_run_that_died_before_the_brick_ran_again_is_completed_at_once(tmp_path: Path) -> None:
    answers: Answers = {"volume status": "status_dead", "volume heal": "heal_dead"}
    uuid = Site(Fake(), item("b1", "b2"), tmp_path).read().volumes["gv2"].uuid
    lost = item("b1", "b2", reset=places("b1")[2:])
    site = Site(Fake(**answers), lost, tmp_path, on_node3(refilling=TOLD, volume_id=uuid))
    found = site.plan(site.read())
    assert found.refusals == []
    assert [step.sentence.split(" when ")[0] for step in found.steps] == [
        "start brick node3:/bricks/b1/brick of volume gv2, which has its data and needs no reset",
        "start brick node3:/bricks/b1/brick of volume gv2 anew",
        "start brick node3:/bricks/b2/brick of volume gv2 anew",
    ]


def test_a_note_is_read_where_it_was_written(tmp_path: Path) -> None:
    brick = Brick("node3", str(tmp_path / "brick"), "u3")
    assert look_at(brick.path).refilling == ""
    Noted(brick, BEGUN).act(Cli(Fake(), str(tmp_path), "", 0))
    assert look_at(brick.path).refilling == BEGUN
    # A brick of another volume may lie beside it.
    assert look_at(str(tmp_path / "other")).refilling == ""


SET = {f"{node}:/bricks/gv0/brick" for node in NODES}


def test_names_that_a_brick_lacks(tmp_path: Path) -> None:
    known = ET.fromstring(text("./heal_names"))
    for count in known.iter("numberOfEntries"):
        count.text = (count.text or "").replace("-", "0")
    gfids = sorted({file.get("gfid", "") for file in known.iter("file")})
    assert {name.text for name in known.iter("name")} == SET
    for gfid in gfids:
        assert lacks_names(known, str(tmp_path), SET)
        place = tmp_path / ".glusterfs" / gfid[:2] / gfid[2:4]
        place.mkdir(parents=True)
        (place / gfid).touch()
    assert not lacks_names(known, str(tmp_path), SET)
    assert lacks_names(ET.fromstring(text("./heal_names")), str(tmp_path), SET)
    assert lacks_names(known, str(tmp_path), SET | {"node4:/bricks/gv0/brick"})
    # What another set lacks says nothing of this one: its bricks have other names, and one of them may be dead.
    (bricks,) = known.iter("bricks")
    name = "<name>node1:/bricks/gv0b/brick</name>"
    for entry, number in (('<file gfid="x"/>', "1"), ("", "-")):
        told = f"<brick>{name}{entry}<numberOfEntries>{number}</numberOfEntries></brick>"
        bricks.append(ET.fromstring(told))
    assert not lacks_names(known, str(tmp_path), SET)
    # A directory that waits may have more names.
    link = tmp_path / ".glusterfs" / gfids[0][:2] / gfids[0][2:4] / gfids[0]
    link.unlink()
    link.symlink_to(tmp_path)
    assert lacks_names(known, str(tmp_path), SET)


def test_the_daemon_is_told_to_look_again_while_names_are_missing(tmp_path: Path) -> None:
    recorded = text("./heal_names")
    answers = [recorded, text("status"), "Launching heal operation has been successful"]
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([word for word in argv[1:] if not word.startswith("-")])
        return Completed(0, answers.pop(0), "")

    begun = Reopened("gv2", Brick("node3", str(tmp_path), "u3"), frozenset(SET), 60)
    cli = Cli(run, str(tmp_path), "", 0)
    assert not begun.has_names(cli, Healers("u3"))
    assert asked == [["volume", "heal", "gv2", "info"], ["volume", "status"], ["volume", "heal", "gv2"]]


def test_names_are_not_waited_for_while_no_daemon_brings_them(tmp_path: Path) -> None:
    crashed = down(text("status"), "Self-heal")
    answers = [text("./heal_names"), crashed, text("heal")]
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([word for word in argv[1:] if not word.startswith("-")])
        return Completed(0, answers.pop(0), "")

    begun = Reopened("gv2", Brick("node3", str(tmp_path), "u3"), frozenset(SET), 60)
    assert not begun.has_names(Cli(run, str(tmp_path), "", 0), Healers("u3"))
    assert asked[1:] == [["volume", "status"], ["volume", "start", "gv2", "force"]]


def down(status: str, *kinds: str) -> str:
    """Return ``volume status`` after the first process of each kind has crashed."""
    for kind in kinds:
        node = next(found for found in re.findall("<node>.*?</node>", status, re.S) if kind in found)
        status = status.replace(node, node.replace("<status>1<", "<status>0<"))
    return status


def test_a_dead_brick_is_not_started_for_the_sake_of_a_daemon(tmp_path: Path) -> None:
    """Gluster may refuse to start it, and the volume that waits for its daemon has nothing to do with it."""
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([word for word in argv[1:] if not word.startswith("-")])
        return Completed(0, down(text("status"), "Self-heal", "/bricks/"), "")

    assert Healers("").run(Cli(run, str(tmp_path), "", 0))
    assert asked == [["volume", "status"]]


def test_a_self_heal_daemon_that_a_reset_crashed_is_started(tmp_path: Path) -> None:
    answers = {"crashed": down(text("status"), "Self-heal")}
    asked: list[list[str]] = []
    run = Fake()

    def answer(argv: Sequence[str], **more: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        asked.append(words)
        return Completed(0, answers.pop("crashed"), "") if answers else run(argv, **more)

    cli = Cli(answer, str(tmp_path), "", 0)
    healers = Healers("")
    assert not healers.run(cli) and healers.run(cli)
    assert asked[1] == ["volume", "start", "gv2", "force"] and len(asked) == 3


def test_a_self_heal_daemon_that_runs_unknown_to_glusterd_is_ended(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    threading.Thread(target=process.wait).start()
    status = (FOLDER["release"] / "status.xml").read_text()
    nodes = re.findall("<node>.*?</node>", status, re.S)
    mine = next(node for node in nodes if "Self-heal" in node and "localhost" in node)
    host = re.findall("<peerid>(.*?)</peerid>", mine)[0]
    known = re.sub("<pid>.*?<", f"<pid>{process.pid}<", mine)
    lost = known.replace("<status>1<", "<status>0<")
    answer = status.replace(mine, known).replace("<volName>gv1</volName>", f"<volName>gv1</volName>{lost}")
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([word for word in argv[1:] if not word.startswith("-")])
        return Completed(0, answer, "")

    healers, elsewhere = Healers(host), Healers("another host")
    cli = Cli(run, str(tmp_path), "", 0)
    for _ in range(LOST_AFTER + 1):
        assert not elsewhere.run(cli)
    for _ in range(LOST_AFTER):
        assert not healers.run(cli)
    assert process.poll() is None
    assert not healers.run(cli) and process.wait() != 0
    assert asked[-1] == ["volume", "start", "gv1", "force"]


def test_the_configuration_is_kept_before_bricks_change(tmp_path: Path) -> None:
    (tmp_path / "vols").mkdir()
    (tmp_path / "vols" / "info").write_text("as it was")
    kept = tmp_path / "backups"
    kept.mkdir()
    for day in range(1, NEWEST + 2):
        (kept / f"glusterd-202601{day:02}T000000Z.tar.gz").touch()
    asked: list[int] = []

    class Watched(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            if "replace-brick" in argv:
                asked.append(len([path for path in kept.iterdir() if path.stat().st_size]))
            return super().__call__(argv, **more)

    with pytest.raises(FileNotFoundError):
        planned(Watched(**{"volume status gv2": "not recorded"}), swapped("b1", "new"), tmp_path)
    assert asked == [1]
    files = sorted(kept.iterdir())
    assert len(files) == NEWEST and files[0].name == "glusterd-20260103T000000Z.tar.gz"
    assert files[-1].stat().st_mode & 0o777 == 0o600
    with tarfile.open(files[-1]) as archive:
        info = archive.extractfile("vols/info")
        assert info is not None and info.read() == b"as it was"


def test_options_alone_are_changed_without_a_copy(tmp_path: Path) -> None:
    assert planned(Fake(), item("b1", "b2", options={"network.ping-timeout": "21"}), tmp_path)
    assert not (tmp_path / "backups").exists()


def test_bricks_of_a_snapshot_that_was_restored_are_told_apart(tmp_path: Path) -> None:
    def restored(state: Cluster) -> Cluster:
        have = state.volumes["gv2"]
        bricks = tuple(replace(one, path=f"/run/gluster/snaps/d0e8/{n}/brick") for n, one in enumerate(have.bricks))
        return replace(state, volumes={"gv2": replace(have, bricks=bricks)})

    refused(Fake(), item("b1", "b2"), tmp_path, "snapshot that was restored, playbooks/bring_bricks_home.yml", restored)


def test_the_process_of_a_brick(tmp_path: Path) -> None:
    volume = Site(Fake(), item("b1", "b2"), tmp_path).read().volumes["gv2"]
    pids = {parse_pid(ET.fromstring(text("status")), brick) for brick in volume.bricks}
    assert len(pids) == len(volume.bricks) and 0 not in pids
    dead = next(brick for brick in volume.bricks if str(brick) == "node3:/bricks/b1/brick")
    assert parse_pid(ET.fromstring(text("status_dead")), dead) == 0
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    threading.Thread(target=process.wait).start()
    end(process.pid)
    assert process.wait() != 0
    end(process.pid)


@pytest.mark.parametrize(
    ("wanted", "answers", "change", "why"),
    [
        (swapped("b1", "new"), {"volume heal": "heal_dead"}, None, "runs, and may be what the others heal from, and"),
        (swapped("b1", "new"), {"volume status": "status_dead"}, None, "while brick node3:/bricks/b1/brick is offline"),
        (swapped("b1", "new"), {"volume status": "status_rebalancing"}, None, "while a Rebalance is in progress"),
        (swapped("b1", "new"), {}, of_volume(snapshots=3), "while it has 3 snapshots"),
        (swapped("b1", "new", state="present"), {}, of_volume(status="stopped"), "only while it is started"),
        (swapped("b1", "new"), {}, lies(on_root=True), "lies on the root filesystem"),
        (swapped("b1", "new"), {}, lies(empty=False), "holds files that no volume made"),
        (swapped("b1", "new"), {}, lies(is_mountpoint=True), "is a mount point itself"),
        (swapped("b1", "new"), {}, lies(exists=False), "mount its filesystem first"),
        (swapped("b1", "new"), {}, lies(volume_id="x"), "carries the id of a volume, of a former one"),
        (swapped("b7", "new"), {}, None, "node1:/bricks/b7/brick is none of its bricks"),
        (swapped("b1", "b2"), {}, None, "is one of its bricks already"),
        ({**swapped("b1", "new"), "bricks": places("b1", "b2")}, {}, None, "is not among its declared bricks"),
        (
            {
                **swapped("b1", "new"),
                "bricks": places("new")[:1] + places("b1")[1:] + places("b1")[:1] + places("b2")[1:],
            },
            {},
            None,
            "node1:/bricks/b1/brick is to be replaced and still declared",
        ),
        (
            item("b1", "b2", reset=places("b1")[2:]),
            {"volume status": "status_dead", "volume heal": "heal_dead"},
            None,
            "node3:/bricks/b1/brick is not on this host; run on node3",
        ),
        (
            item("b1", "b2", reset=places("b1")[2:]),
            {"volume status": "status_dead", "volume heal": "no_answer"},
            None,
            "is dead and is not reset while the heal state of node1:/bricks/b1/brick is unknown",
        ),
        (item("b1", "b2", reset=places("b9")[:1]), {}, None, "node1:/bricks/b9/brick is none of its bricks"),
    ],
)
def test_what_is_not_replaced_or_reset(
    tmp_path: Path, wanted: dict[str, Any], answers: Answers, change: Change | None, why: str
) -> None:
    if answers.get("volume heal") == "no_answer":
        answers = {**answers, "volume heal": "pool"}
    refused(Fake(**answers), wanted, tmp_path, why, change or (lambda state: state))


def test_split_brain_keeps_a_dead_brick(tmp_path: Path) -> None:
    class Split(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            done = super().__call__(argv, **more)
            return replace(done, stdout=done.stdout.replace("InSplitBrain>0", "InSplitBrain>1"))

    run = Split(**{"volume status": "status_dead", "volume heal": "heal_dead"})
    refused(run, item("b1", "b2", reset=places("b1")[2:]), tmp_path, "1 entries of node1:/bricks/b1/brick are in split")


DATA, ARBITER = "node2:/bricks/b1/brick", "node3:/bricks/b1/brick"
TOO_LITTLE = f"2 entries that wait to be healed have too little good data left on {DATA}"
ARBITRATED = {"arbiter": 1}
DISPERSED = {"disperse": 3, "redundancy": 1}


def reset_dead(run: Fake, wanted: dict[str, Any], work: Path, *allow: str) -> _engine.Plan[Cluster]:
    """Plan the reset of a dead brick, on its host."""

    def there(state: Cluster) -> Cluster:
        return replace(state, peers=tuple(replace(peer, local=True) for peer in state.peers))

    site = Site(run, {**wanted, "allow": list(allow)}, work, there)
    return site.plan(site.read())


def arbitrated(state: str = "", *lists: str) -> Fake:
    """Return a gluster with a volume whose last brick is an arbiter.

    :param state: ``_dead``: its first brick is; ``_stale``: and the second lacks what was written last;
        ``_arbiter_dead``: its last one is.
    :param lists: what ``heal info`` answers, one after the other.
    """
    answers: Answers = {
        "pool list": "arbiter/pool",
        "volume info": "arbiter/info",
        "volume status": f"arbiter/status{state}",
        "volume heal": f"arbiter/heal{state}",
        "volume heal info": list(lists),
    }
    return Fake(**answers)


def fewer(name: str, **kept: int) -> str:
    """Return a recorded answer of ``heal info`` with the first entries alone: so many on the brick of each node."""
    root = ET.fromstring(text(name))
    for brick in root.iter("brick"):
        count = kept.get((brick.findtext("name") or "").partition(":")[0])
        if count is not None:
            for file in brick.findall("file")[count:]:
                brick.remove(file)
            for number in brick.iter("numberOfEntries"):
                number.text = str(count)
    return ET.tostring(root, encoding="unicode")


def test_a_volume_with_an_arbiter_is_as_declared(tmp_path: Path) -> None:
    site = Site(arbitrated(), item("b1", **ARBITRATED), tmp_path)
    state = site.read()
    (have,) = state.volumes.values()
    assert site.plan(state).steps == [] and (have.status, have.layout) == ("started", Layout(3, arbiter=1))
    assert len(state.online) == len(state.healers) == 3
    told = ET.fromstring(text("arbiter/info")).iter("brick")
    assert [brick.findtext("isArbiter") for brick in told] == ["0", "0", "1"]
    assert str(have.bricks[2]) == ARBITER and DATA in map(str, data_bricks(have.bricks, have))
    heals = with_heals(Cli(arbitrated(), str(tmp_path), "", 0), state, ["gv2"]).heals["gv2"]
    assert heals == dict.fromkeys(map(str, have.bricks), Heal(0, 0))


UNKNOWN_LACK = f"what {DATA} may lack is unknown: heal gv2 info has no list of"


@pytest.mark.parametrize(
    ("state", "earlier", "later", "why"),
    [
        ("_dead", ("dead", {}), ("dead", {}), ""),
        # What is written between two looks, or between two bricks of one, comes to the lists of both.
        ("_dead", ("dead", {"node2": 0, "node3": 1}), ("dead", {"node2": 1}), ""),
        ("_stale", ("stale", {}), ("stale", {}), TOO_LITTLE),
        ("_dead", ("no_arbiter", {}), ("no_arbiter", {}), UNKNOWN_LACK),
        # Gluster answers with a failure then.
        ("_stale", ("arbiter_alone", {}), ("arbiter_alone", {}), f"{UNKNOWN_LACK} {DATA}, {ARBITER}"),
    ],
    ids=["both", "written meanwhile", "stale", "no arbiter", "no data brick"],
)
def test_what_a_data_brick_lacks_keeps_the_dead_one_beside_an_arbiter(
    tmp_path: Path, state: str, earlier: Recorded, later: Recorded, why: str
) -> None:
    lists = [fewer(f"arbiter/names_{name}", **kept) for name, kept in (earlier, later)]
    run = arbitrated(state, *lists)
    found = reset_dead(run, item("b1", **ARBITRATED, reset=places("b1")[:1]), tmp_path)
    assert run.asked[3:] == [["volume", "heal", "gv2", "info", "summary"], *[["volume", "heal", "gv2", "info"]] * 2]
    assert len(found.refusals) == bool(why)
    for refusal in found.refusals:
        assert why in refusal and "is dead and is not reset while" in refusal and "allow: [stale_source]" in refusal


def test_what_only_a_dead_brick_had_is_given_up_by_name_and_an_arbiter_had_nothing(tmp_path: Path) -> None:
    for state, dead, allow in (("_stale", 0, "stale_source"), ("_arbiter_dead", 2, "delete")):
        run, brick = arbitrated(state), places("b1")[dead]
        found = reset_dead(run, item("b1", **ARBITRATED, reset=[brick]), tmp_path, allow)
        assert found.refusals == [] and found.steps[0].sentence.startswith(f"reset brick {brick['host']}:")
        assert run.asked[3:] == [["volume", "heal", "gv2", "info", "summary"]]


def listed(**entries: str) -> str:
    """Return an answer of ``heal info``: the entries of each node, a letter each, ``-`` for a brick without a list."""
    bricks = [
        f"<brick><name>{node}:/bricks/b1/brick</name>"
        + "".join(f"<file gfid='{letter}'>/f</file>" for letter in letters)
        + f"<numberOfEntries>{'-' if letters == '-' else len(letters)}</numberOfEntries></brick>"
        for node, letters in entries.items()
    ]
    return f"<cliOutput><healInfo><bricks>{''.join(bricks)}</bricks></healInfo><opRet>0</opRet></cliOutput>"


class Degraded(Fake):
    """A gluster of whose volume the first brick of a node is dead.

    :param lists: what ``heal info`` answers, one after the other.
    :param layout: of its sets.
    """

    def __init__(self, dead: str, *lists: str, layout: Mapping[str, int]) -> None:
        super().__init__()
        self._layout = {"replica": 3 if "disperse" not in layout else 1, **layout}
        self._dead = re.compile(rf"(<hostname>{dead}<.*?<status>)1<", re.DOTALL)
        self._lists = list(lists)

    def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
        done = super().__call__(argv, **more)
        if self.asked[-1] == ["volume", "heal", "gv2", "info"]:
            return replace(done, stdout=self._lists.pop(0))
        told = done.stdout
        for name, count in self._layout.items():
            told = re.sub(rf"<{name}Count>\d+<", f"<{name}Count>{count}<", told)
        return replace(done, stdout=self._dead.sub(r"\g<1>0<", told, count=1) if "volStatus" in told else told)


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (listed(node2="ab", node3="ab"), ""),
        (listed(node2="abc", node3="a"), TOO_LITTLE),
        (listed(node2="a", node3="-"), f"what {DATA}, {ARBITER} may lack is unknown"),
    ],
    ids=["both", "one fragment", "no list"],
)
def test_a_dead_fragment_stays_while_the_others_are_too_few_for_an_entry(tmp_path: Path, lists: str, why: str) -> None:
    run = Degraded("node1", lists, lists, layout=DISPERSED)
    found = reset_dead(run, item("b1", "b2", **DISPERSED, reset=places("b1")[:1]), tmp_path)
    assert len(found.refusals) == bool(why) and all(why in refusal for refusal in found.refusals)


def test_a_dead_brick_stays_while_what_its_only_copy_lacks_is_unknown(tmp_path: Path) -> None:
    two = {"replica": 2}
    for allow, why in (([], f"{DATA} is the only other copy, and may lack data"), (["stale_source"], "")):
        run = Degraded("node1", listed(node2=""), listed(node2=""), layout=two)
        wanted = item("b1", "b2", **two, reset=places("b1")[:1])
        found = reset_dead(run, wanted, tmp_path, "replica_change", *allow)
        assert len(found.refusals) == bool(why) and all(why in refusal for refusal in found.refusals)


def test_the_lists_of_bricks() -> None:
    lists = parse_lists(ET.fromstring(text("./heal_names")))
    assert {name.partition(":")[0]: len(gfids) for name, gfids in lists.items()} == {"node1": 4, "node2": 4}


def test_a_lost_peer_bars_all_but_its_own_bricks(tmp_path: Path) -> None:
    def lost(name: str) -> Change:
        def change(state: Cluster) -> Cluster:
            peers = tuple(replace(peer, connected=name not in peer.names) for peer in state.peers)
            return replace(state, peers=peers)

        return change

    answers: Answers = {"volume status": "status_dead", "volume heal": "heal_dead"}
    wanted = item("b1", "b2", reset=places("b1")[2:])
    refused(Fake(**answers), wanted, tmp_path, "while peer node2 is not connected", lost("node2"))
    site = Site(Fake(**answers), wanted, tmp_path, lost("node3"))
    assert [why for why in site.plan(site.read()).refusals if "connected" in why] == []


def test_two_bricks_of_one_set_are_not_replaced_together(tmp_path: Path) -> None:
    new = places("new")
    pairs = [{"from": old, "to": to} for old, to in zip(places("b1")[:2], new[:2], strict=True)]
    wanted = item(bricks=[*new[:2], *places("b1")[2:], *places("b2")], replace=pairs)
    refused(Fake(), wanted, tmp_path, "node1:/bricks/b1/brick and node2:/bricks/b1/brick are of one set")


def test_nothing_is_added_beside_a_replaced_brick(tmp_path: Path) -> None:
    wanted = swapped("b1", "new")
    wanted["bricks"] += places("b3")
    refused(Fake(), wanted, tmp_path, "take new nodes and disks out of the inventory again")


def test_a_volume_without_copies_has_nothing_to_fill_a_brick_from(tmp_path: Path) -> None:
    def single(state: Cluster) -> Cluster:
        have: Volume = state.volumes["gv2"]
        return replace(state, volumes={"gv2": replace(have, layout=replace(have.layout, replica=1))})

    wanted = {**swapped("b1", "new"), "replica": 1, "allow": ["replica_change"]}
    refused(Fake(), wanted, tmp_path, "no copies to fill a new brick from", single)


def test_new_bricks_lie_where_gluster_would_take_them(tmp_path: Path) -> None:
    wanted = item("b1", "b2", "b3")
    refused(Fake(), wanted, tmp_path, "node1:/bricks/b3/brick lies on the root filesystem", lies(on_root=True))
    refused(Fake(), wanted, tmp_path, "node1:/bricks/b3/brick is a mount point itself", lies(is_mountpoint=True))
    uuid = Site(Fake(), wanted, tmp_path).read().volumes["gv2"].uuid
    refused(Fake(), wanted, tmp_path, "carries the id of volume gv2", lies(volume_id=uuid))


@pytest.mark.parametrize(
    ("path", "other"),
    [("/bricks/gv0/brick", ""), ("/bricks/gv0/brick/x/brick", ""), ("/bricks/gv0", ""), ("/bricks/b2/brick/x", "b2")],
)
def test_no_brick_lies_in_another(tmp_path: Path, path: str, other: str) -> None:
    def change(state: Cluster) -> Cluster:
        bricks = tuple(replace(brick, path="/bricks/gv0/brick") for brick in state.volumes["gv2"].bricks[:3])
        return replace(
            state, volumes={**state.volumes, "gv0": replace(state.volumes["gv2"], name="gv0", bricks=bricks)}
        )

    wanted = item(bricks=[*places("b1", "b2", "b3")[:-1], {"host": "node3", "path": path}])
    near = f"node3:/bricks/{other or 'gv0'}/brick of volume {'gv2' if other else 'gv0'}"
    refused(Fake(), wanted, tmp_path, f"node3:{path} and brick {near} are or contain each other", change)
    beside = {**wanted, "bricks": [*wanted["bricks"][:-1], {"host": "node3", "path": "/bricks/gv0/brick2"}]}
    assert len(planned(Fake(), beside, tmp_path, change)) == 1


def test_the_directory_of_a_brick(tmp_path: Path) -> None:
    there = look_at(str(tmp_path / "brick"))
    assert there.exists and not there.is_mountpoint and there.volume_id == ""
    assert not look_at(str(tmp_path / "no" / "brick")).exists
    assert look_at("/proc").is_mountpoint and look_at("/proc").on_root and not look_at("/proc/brick").on_root
