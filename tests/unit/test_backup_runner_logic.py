# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup program decides: sets, retention, heals, XML, freezing, figures."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import pytest
import yaml
from ansible_collections.personal.cluster.roles.backup.files.personal_cluster_backup import (
    borg,
    capture,
    config,
    gluster,
    guests,
    lease,
    manifest,
    metrics,
    restore,
    run,
    sets,
)
from ansible_collections.personal.cluster.roles.backup.files.personal_cluster_backup.errors import BackupError

if TYPE_CHECKING:
    from ansible_collections.personal.cluster.roles.backup.files.personal_cluster_backup.hypervisor import Hypervisor

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def quiet(_text: str) -> None:
    pass


# sets


@pytest.mark.parametrize(
    "guest", ["web", "web-1.lan", "a b+c/d", "größe", "x%2By", "test~1", "".join(map(chr, range(32, 127)))]
)
def test_names_of_archives_survive_any_guest_name(guest: str) -> None:
    name = sets.archive_name(guest, "20261121T020000Z", "vda")
    assert "/" not in name and "{" not in name and name.isascii()
    (found,) = sets.group([name])
    assert (found.guest, found.stamp, found.complete) == (guest, "20261121T020000Z", False)


def test_only_a_manifest_makes_a_set_complete() -> None:
    names = ["web+20261121T020000Z+vda", "web+20261121T020000Z+manifest", "web+20261122T020000Z+vda"]
    names += ["web+20261122T020000Z+manifest.checkpoint", "etc-2026", "db+20261122T020000Z+vda.checkpoint.1"]
    assert [(item.guest, item.stamp[:8], item.complete) for item in sets.group(names)] == [
        ("web", "20261121", True),
        ("db", "20261122", False),
        ("web", "20261122", False),
    ]


def daily(guest: str, days: int, *, complete: bool = True, per_day: int = 1) -> list[sets.BackupSet]:
    """Sets of the last ``days`` days, oldest first."""
    begun = [NOW - timedelta(days=day, hours=hour) for day in range(days) for hour in range(per_day)]
    return [sets.BackupSet(guest, sets.new_stamp(when), ("a",), complete) for when in sorted(begun)]


def test_a_year_of_dailies() -> None:
    found = daily("web", 400)
    gone = sets.expendable(found, NOW, 365, 2)
    assert gone == found[:35]


def test_several_sets_of_a_day_thin_out_after_two_days() -> None:
    found = daily("web", 10, per_day=2)
    kept = [item for item in found if item not in sets.expendable(found, NOW, 365, 2)]
    assert all(item in kept for item in found if item.time >= NOW - timedelta(days=2))
    old = [item for item in kept if item.time < NOW - timedelta(days=2)]
    assert len(old) == len({item.stamp[:8] for item in old}) == 7


def test_last_good_set_stays_however_old_and_remains_go() -> None:
    old = sets.BackupSet("gone", "20200101T020000Z", ("x",), True)
    broken = sets.BackupSet("gone", "20261121T015900Z", ("y",), False)
    assert sets.expendable([old, broken], NOW, 1, 0) == [broken]
    assert sets.expendable([old, broken], NOW, 0, 0) == [broken]


# gluster


def heal_xml(status: str = "Connected", pending: str = "0", split: str = "0", ret: str = "0") -> str:
    brick = (
        f"<brick><name>node1:/bricks/gv0/brick</name><status>{status}</status>"
        f"<numberOfEntriesInHealPending>{pending}</numberOfEntriesInHealPending>"
        f"<numberOfEntriesInSplitBrain>{split}</numberOfEntriesInSplitBrain></brick>"
    )
    ended = f"<opRet>{ret}</opRet><opErrstr>why</opErrstr>"
    return f"<cliOutput><healInfo><bricks>{brick}</bricks></healInfo>{ended}</cliOutput>"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (heal_xml(pending="3"), "has 3 entries to heal"),
        (heal_xml(pending="-"), "has - entries to heal"),
        (heal_xml(split="1"), "1 entries in split-brain"),
        (heal_xml(status="Transport endpoint is not connected", pending="-"), "is away"),
        (heal_xml(ret="-1"), "why"),
        ("Connection failed. Please check if gluster daemon is operational.", "nothing useful"),
        ("<cliOutput><opRet>0</opRet></cliOutput>", "lists no bricks"),
    ],
)
def test_what_stops_a_capture(text: str, part: str) -> None:
    assert part in gluster.problems("gv0", text)[0]
    with pytest.raises(BackupError, match="nothing is captured"):
        gluster.gate(["gv0"], 0, quiet, lambda _volume: text)


