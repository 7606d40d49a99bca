# SPDX-License-Identifier: GPL-3.0-or-later
"""Real glusterds on addresses of this machine: what the tests of Gluster share.

Needs root, glusterfs-server, and the right to mount a tmpfs (gluster refuses bricks on the root filesystem).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import WITHOUT_GEOREPLICATION
from harness import direct

HOSTS = ("127.1.1.1", "127.1.1.2", "127.1.1.3")
GROUPS = Path("/var/lib/glusterd/groups")
# heal info finds glusterd only at its usual place, whatever socket the CLI was told.
USUAL_SOCKET = Path("/run/glusterd.socket")
# The daemons take every 127.1.1.N for their own and try a new brick at once; the next run goes on.
SHARED_BRICK = "Removing test extended attribute failed"


class Glusterds:
    """Glusterds, one for each of ``hosts``, with its own directories and a tmpfs for its bricks."""

    def __init__(self, top: Path, hosts: Sequence[str] = HOSTS) -> None:
        self.top = top
        self.hosts = hosts

    def begin(self) -> None:
        """Start all of them, and wait until the first one answers."""
        if os.path.lexists(USUAL_SOCKET):
            raise RuntimeError(f"a glusterd runs here ({USUAL_SOCKET}); the tests start their own: end it first")
        USUAL_SOCKET.symlink_to(self.sock)
        for number in self.numbers:
            self._prepare(number)
            self.start(number)
        wait_until(lambda: "<opRet>0" in self.xml("pool", "list"), "the first glusterd answers")

    @property
    def numbers(self) -> range:
        return range(1, len(self.hosts) + 1)

    @property
    def sock(self) -> Path:
        return self.top / "1" / "run" / "glusterd.sock"

    def _prepare(self, number: int) -> None:
        for name in ("wd/groups", "run", "log", "disk"):
            (self.top / str(number) / name).mkdir(parents=True)
        shutil.copy(GROUPS / "virt", self.top / str(number) / "wd" / "groups")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.disk(number)], check=True)

    def disk(self, number: int) -> Path:
        return self.top / str(number) / "disk"

    def start(self, number: int) -> None:
        home = self.top / str(number)
        options = {
            "working-directory": home / "wd",
            "run-directory": home / "run",
            "glusterd-sockfile": home / "run" / "glusterd.sock",
            "cluster-test-mode": home / "log",
            "transport.socket.bind-address": self.hosts[number - 1],
            "base-port": 49300 + 100 * number,
        }
        words = [word for name, value in options.items() for word in ("--xlator-option", f"management.{name}={value}")]
        pid_file = home / "run" / "glusterd.pid"
        env = {**os.environ, "PYTHON": str(self._geo_replication())}
        subprocess.run(["glusterd", *words, "-l", home / "log" / "glusterd.log", "-p", pid_file], check=True, env=env)

    def _geo_replication(self) -> Path:
        """Return what stands for the interpreter that a glusterd starts a dozen times before it answers."""
        path = self.top / "geo-replication"
        path.write_text("#!/bin/sh\necho gsyncd.py\n")
        path.chmod(0o755)
        return path

    def stop(self, number: int) -> None:
        self._kill([self.top / str(number) / "run" / "glusterd.pid"])

    def _kill(self, pid_files: list[Path]) -> None:
        pids = [int(text) for text in (path.read_text().strip() for path in pid_files if path.exists()) if text]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pids = [other for other in pids if other != pid]
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the daemons have ended")

    def brick(self, number: int, volume: str) -> str:
        path = self.disk(number) / volume / "brick"
        path.parent.mkdir(exist_ok=True)
        return str(path)

    def bricks(self, *names: str) -> list[dict[str, str]]:
        return [{"host": host, "path": self.brick(n + 1, name)} for name in names for n, host in enumerate(self.hosts)]

    def params(self) -> dict[str, Any]:
        return {
            "local_host": self.hosts[0],
            "glusterd_sock": str(self.sock),
            "glusterd_workdir": str(self.top / "1" / "wd"),
            "timeout": 120,
        }

    def xml(self, *words: str) -> str:
        argv = ["gluster", f"--glusterd-sock={self.sock}", "--mode=script", "--xml", *words]
        env = {**os.environ, **WITHOUT_GEOREPLICATION}
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env).stdout

    def end(self) -> None:
        """End all that was begun, be it whole or not."""
        if USUAL_SOCKET.is_symlink():
            USUAL_SOCKET.unlink()
        for number in self.numbers:
            self.stop(number)
        self._kill([path for path in self.top.rglob("*.pid") if path.name != "glusterd.pid"])
        for disk in filter(os.path.ismount, map(self.disk, self.numbers)):
            subprocess.run(["umount", disk], check=True)


def wait_until(what: Callable[[], bool], sentence: str, limit: float = 120) -> None:
    deadline = time.monotonic() + limit
    while not what():
        assert time.monotonic() < deadline, f"waited {limit:.0f} s in vain: {sentence}"
        time.sleep(0.2)


def peers(cluster: Glusterds, *, check: bool = False) -> dict[str, Any]:
    return direct("gluster_peer", {"peers": list(cluster.hosts), **cluster.params()}, check=check)


def volumes(
    cluster: Glusterds, *items: dict[str, Any], check: bool = False, run: Callable[..., dict[str, Any]] = direct
) -> dict[str, Any]:
    kept = {"config_backup_dir": str(cluster.top / "backups")}
    return run("gluster_volume", {"volumes": list(items), **kept, **cluster.params()}, check=check)


def worked(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run once, or again where the daemons came into each other's way, and see that it went well."""
    done = run()
    if SHARED_BRICK in done.get("msg", ""):
        done = run()
    assert not done.get("failed"), done["msg"]
    return done


