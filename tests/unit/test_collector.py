# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's collector: parsing of recorded tool output, its text format, and its behaviour when jobs fail or hang."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
PROGRAM = TOP / "roles/telemetry/files/personal_cluster_collect.py"
RECORDED = Path(__file__).parent / "recorded/collect"
RELEASES = ("bookworm", "trixie")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("personal_cluster_collect", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


collector = load()
Sample = collector.Sample
Job = collector.Job


def values(samples: Any, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric by the values of its labels."""
    return {tuple(text for _, text in labels): value for found, value, labels in samples if found == name}


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def gluster(name: str, wanted: tuple[str, ...] = ("gv0", "gv1"), pending: Any = lambda brick: 0) -> list[Any]:
    return list(collector.gluster_samples(recorded(name), wanted, pending))


@pytest.mark.parametrize("release", RELEASES)
class TestGluster:
    def test_healthy(self, release: str) -> None:
        samples = gluster(f"get-state-{release}.txt")
        assert values(samples, "storage_peer_connected") == {("node2",): 1, ("node3",): 1}
        assert values(samples, "storage_volume_started") == {("gv0",): 1, ("gv1",): 0}
        assert values(samples, "storage_brick_online") == {("gv0", "0", "node1:/bricks/gv0/brick"): 1}
        assert values(samples, "storage_replica_bricks") == {("gv0",): 3}

    def test_brick_offline(self, release: str) -> None:
        samples = gluster(f"get-state-brick-offline-{release}.txt")
        assert values(samples, "storage_brick_online") == {("gv0", "0", "node3:/bricks/gv0/brick"): 0}

    def test_peer_disconnected(self, release: str) -> None:
        samples = gluster(f"get-state-peer-disconnected-{release}.txt")
        assert values(samples, "storage_peer_connected") == {("node2",): 1, ("node3",): 0}

    def test_wanted_volume_that_does_not_exist(self, release: str) -> None:
        samples = gluster(f"get-state-{release}.txt", wanted=("gv7",))
        assert values(samples, "storage_volume_started") == {("gv7",): 0}

    def test_pending_heals_are_asked_of_the_local_brick_alone(self, release: str) -> None:
        asked = []

        def count(brick: str) -> int:
            asked.append(brick)
            return 7

        samples = gluster(f"get-state-{release}.txt", pending=count)
        assert asked == ["/bricks/gv0/brick"]
        assert list(values(samples, "storage_heal_pending_entries").values()) == [7]

    def test_unreadable_brick_keeps_the_rest(self, release: str) -> None:
        def locked(brick: str) -> int:
            raise FileNotFoundError(brick)

        samples = gluster(f"get-state-{release}.txt", pending=locked)
        assert not values(samples, "storage_heal_pending_entries")
        assert values(samples, "storage_brick_online")

    def test_split_brain(self, release: str) -> None:
        assert collector.parse_split_brain(recorded(f"split-brain-{release}.xml")) == 1
        assert collector.parse_split_brain(recorded(f"split-brain-none-{release}.xml")) == 0


def test_bricks_of_one_set_share_its_number() -> None:
    volume = {"name": "gv1", "replica_count": "3"}
    for number in range(1, 7):
        volume |= {f"Brick{number}.path": f"n{number}:/b", f"Brick{number}.status": "Started"}
    samples = list(collector.volume_samples(volume, lambda brick: 0))
    sets = [labels[1] for labels in values(samples, "storage_brick_online")]
    assert sets == ["0", "0", "0", "1", "1", "1"]


def test_split_brain_failure_is_no_answer() -> None:
    failed = (
        "<cliOutput><opRet>-1</opRet><opErrno>0</opErrno><opErrstr>Volume gv0 is not started</opErrstr></cliOutput>"
    )
    with pytest.raises(collector.CollectError, match="not started"):
        collector.parse_split_brain(failed)


def test_count_pending(tmp_path: Path) -> None:
    index = tmp_path / ".glusterfs/indices/xattrop"
    with pytest.raises(FileNotFoundError):
        collector.count_pending(str(tmp_path))
    (tmp_path / ".glusterfs").mkdir()
    assert collector.count_pending(str(tmp_path)) == 0
    index.mkdir(parents=True)
    for name in ("xattrop-2b46c469-0848-4608-af18-8e56c6ea9127", "00000000-0000-0000-0000-000000000001", "0c092ac7"):
        (index / name).touch()
    assert collector.count_pending(str(tmp_path)) == 2


def pending_sample(volume: str, entries: int) -> Any:
    return Sample("storage_heal_pending_entries", entries, (("volume", volume), ("replica_set", "0"), ("brick", "b")))


def test_split_brain_is_asked_only_where_heals_are_pending() -> None:
    jobs, answers = collector.split_brain_jobs([pending_sample("gv0", 0), pending_sample("gv1", 2)], "/nowhere")
    assert [job.name for job in jobs] == ["split-brain gv1"]
    assert answers == [Sample("storage_split_brain_entries", 0, (("volume", "gv0"),))]


def test_split_brain_is_not_asked_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(argv: list[str]) -> str:
        asked.append(argv)
        return recorded("split-brain-trixie.xml")

    monkeypatch.setattr(collector, "run", answer)
    for _ in range(2):
        samples = collector.look_at_split_brain(str(tmp_path), "gv0")
        assert values(samples, "storage_split_brain_entries") == {("gv0",): 1}
    assert len(asked) == 1
    os.utime(tmp_path / "split-brain-gv0", (0, 0))
    collector.look_at_split_brain(str(tmp_path), "gv0")
    assert len(asked) == 2


def test_split_brain_question_without_answer_is_a_failure_until_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(argv: list[str]) -> str:
        raise collector.CollectError("took too long")

    monkeypatch.setattr(collector, "run", hang)
    for message in ("took too long", "not answered"):
        with pytest.raises(collector.CollectError, match=message):
            collector.look_at_split_brain(str(tmp_path), "gv0")


def test_thin_pools() -> None:
    samples = list(collector.thin_samples(recorded("lvs-trixie.json")))
    assert values(samples, "storage_thin_data_ratio") == {
        ("vg_bmv0", "pool"): 0.0365,
        ("vg_gv0", "pool"): 0.0181,
        ("vg_gv1", "pool"): 0.0242,
    }
    assert set(values(samples, "storage_thin_metadata_ratio").values()) == {0.1028}


def test_inactive_thin_pool_has_no_figures() -> None:
    row = {"vg_name": "vg", "lv_name": "pool", "data_percent": "", "metadata_percent": ""}
    assert not list(collector.thin_samples(json.dumps({"report": [{"lv": [row]}]})))


@pytest.mark.parametrize("release", RELEASES)
def test_interfaces(release: str) -> None:
    table = recorded(f"ovs-interfaces-{release}.json")
    samples = list(collector.interface_samples(table, lambda name: name in ("eth0", "eth1")))
    broken = [labels for labels, value in values(samples, "network_interface_ok").items() if not value]
    assert broken == [("gone0",)]
    assert ("vnet7",) not in values(samples, "network_interface_ok")
    assert values(samples, "network_uplink_up") == {("eth0",): 1, ("eth1",): 0}


@pytest.mark.parametrize("release", RELEASES)
def test_upcalls(release: str) -> None:
    samples = list(collector.upcall_samples(recorded(f"dpctl-show-{release}.txt")))
    assert values(samples, "network_upcalls_lost_total") == {("netdev@ovs-netdev",): 0}


class Domain:
    """What the collector uses of a libvirt domain."""

    def __init__(self, name: str, state: tuple[int, int], autostart: int) -> None:
        self._all = (name, state, autostart)

    def name(self) -> str:
        return self._all[0]

    def state(self) -> tuple[int, int]:
        return self._all[1]

    def autostart(self) -> int:
        return self._all[2]


@pytest.mark.parametrize(
    ("state", "autostart", "expected"),
    [((1, 1), 1, (1, 1, 0)), ((5, 0), 1, (0, 1, 0)), ((3, 5), 0, (0, 0, 1)), ((3, 1), 0, (0, 0, 0))],
    ids=["running", "off", "paused by an error", "paused by a person"],
)
def test_guests(state: tuple[int, int], autostart: int, expected: tuple[int, int, int]) -> None:
    samples = list(collector.guest_samples(Domain("web", state, autostart), (1, 2, 7), (3, 5)))
    names = ("running", "autostart", "paused_io_error")
    assert tuple(values(samples, f"hypervisor_guest_{name}")[("web",)] for name in names) == expected


def serve(answer: bytes | None) -> int:
    """Serve one connection and return its port; without an answer it accepts and stays silent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        link, _ = listener.accept()
        link.recv(4096)
        if answer is None:
            time.sleep(1)
        else:
            link.sendall(answer)
        link.close()
        listener.close()

    threading.Thread(target=work, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "reachable"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"payload":"e"}', True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", False),
        (b"", False),
        (None, False),
    ],
    ids=["tang", "no keys", "something else", "closed", "silent"],
)
def test_tang(answer: bytes | None, reachable: bool) -> None:
    assert collector.ask_tang(f"127.0.0.1:{serve(answer)}", 0.3) is reachable