@pytest.mark.parametrize("version", ["10.3", "11.1"])
def test_heals_as_gluster_reports_them(version: str) -> None:
    recorded = Path(__file__).parent / "recorded" / "gluster" / version
    assert gluster.problems("gv1", (recorded / "heal.xml").read_text()) == []
    pending = gluster.problems("gv1", (recorded / "heal_pending.xml").read_text())
    assert [text.split("/")[0] for text in pending] == ["volume gv1: brick node1:", "volume gv1: brick node2:"]
    down = gluster.problems("gv1", (recorded / "heal_brick_down.xml").read_text())
    assert any("node3:/bricks/gv1/brick is away" in text for text in down)


def test_heals_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gluster, "POLL_SECONDS", 0.01)
    answers = [heal_xml(pending="1"), heal_xml(pending="1"), heal_xml()]
    said: list[str] = []
    gluster.gate(["gv0"], 5, said.append, lambda _volume: answers.pop(0))
    assert answers == [] and len(said) == 1


def test_the_heals_are_asked_for_without_geo_replications_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "gluster"
    fake.write_text("#!/bin/sh\necho no XML, PYTHON=$PYTHON\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BackupError, match="PYTHON=/bin/true"):
        gluster.gate(["gv0"], 0, quiet)


# guests

DOMAIN = """
<domain type='kvm' id='7'><name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<os><nvram>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram></os>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/gv0/images/web.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/web'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{agent}'/></channel>
</devices></domain>
"""


def guest(agent: str = "disconnected") -> guests.Guest:
    xml = DOMAIN.format(agent=agent)
    return guests.parse(xml, live=xml, domain_id=7)


def test_disks_of_a_guest() -> None:
    found = guest()
    assert [(disk.target, disk.kind, disk.format) for disk in found.disks] == [
        ("vda", "file", "qcow2"),
        ("vdb", "block", "raw"),
    ]
    assert (found.skipped, found.active, found.agent) == (("sda",), True, False)
    assert guest("connected").agent


def test_all_disks_are_in_one_backup() -> None:
    root = ElementTree.fromstring(guests.backup_xml(guest(), "/run/s", "/scratch"))
    assert root.get("mode") == "pull"
    assert [(disk.get("name"), disk.get("backup")) for disk in root.findall("./disks/disk")] == [
        ("vda", "yes"),
        ("vdb", "yes"),
        ("sda", "no"),
    ]
    scratch = [item.get("file", "") for item in root.iter("scratch")]
    assert len(set(scratch)) == 2 and all(path.startswith("/scratch/11111111-") for path in scratch)
    assert guests.backup_socket(ElementTree.tostring(root, encoding="unicode")) == "/run/s"


# capture


class Domains:
    """A hypervisor that notes what it is asked; ``broken`` names what fails."""

    def __init__(self, *broken: str) -> None:
        self.calls: list[str] = []
        self.broken = broken

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what in self.broken:
            raise BackupError(f"{what} failed")

    def find(self, name: str) -> guests.Guest | None:
        return guest()

    def freeze(self, name: str, limit: int) -> int:
        self._do("freeze")
        return 1

    def thaw(self, name: str) -> None:
        self._do("thaw")

    def begin(self, name: str, xml: str) -> None:
        self._do("begin")

    def job(self, name: str) -> str:
        return "" if "job" in self.broken else "<domainbackup/>"

    def abort(self, name: str) -> None:
        self._do("abort")


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    (tmp_path / "state/domain-7-web").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    return config.Config(
        node="node1",
        repository=str(tmp_path / "borg"),
        passphrase_file=str(tmp_path / "secret"),
        base_dir=str(tmp_path / "base"),
        host_id="personal-cluster-node1",
        scratch_dir=str(tmp_path / "scratch"),
        metrics_file=str(tmp_path / "x.prom"),
        qemu_state_dir=str(tmp_path / "state"),
        run_dir=str(tmp_path),
        scratch_limit_percent=101,
    )


def test_thawed_before_the_first_byte_is_read(settings: config.Config) -> None:
    domains = Domains()
    with capture.live(settings, domains, guest("connected"), quiet) as instant:
        assert domains.calls == ["freeze", "begin", "thaw"]
        assert instant.frozen and set(instant.uris) == {"vda", "vdb"}
    assert domains.calls[-1] == "abort"
    assert not list(Path(settings.run_dir).glob("frozen-*"))


def test_without_an_agent_nothing_is_frozen(settings: config.Config) -> None:
    domains = Domains()
    with capture.live(settings, domains, guest(), quiet) as instant:
        assert not instant.frozen
    assert domains.calls == ["begin", "abort"]


def test_a_guest_that_was_thawed_before_its_capture_does_not_count_as_frozen(settings: config.Config) -> None:
    slow = config.Config(**{**vars(settings), "freeze_limit": 0})
    with capture.live(slow, Domains(), guest("connected"), quiet) as instant:
        assert not instant.frozen


@pytest.mark.parametrize("broken", ["freeze", "begin"])
def test_always_thawed_and_ended(settings: config.Config, broken: str) -> None:
    domains = Domains(broken)
    said: list[str] = []
    failing = pytest.raises(BackupError, match="begin failed") if broken == "begin" else contextlib.nullcontext()
    with failing, capture.live(settings, domains, guest("connected"), said.append) as instant:
        assert not instant.frozen and "as after a power cut" in said[0]
    assert domains.calls == ["freeze", "begin", "thaw", "abort"]


def test_a_job_that_ended_early_fails_the_set(settings: config.Config) -> None:
    with (
        pytest.raises(BackupError, match="ended before everything was read"),
        capture.live(settings, Domains("job"), guest(), quiet),
    ):
        pass


def test_scratch_files_go(settings: config.Config) -> None:
    ours = Path(settings.scratch_dir) / f"{guest().uuid}.vda"
    other = Path(settings.scratch_dir) / "other.vda"
    for path in (ours, other):
        path.touch()
    with capture.live(settings, Domains(), guest(), quiet):
        pass
    assert not ours.exists() and other.exists()


def test_looking_for_the_lock_of_a_machine_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE releases a file some time after it was closed; here it is a copy of the descriptor that stays open."""
    image = tmp_path / "web.raw"
    image.write_bytes(b"x")
    opened: list[int] = []
    ask = fcntl.fcntl

    def kept_open(file: IO[bytes], command: int, what: bytes) -> object:
        opened.append(os.dup(file.fileno()))
        return ask(file, command, what)

    monkeypatch.setattr(fcntl, "fcntl", kept_open)
    assert [capture.write_locked(str(image)) for _ in range(2)] == [False, False]
    for descriptor in opened:
        os.close(descriptor)


# figures


def test_figures_are_read_back() -> None:
    text = metrics.render(metrics.Outcome(10, 25, 1, False), {'a"b\\c': 5.0, "web": 0.0})
    assert "personal_cluster_backup_last_run_success 0\n" in text
    assert "personal_cluster_backup_last_run_duration_seconds 15\n" in text
    later = metrics.render(None, {"web": 7.0}, text)
    assert "last_run_success 0" in later and metrics.last_good_of(later) == {"web": 7.0}
    assert metrics.last_good_of(text) == {'a"b\\c': 5.0, "web": 0.0}


def test_figures_replace_the_file_in_one_piece(tmp_path: Path) -> None:
    metrics.write(str(tmp_path / "x.prom"), "a 1\n")
    metrics.write(str(tmp_path / "missing/x.prom"), "a 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]
    assert (tmp_path / "x.prom").stat().st_mode & 0o777 == 0o644


# the rest


def test_the_role_installs_the_whole_package() -> None:
    role = Path(__file__).parents[2] / "roles" / "backup"
    listed = yaml.safe_load((role / "vars/main.yml").read_text())["__backup_modules"]
    assert listed == sorted(path.stem for path in (role / "files/personal_cluster_backup").glob("*.py"))


def test_the_repository_accepts_the_passphrase_before_a_node_keeps_it() -> None:
    role = Path(__file__).parents[2] / "roles" / "backup"
    files = yaml.safe_load((role / "vars/main.yml").read_text())["__backup_files"]
    assert any("backup_passphrase" in item.get("secret_content", "") for item in files)
    tasks = yaml.safe_load((role / "tasks/main.yml").read_text())
    (check,) = [number for number, task in enumerate(tasks) if "personal.cluster.borg_repo" in task]
    (write,) = [number for number, task in enumerate(tasks) if "__backup_files" in json.dumps(task)]
    (repository,) = tasks[check]["personal.cluster.borg_repo"]["repositories"]
    assert check < write and repository["passphrase"] == "{{ backup_passphrase }}"


def test_a_lock_of_the_role_counts_as_dead_only_after_it_ended_for_sure() -> None:
    tasks = yaml.safe_load((Path(__file__).parents[2] / "roles/backup/tasks/main.yml").read_text())
    (check,) = [task["personal.cluster.borg_repo"] for task in tasks if "personal.cluster.borg_repo" in task]
    (repository,) = check["repositories"]
    assert repository["host_id"].startswith(borg.ROLE_HOSTS) and 2 * repository["timeout"] < borg.ROLE_SECONDS


def test_lease_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lease")
    with (
        lease.held(path, 0, "node1", quiet),
        pytest.raises(BackupError, match="held by node1"),
        lease.held(path, 0, "node2", quiet),
    ):
        pass
    with lease.held(path, 0, "node2", quiet):
        assert Path(path).read_text().startswith("node2 ")


def test_lease_names_its_holder_until_that_releases_it(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    for ending in (contextlib.nullcontext(), pytest.raises(SystemExit)):
        with ending as failing, lease.held(str(path), 0, "node1", quiet):
            assert path.read_text() == f"node1 {os.getpid()}\n"
            if failing:
                raise SystemExit(143)
        assert path.read_text() == ""
    with lease.held(str(path), 0, "node1", quiet):
        path.write_text("node2 4711\n")
    assert path.read_text() == "node2 4711\n"


def test_lease_that_is_refused_names_its_last_holder_still(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text("node2 4711\n")

    def refuse(_descriptor: int, left: str) -> None:
        raise BackupError(left)

    with pytest.raises(BackupError, match="^node2 4711$"), lease.held(str(path), 0, "node1", quiet, refuse):
        pass
    assert path.read_text() == "node2 4711\n"


SHOWING = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from personal_cluster_backup import lease
exec(sys.argv[3])
with lease.shown(sys.argv[2], 3, lambda text: print(text, flush=True)):
    print("at work", flush=True)
    time.sleep(float(sys.argv[4]))
"""


@contextlib.contextmanager
def showing(path: Path, before: str = "", seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """A process that shows for ``seconds`` that the lease is its own; another node waits 3 seconds for a sign."""
    package = Path(__file__).parents[2] / "roles/backup/files"
    path.touch()
    argv = [sys.executable, "-c", SHOWING, str(package), str(path), before, str(seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("before", "end"),
    [
        ("os.unlink(sys.argv[2])", signal.SIGTERM),
        ("os.utime = lambda _path: time.sleep(60)", signal.SIGTERM),
        ("os.unlink(sys.argv[2]); signal.signal(signal.SIGTERM, signal.SIG_IGN)", signal.SIGALRM),
    ],
    ids=["fails", "hangs", "does not end when told"],
)
def test_a_run_that_cannot_show_its_lease_ends_before_another_takes_it(
    tmp_path: Path, before: str, end: signal.Signals
) -> None:
    with showing(tmp_path / "lease", before) as process:
        assert process.wait(timeout=3) == -end
        assert process.stdout and "the lease" in process.stdout.read()


def test_a_run_that_stood_still_does_not_go_on_as_if_nothing_was(tmp_path: Path) -> None:
    with showing(tmp_path / "lease") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=3) == -signal.SIGTERM


def test_a_run_that_shows_its_lease_works_on(tmp_path: Path) -> None:
    with showing(tmp_path / "lease", seconds=4) as process:
        assert process.wait(timeout=10) == 0


def test_errors_of_borg() -> None:
    line = '{"type": "log_message", "levelname": "ERROR", "message": "Locked.", "msgid": "LockTimeout"}'
    assert borg.error_of(line) == "Locked. LockTimeout"
    assert borg.error_of('{"type": "progress_percent"}') == ""
    assert borg.error_of("web: vda: 40 % read") == ""


def test_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    needed = ("node", "repository", "passphrase_file", "base_dir", "host_id", "scratch_dir", "metrics_file")
    values: dict[str, object] = dict.fromkeys(needed, "x")
    path.write_text(json.dumps(values | {"volumes": ["gv0"]}))
    assert config.load(str(path)).volumes == ("gv0",)
    for changes, part in (({"colour": 1}, "unknown settings: colour"), ({}, "is incomplete")):
        path.write_text(json.dumps((values if changes else {}) | changes))
        with pytest.raises(BackupError, match=part):
            config.load(str(path))
    with pytest.raises(BackupError, match="run the backup playbook"):
        config.load(str(tmp_path / "none"))


def disk(source: str, data: bytes, **changes: str) -> manifest.SavedDisk:
    values = {"kind": "file", "format": "raw", "archive": "a", "file": "vda.raw"} | changes
    return manifest.SavedDisk("vda", source, **values, size=len(data), sha256=hashlib.sha256(data).hexdigest())


class Archive(borg.Repository):
    """A repository of one file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @contextlib.contextmanager
    def stream(self, archive: str, filename: str) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self.data)


def test_a_disk_whose_hash_differs_is_not_restored(tmp_path: Path) -> None:
    data = b"x" * 5_000_000 + bytes(5_000_000)
    image = str(tmp_path / "web.raw")
    restore.extract_disk(Archive(data), disk(image, data), quiet)
    assert Path(image + ".restoring").read_bytes() == data
    for wrong in (data[:-1], b"y" + data[1:]):
        with pytest.raises(BackupError, match="hash differs"):
            restore.extract_disk(Archive(wrong), disk(image, data), quiet)
        assert not Path(image + ".restoring").exists()


@pytest.mark.parametrize("works", [True, False])
def test_only_a_converted_disk_on_stable_storage_replaces_what_was_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    tool = tmp_path / "bin/qemu-img"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nshift $(($# - 2))\ncp "$1" "$2"\nexit {0 if works else 1}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    final, raw = tmp_path / "web.qcow2.restoring", tmp_path / "web.qcow2.restoring.raw"
    stable: list[tuple[int, bool]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        sync(descriptor)
        stable.append((os.fstat(descriptor).st_ino, raw.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    saved = disk(str(tmp_path / "web.qcow2"), b"data", format="qcow2")
    with contextlib.nullcontext() if works else pytest.raises(BackupError, match="cannot convert"):
        restore.extract_disk(Archive(b"data"), saved, quiet)
    assert final.exists() is works and not raw.exists()
    assert not works or (final.stat().st_ino, True) in stable


class Plundered(borg.Repository):
    """A repository that another node has deleted from."""

    def __init__(self, *left: str) -> None:
        self.archives = list(left)

    def names(self) -> list[str]:
        return self.archives

    def create_from_folder(self, archive: str, folder: str) -> None:
        self.archives.append(archive)


def test_a_set_whose_archives_are_gone_gets_no_manifest(settings: config.Config) -> None:
    saved = (disk("/a", b"", archive="web+s+vda"), disk("/b", b"", archive="web+s+vdb"))
    for left, ending in (
        (["web+s+vda", "web+s+vdb"], contextlib.nullcontext()),
        (["web+s+vdb", "web+s+vda.checkpoint"], pytest.raises(BackupError, match=r"web\+s\+vda is gone")),
    ):
        repository = Plundered(*left)
        with ending as failing:
            tools = run.Tools(settings, cast("Hypervisor", Nobody()), repository, quiet)
            run._save_manifest(tools, guest(), "s", "live", True, saved)
        assert ("web+s+manifest" in repository.archives) is not bool(failing)


def about(*disks: manifest.SavedDisk) -> manifest.Manifest:
    return manifest.Manifest("web", "u", "node1", "s", "live", False, True, False, "", False, disks)


@pytest.mark.parametrize(
    ("saved", "part"),
    [
        (disk("/nowhere/web.raw", b""), "does not exist on this node"),
        (disk("/dev/vg/web", b"", kind="block"), "extract archive a by hand"),
        (disk("/tmp/web.vmdk", b"", format="vmdk"), "extract archive a by hand"),
    ],
)
def test_disks_that_are_not_restored(saved: manifest.SavedDisk, part: str) -> None:
    with pytest.raises(BackupError, match=part):
        restore.refuse_disks(about(saved), "<domain><name>web</name></domain>")


def test_choice_of_the_set() -> None:
    found = daily("web", 2) + daily("db", 1, complete=False)
    assert restore.choose(found, "web", "").stamp == found[1].stamp
    assert restore.choose(found, "web", found[0].stamp).stamp == found[0].stamp
    choices: list[tuple[Callable[[], object], str]] = [
        (lambda: restore.choose(found, "web", "x"), f"it has {found[0].stamp}"),
        (lambda: restore.choose(found, "db", ""), "there are sets of: web"),
    ]
    for call, part in choices:
        with pytest.raises(BackupError, match=part):
            call()


class Nobody:
    """A libvirt without guests."""

    def find(self, name: str) -> None:
        return None

    def guests(self) -> list[guests.Guest]:
        return []


def test_a_guest_that_starts_elsewhere_during_extraction_keeps_its_disk(
    tmp_path: Path, settings: config.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "web.raw"
    image.write_bytes(b"new")
    with image.open("rb") as held:

        class Slow(Archive):
            @contextlib.contextmanager
            def stream(self, archive: str, filename: str) -> Iterator[IO[bytes]]:
                lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, capture.QEMU_WRITE_LOCK_BYTE, 1, 0)
                fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
                yield io.BytesIO(self.data)

        saved = about(disk(str(image), b"old"))
        monkeypatch.setattr(run, "connect", lambda _config: Nobody())
        monkeypatch.setattr(run, "repository", lambda *_: contextlib.nullcontext(Slow(b"old")))
        monkeypatch.setattr(restore, "fetch", lambda *_: (saved, "<domain><name>web</name></domain>"))
        with pytest.raises(BackupError, match=f"{image} is open for writing: a running machine holds it"):
            restore.restore(settings, "web", "", True, quiet)
    assert image.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("answer", "refused", "told"),
    [
        ("echo running", "guest web is running on node2; shut it down there first", ""),
        ("echo paused", "guest web is paused on node2; shut it down there first", ""),
        ("echo 'shut off'", "", ""),
        ("echo \"error: failed to get domain 'web'\" >&2; exit 1", "", ""),
        ("echo 'error: No route to host' >&2; exit 1", "", "node2 does not tell whether web runs there"),
        ("exec sleep 30", "", "node2 does not tell whether web runs there (it took too long)"),
    ],
)
def test_a_guest_that_runs_on_another_node_is_not_restored(
    tmp_path: Path, settings: config.Config, monkeypatch: pytest.MonkeyPatch, answer: str, refused: str, told: str
) -> None:
    """No lock tells: bricks that have restarted since it was started hold none."""
    stand_in = tmp_path / "bin" / "virsh"
    stand_in.parent.mkdir()
    words = "--readonly --connect qemu+tls://10.0.0.2/system domstate -- web"
    stand_in.write_text(f'#!/bin/sh\n[ "$*" = "{words}" ] || exit 99\n{answer}\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    monkeypatch.setattr(restore, "ASK_SECONDS", 1 if "sleep" in answer else 60)
    there = config.Config(**{**vars(settings), "other_nodes": {"node2": "10.0.0.2"}})
    monkeypatch.setattr(run, "connect", lambda _config: Nobody())
    monkeypatch.setattr(run, "repository", lambda *_: contextlib.nullcontext(Archive(b"old")))
    image = tmp_path / "web.raw"
    image.write_bytes(b"new")
    saved = about(disk(str(image), b"old", format="raw"))
    monkeypatch.setattr(restore, "fetch", lambda *_: (saved, "<domain><name>web</name></domain>"))
    lines: list[str] = []
    if refused:
        with pytest.raises(BackupError, match=refused):
            restore.restore(there, "web", "", True, lines.append)
        assert image.read_bytes() == b"new"
    else:
        restore.refuse_running_elsewhere(there, "web", lines.append)
    assert [line.startswith(told) for line in lines] == ([True] if told else [])


def test_the_old_disk_is_kept(tmp_path: Path, settings: config.Config) -> None:
    image = tmp_path / "web.raw"
    image.write_text("old")
    image.chmod(0o640)
    Path(str(image) + ".restoring").write_text("new")
    plain = config.Config(**{**vars(settings), "image_owner": ""})
    restore.put_in_place(plain, str(image), ".before", quiet)
    assert image.read_text() == "new" and image.stat().st_mode & 0o777 == 0o640
    assert Path(str(image) + ".before").read_text() == "old"