def both(run: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Check, run, run again: the check lists what the run does, the second run does nothing."""
    checked = run(*args, check=True)
    done = worked(lambda: run(*args))
    assert checked["actions"] == done["actions"] and checked["changed"] and done["changed"]
    again = run(*args)
    assert not again["changed"] and again["actions"] == [] and "diff" not in again
    return done


def refused(cluster: Glusterds, item: dict[str, Any], *sentences: str) -> None:
    """The module refuses, for these reasons, and nothing changes."""
    before = cluster.xml("volume", "info")
    result = volumes(cluster, item)
    assert result.get("failed") and "refused, nothing was changed" in result["msg"], result
    for sentence in sentences:
        assert sentence in result["msg"]
    assert cluster.xml("volume", "info") == before


def gate(cluster: Glusterds, **more: Any) -> dict[str, Any]:
    wanted = {"peers": 3, "volumes": ["gv1"], "interval": 1, "timeout": 60, **cluster.params(), **more}
    return direct("gluster_heal", wanted)


def start_bricks(cluster: Glusterds, volume: str = "gv1") -> None:
    """Start what was killed of a volume, and wait until clients may write to it."""
    cluster.xml("volume", "start", volume, "force")
    wait_until(lambda: "<status>0" not in cluster.xml("volume", "status", volume, "detail"), "all bricks run")


def kill_brick(cluster: Glusterds, number: int, volume: str) -> None:
    run = cluster.top / str(number) / "run" / "vols" / volume
    cluster._kill(list(run.glob("*.pid")))
    brick = f"<hostname>{HOSTS[number - 1]}"
    wait_until(
        lambda: "<status>0" in cluster.xml("volume", "status", volume).partition(brick)[2][:300], "the brick is dead"
    )


@contextmanager
def mounted(cluster: Glusterds, volume: str) -> Iterator[Path]:
    top = cluster.top / "mnt"
    top.mkdir(exist_ok=True)
    log = cluster.top / "mnt.log"
    subprocess.run(["glusterfs", "-s", HOSTS[0], "--volfile-id", volume, "-l", log, top], check=True, timeout=60)
    try:
        wait_until(lambda: os.path.ismount(top), "the volume is mounted")
        yield top
    finally:
        subprocess.run(["umount", "-l", top], check=True)


def files(cluster: Glusterds, volume: str, count: int) -> None:
    """Write files into a volume, each named and filled alike."""
    with mounted(cluster, volume) as top:
        for number in range(count):
            (top / f"file{number}").write_text(f"{number}\n" * 1000)


def read_back(cluster: Glusterds, volume: str, count: int) -> None:
    with mounted(cluster, volume) as top:
        assert sorted(path.name for path in top.iterdir()) == sorted(f"file{number}" for number in range(count))
        for number in range(count):
            assert (top / f"file{number}").read_text() == f"{number}\n" * 1000