def test_tang_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    samples = collector.collect([collector.tang_job(f"127.0.0.1:{port}", 5)], 5)
    assert values(samples, "encryption_tang_reachable") == {(f"127.0.0.1:{port}",): 0}


def test_disks(tmp_path: Path) -> None:
    (tmp_path / "luks-gv0").touch()
    (tmp_path / "luks-gv0-1234.img").touch()
    names = ("gv0", "gv1")
    samples = collector.look_at_disks(
        {name: f"{tmp_path}/luks-{name}" for name in names}, {name: f"{tmp_path}/luks-{name}-*.img" for name in names}
    )
    for metric in ("encryption_device_unlocked", "encryption_header_backup_present"):
        assert values(samples, metric) == {("gv0",): 1, ("gv1",): 0}


def test_certificates_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "node.pem"
    certificate.touch()
    runs: list[Any] = []

    def openssl(argv: list[str]) -> str:
        runs.append(argv)
        return "notAfter=Nov 21 15:39:00 2034 GMT\n"

    monkeypatch.setattr(collector, "run", openssl)
    for _ in range(2):
        samples = collector.look_at_certificates([str(certificate)], str(tmp_path))
        assert values(samples, "telemetry_certificate_expiry_timestamp_seconds") == {(str(certificate),): 2047736340}
    assert len(runs) == 1
    os.utime(certificate, (1, 1))
    collector.look_at_certificates([str(certificate)], str(tmp_path))
    assert len(runs) == 2


