# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as the scenarios see it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import playbook
from clusterlab import machines
from clusterlab.settings import MACHINES, Paths, machine, paths

NODES = ("node1", "node2", "node3")
# The lab's guests: where each is declared to run, and its address; g1 and g2 are in one VLAN, g3 is in another.
HOMES = {"g1": "node1", "g2": "node2", "g3": "node3"}
ADDRESSES = {"g1": "10.20.1.1", "g2": "10.20.1.2", "g3": "10.20.1.3"}
Answer = TypeVar("Answer")
SSH_FAILED, TIMED_OUT = 255, 124


class Lab:
    """Commands on machines, playbooks, plugs and cables."""

    def __init__(self) -> None:
        self.where: Paths = paths()
        self.log = self.where.top / "e2e.log"

    def run(self, name: str, command: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a machine and return whatever came of it."""
        # Whoever waits for something asks again: a command that hangs meanwhile is no answer yet, and no end.
        argv = ["timeout", "--kill-after=5", f"{limit:.0f}", *machines.ssh_argv(self.where, name, command)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        with self.log.open("a") as stream:
            stream.write(f"\n{name}$ {command}\n[{done.returncode}] {done.stdout}{done.stderr}")
        return done

    def out(self, name: str, command: str, limit: float = 120) -> str:
        """Run a shell command that must succeed and return its output."""
        done = self.run(name, command, limit)
        assert done.returncode == 0, f"{name}: {command}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def ok(self, name: str, command: str, limit: float = 120) -> bool:
        """Tell whether a shell command succeeds."""
        return self.run(name, command, limit).returncode == 0

    def fails(self, name: str, command: str, limit: float = 120) -> bool:
        """Tell whether a shell command ran and failed; a machine that was not reached says nothing about it."""
        code = self.run(name, command, limit).returncode
        assert code != SSH_FAILED and code != TIMED_OUT, f"{name}: {command}: not run to its end: exit {code}"
        return code != 0

    def playbook(self, name: str, *options: str, limit: float = 2400) -> playbook.Outcome:
        """Run a playbook of the collection, its output kept in the log."""
        return playbook.run(name, *options, log=self.log, limit=limit)

    def kill(self, *names: str) -> None:
        """Pull the plugs of machines at once."""
        for name in names:
            machines.kill(self.where, machine(name))

    def power_on(self, *names: str) -> None:
        """Press power buttons without waiting."""
        directory = self.where.image(self.where.release_file.read_text())
        machines.start_switches(self.where)
        for name in names:
            machines.start(self.where, machine(name), directory, machines.accelerator(self.where, directory))

    def wait_for_ssh(self, *names: str) -> None:
        """Wait until machines answer."""
        machines.wait_for_ssh(self.where, [machine(name) for name in names])

    def link(self, name: str, switch: str, up: bool) -> None:
        """Cut or mend a cable."""
        machines.set_link(self.where, machine(name), switch, up)

    def disk(self, name: str, serial: str) -> Path:
        """Return the file behind a machine's disk."""
        return self.where.disks / name / f"{serial}.raw"


def everyone() -> list[str]:
    """Return the names of all machines."""
    return [item.name for item in MACHINES]


def wait_until(what: str, probe: Callable[[], Answer], limit: float, pause: float = 5) -> Answer:
    """Return the first true answer of ``probe``; fail when ``limit`` seconds have passed without one."""
    began = time.monotonic()
    answer = probe()
    while not answer:
        assert time.monotonic() - began < limit, f"{what}: not within {limit:.0f} s; the last answer was {answer!r}"
        time.sleep(pause)
        answer = probe()
    print(f"  {what}: after {time.monotonic() - began:.0f} s", flush=True)
    return answer


def changed(outcome: playbook.Outcome) -> dict[str, int]:
    """Return how many tasks changed something, for the hosts on which any did."""
    return {host: recap.changed for host, recap in outcome.hosts.items() if recap.changed}


def differences(outcome: playbook.Outcome) -> list[str]:
    """Return the lines of the differences that a run with --diff shows."""
    return [line for line in outcome.output.splitlines() if line.startswith(("+++", "---", "@@"))]


def mounted(lab: Lab, node: str) -> bool:
    """Tell whether all volumes are mounted on a node."""
    return lab.ok(node, "mountpoint -q /srv/gv0 && mountpoint -q /srv/gv1 && mountpoint -q /srv/bmv0", limit=60)


def bricks_online(lab: Lab, node: str) -> int:
    """Return how many bricks of both volumes are online, as one node sees them."""
    status = lab.run(node, "gluster --mode=script volume status all detail", limit=150).stdout
    return len(re.findall(r"^Online\s*:\s*Y", status, re.MULTILINE))


def pending_heals(lab: Lab, node: str) -> int | None:
    """Return the number of entries to heal on both volumes; None while any brick does not answer."""
    total = 0
    for volume in ("gv0", "gv1"):
        text = lab.run(node, f"gluster --mode=script volume heal {volume} info summary", limit=150).stdout
        counts = re.findall(r"^Total Number of entries: (\S+)", text, re.MULTILINE)
        if len(counts) != 3 or not all(count.isdigit() for count in counts):
            return None
        total += sum(map(int, counts))
    return total


def wait_until_whole(lab: Lab) -> None:
    """Wait until every node has everything mounted, and all bricks run and are healed."""
    for node in NODES:
        wait_until(f"{node} has everything mounted", partial(mounted, lab, node), 600)
    wait_until("all six bricks online", lambda: bricks_online(lab, "node1") == 6, 420)
    wait_until("healed to zero", lambda: pending_heals(lab, "node1") == 0, 780)


def unlocked(lab: Lab, node: str) -> bool:
    """Tell whether all data disks of a node are open."""
    return lab.ok(node, "ls /dev/mapper/luks-gv0 /dev/mapper/luks-gv1 /dev/mapper/luks-bmv0", limit=60)


def locked(lab: Lab, node: str) -> bool:
    """Tell whether no data disk of a node is open."""
    return "luks-" not in lab.out(node, "ls /dev/mapper")


def booted_well(lab: Lab, node: str) -> bool:
    """Tell whether a node's last boot met no circle of units, and no unit failed."""
    no_circle = lab.fails(node, "journalctl -b --no-pager | grep -i 'ordering cycle'")
    return no_circle and lab.out(node, "systemctl list-units --failed --no-legend --plain") == ""


def running_guests(lab: Lab) -> dict[str, str]:
    """Return the node on which each guest runs."""
    return {guest: node for node in NODES for guest in lab.out(node, "virsh list --name").split()}


def guest_running(lab: Lab, node: str, guest: str) -> bool:
    """Tell whether a guest runs on a node."""
    return lab.run(node, f"virsh domstate {guest}").stdout.strip() == "running"


def image(guest: str) -> str:
    """Return the path on every node of a guest's disk."""
    return f"/srv/gv0/images/{guest}-vda.img"


def guest_counter(lab: Lab, node: str, guest: str) -> int:
    """Return the number that a guest wrote last, read from its disk through the volume; 0 when it wrote none yet."""
    text = lab.out(node, f"dd if={image(guest)} bs=512 count=1 iflag=direct status=none | tr -d '\\0'")
    found = re.search(r"counter=(\d+)", text)
    return int(found.group(1)) if found else 0


def writes_on(lab: Lab, node: str, guest: str, count: int) -> bool:
    """Tell whether a guest has written a higher number than this one."""
    return guest_counter(lab, node, guest) > count


def lost_writes(lab: Lab, node: str, guest: str) -> list[int]:
    """Return which of the last values that a guest wrote are not where it wrote them, in two shards of its disk."""
    last = guest_counter(lab, node, guest)
    read = "dd if={} bs=1M skip={} count=13 iflag=direct status=none"
    text = lab.out(node, f"{{ {read.format(image(guest), 1)}; {read.format(image(guest), 65)}; }} | tr -d '\\0'")
    found = {int(value) for value in re.findall(rf"^personal-cluster-guest counter=(\d+) name={guest} *$", text, re.M)}
    # It keeps 1600, and writes on while they are read.
    return sorted(set(range(max(1, last - 1580), last + 1)) - found)


def brick_contents(lab: Lab) -> dict[str, str]:
    """Return the names and checksums of what lies on each node's bricks while no guest writes."""
    files = "find gv0/brick gv1/brick -name '.glusterfs*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum"
    homes = running_guests(lab)
    for guest, home in homes.items():
        lab.out(home, f"virsh suspend {guest}")
    try:
        lab.out("node1", "sync -f /srv/gv0 && sync -f /srv/gv1")
        return {node: lab.out(node, f"cd /bricks && {files}", limit=600) for node in NODES}
    finally:
        for guest, home in homes.items():
            lab.out(home, f"virsh resume {guest}")


@contextlib.contextmanager
def longest_pause(lab: Lab, node: str, guest: str) -> Iterator[None]:
    """Print for how long a guest's counter stood still at most; fail when it ever went back, or a write is lost."""
    counts: list[tuple[float, int]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(1):
            with contextlib.suppress(AssertionError):
                count = guest_counter(lab, node, guest)
                if not counts or counts[-1][1] != count:
                    counts.append((time.monotonic(), count))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    moments = [moment for moment, _ in counts] + [time.monotonic()]
    pause = max(later - earlier for earlier, later in pairwise(moments))
    print(f"  {guest} was seen to write {len(counts)} times, and paused {pause:.0f} s at most", flush=True)
    assert all(earlier[1] < later[1] for earlier, later in pairwise(counts)), f"the counter of {guest} went back"
    assert lost_writes(lab, node, guest) == []


def guest_pings(lab: Lab, node: str, guest: str, address: str) -> bool:
    """Tell whether a guest, asked through its agent, gets an answer from ``address``."""

    def agent(verb: str, **arguments: object) -> dict[str, int]:
        request = json.dumps({"execute": f"guest-{verb}", "arguments": arguments})
        answer = lab.run(node, f"virsh qemu-agent-command {guest} {shlex.quote(request)}")
        # On a busy computer the agent may be later than the five seconds that libvirt waits for it.
        return {} if answer.returncode else dict(json.loads(answer.stdout)["return"])

    words = {"path": "/bin/ping", "arg": ["-c", "3", "-W", "10", address]}
    ping = wait_until(f"the agent of {guest}", lambda: agent("exec", **words), 180)
    status: dict[str, int] = {}

    def ended() -> bool:
        status.update(agent("exec-status", pid=ping["pid"]))
        return bool(status.get("exited"))

    wait_until("its ping", ended, 90)
    return status["exitcode"] == 0
