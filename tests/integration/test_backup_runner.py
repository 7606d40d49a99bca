# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup program against a real libvirtd, QEMU and borg.

The guest is a boot sector that counts: it writes one number to its first disk, then to its second, for ever. In a
capture of one instant the two numbers differ by one at most.

Needs root and the Debian packages borgbackup, libvirt-daemon-system, python3-libvirt, python3-libnbd, qemu-utils.
"""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import needs

TOP = Path(__file__).resolve().parents[2]
PROGRAM = TOP / "roles" / "backup" / "files" / "personal-cluster-backup"
NEEDED = ("borg", "libvirtd", "qemu-nbd", "qemu-system-x86_64", "setpriv")
needs(*NEEDED)
MIB = 1024 * 1024
COUNTING = bytes.fromhex(
    "31c08ec08ed8"  # es = ds = 0
    "ff06007e"  # again: count in the word at 7e00
    "b80103bb007eb90200ba8000cd13"  # write it to sector 2 of the first disk
    "b80103bb007eb90200ba8100cd13"  # and of the second one
    "ebde"  # and again
)
DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{folder}/{name}.raw'/><target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{folder}/{name}.qcow2'/><target dev='vdb' bus='virtio'/>
      <boot order='2'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='ide'/><readonly/></disk>
  </devices>
</domain>
"""


RESTING = """
<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
  <name>{name}</name><uuid>8d64c3c9-e90a-4cff-8a13-eab9ed08f6fa</uuid>
  <memory unit='MiB'>32</memory>
  <os><type>hvm</type></os>
  <devices><disk type='file' device='disk'>
    <driver name='qemu' type='raw'/><source file='{folder}/idle.raw'/><target dev='vda' bus='virtio'/>
  </disk></devices>
  <test:runstate>5</test:runstate>{more}
</domain></node>
"""
QEMU_WRITE_LOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.1)


class Node:
    """A libvirtd of our own, not privileged, with a guest and a repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"qemu:///session?socket={folder}/run/libvirt/libvirt-sock"
        self.config = folder / "backup.json"
        self.metrics = folder / "metrics" / "backup.prom"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.metrics.parent.mkdir()
        (folder / "passphrase").write_text("correct horse\n")
        self.configure()

    def configure(self, **changes: object) -> None:
        values = {
            "node": "node1",
            "repository": f"{self.folder}/borg",
            "passphrase_file": f"{self.folder}/passphrase",
            "base_dir": f"{self.folder}/base",
            "host_id": "personal-cluster-node1",
            "scratch_dir": str(self.scratch),
            "metrics_file": str(self.metrics),
            "libvirt_uri": self.uri,
            "qemu_state_dir": f"{self.folder}/config/libvirt/qemu/lib",
            "run_dir": f"{self.folder}/locks",
            "image_owner": "",
            "lease_wait": 2,
            "dead_after": 4,
            "scratch_limit_percent": 100,
        }
        self.config.write_text(json.dumps(values | changes))

    def make_repository(self) -> None:
        environ = {**os.environ, "BORG_PASSPHRASE": "correct horse", "BORG_BASE_DIR": f"{self.folder}/base"}
        argv = ["borg", "init", "-e", "repokey-blake2", f"{self.folder}/borg"]
        subprocess.run(argv, env=environ, check=True, capture_output=True)

    def command(self, *arguments: str) -> list[str]:
        return ["/usr/bin/python3", str(PROGRAM), "--config", str(self.config), *arguments]

    def backup(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def virsh(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(["virsh", "-c", self.uri, *arguments], capture_output=True, text=True, timeout=60)
        assert not ok or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def result(self, *arguments: str) -> str:
        """Return what a command prints; progress goes to standard error."""
        return subprocess.run(self.command(*arguments), stdout=subprocess.PIPE, text=True, check=True).stdout

    def sets(self, guest: str) -> list[str]:
        return [item["set"] for item in json.loads(self.result("list", "--json", "--vm", guest))]

    def names(self) -> list[str]:
        return self.result("borg", "list", "--short", "--consider-checkpoints").split()

    def saved(self, archive: str, name: str) -> bytes:
        argv = self.command("borg", "extract", "--stdout", f"::{archive}", name)
        return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout

    def guest(self, name: str) -> None:
        """Define a guest: 64 MiB that count, and 16 MiB in qcow2."""
        raw, qcow2 = self.folder / f"{name}.raw", self.folder / f"{name}.qcow2"
        raw.write_bytes(COUNTING.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512) + os.urandom(MIB))
        os.truncate(raw, 64 * MIB)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(qcow2), "16M"], check=True)
        for path in (raw, qcow2):
            path.chmod(0o666)
        xml = self.folder / f"{name}.xml"
        xml.write_text(DOMAIN.format(name=name, folder=self.folder))
        self.virsh("define", str(xml))

    def counter(self, name: str) -> int:
        with (self.folder / f"{name}.raw").open("rb") as file:
            return count_in(file.read(1024))

    def start(self, name: str) -> None:
        before = self.counter(name)
        self.virsh("start", name)
        until(lambda: self.counter(name) not in (before, 0))

    def jobs(self, name: str) -> bool:
        return "None" not in self.virsh("domjobinfo", name)


def count_in(disk: bytes) -> int:
    return int(struct.unpack_from("<H", disk, 512)[0])


@contextmanager
def libvirtd() -> Iterator[tuple[Node, subprocess.Popen[bytes]]]:
    """A libvirtd of our own, not privileged."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (folder, folder / "home"):
            path.mkdir(exist_ok=True)
            shutil.chown(path, "nobody")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": f"{folder}/home",
            "XDG_RUNTIME_DIR": f"{folder}/run",
            "XDG_CONFIG_HOME": f"{folder}/config",
            "XDG_CACHE_HOME": f"{folder}/cache",
        }
        made = Node(folder)
        shutil.chown(made.scratch, "nobody")
        argv = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "libvirtd"]
        with subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
            try:
                until((folder / "run/libvirt/libvirt-sock").exists)
                yield made, daemon
            finally:
                for guest in ("counter", "idle"):
                    subprocess.run(["virsh", "-c", made.uri, "destroy", guest], capture_output=True, check=False)
                daemon.terminate()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with libvirtd() as (made, _):
        made.make_repository()
        made.guest("counter")
        made.start("counter")
        yield made