def test_mount(tmp_path: Path) -> None:
    assert values(collector.look_at_mount(str(tmp_path)), "storage_mount_ok") == {(str(tmp_path),): 0}
    assert values(collector.look_at_mount("/dev"), "storage_mount_ok") == {("/dev",): 1}


def test_missing_mount_is_an_answer() -> None:
    samples = collector.collect([collector.mount_job("/does/not/exist")], 5)
    assert values(samples, "storage_mount_ok") == {("/does/not/exist",): 0}
    assert not values(samples, "telemetry_collect_success")


def command_of(pid: str) -> bytes:
    """Return a process's command line; nothing for one that has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_hung_job_is_killed_and_costs_only_itself(tmp_path: Path) -> None:
    marker = tmp_path / "pid"

    def hang() -> list[Any]:
        subprocess.run(["sh", "-c", f"echo $$ > {marker}; exec sleep 60"], check=False)
        return []

    started = time.monotonic()
    jobs = [Job("hangs", hang), Job("works", lambda: [Sample("storage_mount_ok", 1)])]
    samples = collector.collect(jobs, 0.5)
    assert time.monotonic() - started < 3
    assert values(samples, "telemetry_collect_success") == {("hangs",): 0, ("works",): 1}
    assert values(samples, "storage_mount_ok") == {(): 1}
    pid = marker.read_text().strip()
    deadline = time.monotonic() + 2
    while command_of(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not command_of(pid), "the tool of the hung job still runs"


def test_failing_job_tells_why(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> list[Any]:
        raise collector.CollectError("glusterd is down")

    samples = collector.collect([Job("gluster", fail)], 5)
    assert values(samples, "telemetry_collect_success") == {("gluster",): 0}
    assert "gluster: CollectError: glusterd is down" in capfd.readouterr().err


def test_long_answers_arrive_whole() -> None:
    many = [Sample("storage_mount_ok", 1, (("mount", f"/{number}"),)) for number in range(20000)]
    samples = collector.collect([Job("many", lambda: many)], 20)
    assert len(values(samples, "storage_mount_ok")) == len(many)


def test_render_escapes_and_sorts() -> None:
    text = collector.render(
        [
            Sample("storage_mount_ok", True, (("mount", 'b"\\\n'),)),
            Sample("storage_mount_ok", False, (("mount", "a"),)),
            Sample("network_upcalls_lost_total", 12345678901),
        ]
    )
    assert text.splitlines() == [
        "# HELP personal_cluster_network_upcalls_lost_total "
        "Packets that Open vSwitch's datapath could not hand to its daemon.",
        "# TYPE personal_cluster_network_upcalls_lost_total counter",
        "personal_cluster_network_upcalls_lost_total 12345678901",
        "# HELP personal_cluster_storage_mount_ok Whether a file system is mounted and answers in time.",
        "# TYPE personal_cluster_storage_mount_ok gauge",
        'personal_cluster_storage_mount_ok{mount="a"} 0',
        'personal_cluster_storage_mount_ok{mount="b\\"\\\\\\n"} 1',
    ]


def config(tmp_path: Path) -> Path:
    path = tmp_path / "collect.json"
    settings = {
        "output": str(tmp_path / "out.prom"),
        "state_dir": str(tmp_path / "state"),
        "timeout": 5,
        "collectors": ["mounts", "disks", "tang", "certificates"],
        "volumes": [],
        "mounts": ["/dev"],
        "devices": {},
        "header_backups": {},
        "tang_servers": [],
        "libvirt_uri": "test:///default",
        "certificates": [],
    }
    path.write_text(json.dumps(settings))
    return path


def test_run_writes_the_file_and_its_heartbeat(tmp_path: Path) -> None:
    before = time.time()
    done = subprocess.run([sys.executable, PROGRAM, config(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (tmp_path / "out.prom").read_text().splitlines()
    heartbeat = next(line for line in lines if line.startswith("personal_cluster_telemetry_collect_timestamp_seconds "))
    assert before - 1 < float(heartbeat.split()[1]) < time.time() + 1
    assert 'personal_cluster_storage_mount_ok{mount="/dev"} 1' in lines
    assert (tmp_path / "out.prom").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collect.json", "out.prom", "state"]


def test_second_run_leaves_the_first_alone(tmp_path: Path) -> None:
    path = config(tmp_path)
    (tmp_path / "state").mkdir()
    with open(tmp_path / "state/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([sys.executable, PROGRAM, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "another run" in done.stderr
    assert not (tmp_path / "out.prom").exists()


def test_a_tool_is_told_not_to_start_geo_replications_python() -> None:
    assert collector.run(["sh", "-c", "echo $PYTHON"]) == "/bin/true\n"