def test_running_guest_is_captured_at_one_instant(node: Node) -> None:
    said = node.backup("run", "--vm", "counter")
    assert "captured live" in said
    stamp = node.sets("counter")[-1]
    first = node.saved(f"counter+{stamp}+vda", "vda.raw")
    second = node.saved(f"counter+{stamp}+vdb", "vdb.raw")
    assert (len(first), len(second)) == (64 * MIB, 16 * MIB)
    assert count_in(first) > 0 and (count_in(first) - count_in(second)) % 65536 in (0, 1)
    assert first[:512] == COUNTING.ljust(510, b"\0") + b"\x55\xaa"
    before = node.counter("counter")
    until(lambda: node.counter("counter") != before)
    assert not node.jobs("counter") and not list(node.scratch.iterdir())
    begun = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    assert f'last_good_timestamp_seconds{{vm="counter"}} {begun}' in node.metrics.read_text()
    node.backup("run")
    assert "personal_cluster_backup_last_run_success 1" in node.metrics.read_text()


@pytest.fixture
def killed(node: Node) -> Node:
    """A run that was killed with SIGKILL right after its capture."""
    with subprocess.Popen(node.command("run", "--vm", "counter"), stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        for line in run.stdout:
            if "captured live" in line:
                run.kill()
                break
    return node


def test_killed_run_is_cleared_up_by_its_guardian(killed: Node) -> None:
    until(lambda: not killed.jobs("counter"))
    until(lambda: not list(killed.scratch.iterdir()))


def test_killed_run_converges_on_the_next(killed: Node) -> None:
    before = killed.sets("counter")
    killed.backup("run", "--vm", "counter")
    after = killed.sets("counter")
    assert after[: len(before)] == before and len(after) == len(before) + 1
    assert {name.split("+")[1] for name in killed.names()} == set(after)


def test_failing_reader_leaves_no_archive(node: Node) -> None:
    before = node.names()
    wrapper = node.folder / "failing"
    wrapper.write_text("#!/bin/sh\nhead -c 5000000 /dev/urandom\nexit 1\n")
    wrapper.chmod(0o755)
    argv = node.command("borg", "create", "--content-from-command", "::broken", "--", str(wrapper))
    assert subprocess.run(argv, capture_output=True).returncode != 0
    assert node.names() == before


def test_manifest_is_shown(node: Node) -> None:
    shown = json.loads(node.result("show", "--vm", "counter"))
    assert (shown["node"], shown["stamp"]) == ("node1", node.sets("counter")[-1])


def test_full_scratch_space_gives_up_the_capture(node: Node) -> None:
    before = node.names()
    node.configure(scratch_limit_percent=0)
    try:
        said = node.backup("run", ok=False)
    finally:
        node.configure()
    assert "% full" in said
    assert not node.jobs("counter") and not list(node.scratch.iterdir()) and node.names() == before
    assert "last_run_success 0" in node.metrics.read_text()


def test_lease_is_waited_for(node: Node) -> None:
    lock = f"{node.folder}/borg.lease"
    with subprocess.Popen(["flock", "--no-fork", lock, "sleep", "60"]) as holder:
        until(lambda: subprocess.run(["flock", "-n", lock, "true"]).returncode != 0)
        assert "is held by" in node.backup("run", "--vm", "counter", ok=False)
        holder.terminate()


def test_a_copy_of_the_repository_is_made_while_nobody_writes_and_opens_elsewhere(node: Node) -> None:
    copy = node.folder / "elsewhere"
    take = f"cp -a {node.folder}/borg {copy} && rm -r {copy}/lock.*"
    node.backup("borg", "with-lock", "::", "sh", "-c", take)
    environ = {**os.environ, "BORG_PASSPHRASE": "correct horse", "BORG_BASE_DIR": f"{node.folder}/other"}
    listed = subprocess.run(["borg", "list", "--short", copy], env=environ, capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0 and f"counter+{node.sets('counter')[-1]}+vda" in listed.stdout.split()


def test_gluster_that_does_not_answer_stops_the_capture(node: Node) -> None:
    node.configure(volumes=["gv0"], heal_wait=0)
    try:
        said = node.backup("run", "--vm", "counter", ok=False)
    finally:
        node.configure()
    assert "nothing is captured until that is mended" in said


def test_restore(node: Node) -> None:
    raw = node.folder / "counter.raw"
    assert "runs on this node" in node.backup("restore", "--vm", "counter", ok=False)
    stamp = node.sets("counter")[-1]
    saved = [node.saved(f"counter+{stamp}+{disk}", f"{disk}.raw") for disk in ("vda", "vdb")]
    node.virsh("destroy", "counter")
    node.virsh("undefine", "counter")
    raw.write_bytes(b"destroyed")
    assert "has no set 19700101" in node.backup("restore", "--vm", "counter", "--set", "19700101T000000Z", ok=False)
    assert raw.read_bytes() == b"destroyed"
    node.backup("restore", "--vm", "counter", "--set", stamp, "--no-start")
    assert raw.read_bytes() == saved[0]
    plain = node.folder / "plain"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(node.folder / "counter.qcow2"), str(plain)], check=True)
    assert plain.read_bytes() == saved[1]
    (kept,) = node.folder.glob("counter.raw.before-restore-*")
    assert kept.read_bytes() == b"destroyed"
    assert node.virsh("domstate", "counter") == "shut off"
    node.start("counter")


def test_shut_off_guest(node: Node) -> None:
    node.guest("idle")
    time.sleep(1.1)  # a set is named by its second: what was written in that second counts as newer
    node.backup("run", "--vm", "idle")
    (stamp,) = node.sets("idle")
    assert node.saved(f"idle+{stamp}+vda", "vda.raw") == (node.folder / "idle.raw").read_bytes()
    said = node.backup("run")
    assert "idle: shut off and saved today already" in said and "counter: saved as set" in said
    assert node.sets("idle") == [stamp]


def test_shut_off_guest_that_runs_on_another_node_is_left_to_it(node: Node) -> None:
    """The other node is a QEMU that libvirt here does not know."""
    argv = ["qemu-system-x86_64", "-display", "none", "-monitor", "stdio", "-blockdev"]
    argv += [f"driver=file,node-name=d,filename={node.folder}/idle.raw", "-machine", "pc", "-S"]
    argv += ["-device", "virtio-blk-pci,drive=d"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        assert "left to the node that runs it" in node.backup("run", "--vm", "idle")
        assert "a running machine holds it" in node.backup("restore", "--vm", "idle", ok=False)
        other.stdin.close()
        other.terminate()


ASKING = """
import sys
sys.path.insert(0, sys.argv[1])
from personal_cluster_backup import errors, hypervisor
asked = hypervisor.Hypervisor(sys.argv[2])
for line in sys.stdin:
    for ask in asked.find, asked.job:
        try:
            print(bool(ask(line.strip())), flush=True)
        except errors.BackupError as error:
            print(error, flush=True)
"""


def test_silence_of_libvirt_is_not_taken_for_a_guest_that_is_gone() -> None:
    with libvirtd() as (made, daemon):
        argv = ["/usr/bin/python3", "-c", ASKING, str(PROGRAM.parent), made.uri]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:

            def ask(name: str) -> tuple[str, str]:
                assert asking.stdin and asking.stdout
                print(name, file=asking.stdin, flush=True)
                return asking.stdout.readline().strip(), asking.stdout.readline().strip()

            made.guest("counter")
            assert ask("nobody") == ("False", "False") and ask("counter") == ("True", "False")
            made.virsh("start", "counter")
            assert ask("counter") == ("True", "False")
            made.virsh("destroy", "counter")
            daemon.terminate()
            daemon.wait()
            found, job = ask("counter")
            assert "guest counter: cannot find it" in found and "cannot see its backup job" in job


# What needs no guest that runs: libvirt's own test driver instead of libvirtd and QEMU.


@pytest.fixture
def resting(tmp_path: Path) -> Node:
    """A node whose one guest, idle, is shut off and saved."""
    node = Node(tmp_path)
    node.uri = f"test://{tmp_path}/node.xml"
    node.configure(libvirt_uri=node.uri)
    node.make_repository()
    (tmp_path / "idle.raw").write_bytes(os.urandom(MIB))
    rest(node, "idle")
    node.backup("run", "--vm", "idle")
    return node


def rest(node: Node, name: str, more: str = "") -> None:
    """Let guest ``name``, shut off, be the only one of the node; its disk is idle.raw."""
    (node.folder / "node.xml").write_text(RESTING.format(name=name, folder=node.folder, more=more))


def refused(node: Node) -> str:
    """Return why idle is not restored, having seen that its disk is as it was."""
    image = node.folder / "idle.raw"
    image.write_bytes(b"newer than the backup")
    said = node.backup("restore", "--vm", "idle", ok=False)
    assert image.read_bytes() == b"newer than the backup" and not list(node.folder.glob("idle.raw?*"))
    return said


def locked_by_node2(node: Node) -> Path:
    lock = node.folder / "borg/lock.exclusive"
    lock.mkdir()
    (lock / "personal-cluster-node2.4711-0").touch()
    return lock


def test_lock_of_a_dead_run_is_broken(resting: Node) -> None:
    lock = locked_by_node2(resting)
    assert "breaking the lock" in resting.backup("list")
    assert not lock.exists()


@contextmanager
def working_on(lease: Path) -> Iterator[None]:
    """A run that has no lock on the lease: as after storage that forgot it."""
    beat = "import sys; sys.path.insert(0, sys.argv[1]); from personal_cluster_backup import lease; import time\n"
    beat += "with lease.shown(sys.argv[2], 4, print): print('shown', flush=True); time.sleep(20)"
    argv = ["/usr/bin/python3", "-c", beat, str(PROGRAM.parent), str(lease)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout and other.stdout.readline()
            yield
        finally:
            other.terminate()


def test_lock_of_a_run_that_lost_its_lease_and_works_on_is_not_broken(resting: Node) -> None:
    lock = locked_by_node2(resting)
    with working_on(resting.folder / "borg.lease"):
        assert "personal-cluster-node2.4711-0, which is at work" in resting.backup("list", ok=False)
    assert lock.exists()


def test_lease_that_was_lost_is_taken_over_only_when_its_holder_is_dead(resting: Node) -> None:
    """Its holder has no lock in the repository just now: it is between two archives."""
    lease = resting.folder / "borg.lease"
    lease.write_text("node2 4711\n")
    with working_on(lease):
        assert "node2 4711, which is at work" in resting.backup("list", ok=False)
    assert lease.read_text() == "node2 4711\n"
    assert "looking for 4 s whether node2 4711" in resting.backup("list")
    assert lease.read_text() == "" and "looking" not in resting.backup("list")


@pytest.mark.parametrize("shared", [False, True], ids=["exclusive", "shared"])
def test_lock_of_a_dead_role_is_broken_after_an_hour(resting: Node, shared: bool) -> None:
    lock, roster = resting.folder / "borg/lock.exclusive", resting.folder / "borg/lock.roster"
    entry = roster if shared else lock / "backup-role-node2.4711-0"
    if shared:
        roster.write_text(json.dumps({"shared": [["backup-role-node2", 4711, 0]]}))
    else:
        lock.mkdir()
        entry.touch()
    long_ago = time.time() - 3700
    os.utime(entry, (long_ago, long_ago))
    assert "breaking the lock" in resting.backup("list")
    assert not entry.exists()


def test_lock_of_a_role_that_may_live_stays_also_beside_one_of_a_dead_run(resting: Node) -> None:
    roster = resting.folder / "borg/lock.roster"
    both = [["backup-role-node2", 4711, 0], ["personal-cluster-node1", 4711, 0]]
    for shared in (both[:1], both):
        roster.write_text(json.dumps({"shared": shared}))
        assert "breaking the lock" not in resting.backup("list")
        assert both[0] in json.loads(roster.read_text())["shared"]


WRITING = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from personal_cluster_backup import config, run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with run.repository(config.load(sys.argv[2]), print) as repository:
    repository.create_from_command("endless", "file", ["sh", "-c", "while echo more; do sleep 0.1; done"])
"""


@pytest.mark.parametrize("killed", [False, True], ids=["lost lease", "killed"])
@pytest.mark.parametrize("by_person", [False, True], ids=["run", "person"])
def test_borg_ends_with_what_started_it(resting: Node, by_person: bool, killed: bool) -> None:
    argv = ["/usr/bin/python3", "-c", WRITING, str(PROGRAM.parent), str(resting.config)]
    lock, lease = resting.folder / "borg/lock.exclusive", resting.folder / "borg.lease"
    if by_person:
        argv = resting.command("borg", "with-lock", "::", "cat")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: lock.is_dir() and bool(list(lock.iterdir())))
            (entry,) = lock.iterdir()
            borg = Path("/proc", entry.name.split(".")[-1].split("-")[0])
            assert borg.exists()
            if killed:
                process.kill()
            else:
                lease.unlink()
            assert process.wait(timeout=8) == (-signal.SIGKILL if killed else 143)
            until(lambda: not borg.exists(), 2)
        finally:
            process.kill()


def test_disk_that_a_machine_on_another_node_holds_is_not_replaced(resting: Node) -> None:
    with (resting.folder / "idle.raw").open("rb") as held:
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, QEMU_WRITE_LOCK)
        assert f"{resting.folder}/idle.raw is open for writing: a running machine holds it" in refused(resting)
    resting.backup("restore", "--vm", "idle", "--no-start")


def test_disk_that_belongs_to_another_guest_by_now_is_not_replaced(resting: Node) -> None:
    rest(resting, "renamed")
    assert f"{resting.folder}/idle.raw is a disk of guest renamed" in refused(resting)


def test_guest_with_saved_memory_is_not_restored_under_it_and_its_backup_says_so(resting: Node) -> None:
    rest(resting, "idle", "<test:hasmanagedsave/>")
    said = refused(resting)
    assert "virsh managedsave-remove idle" in said and "extracted" not in said
    assert "idle: its memory is saved beside its disks" in resting.backup("run", "--vm", "idle")
