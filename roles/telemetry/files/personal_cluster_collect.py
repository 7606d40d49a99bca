# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what this node knows about the cluster's layers as a textfile for the Prometheus node exporter.

Run by personal-cluster-collect.timer. Every job looks at one thing, in a process of its own that is killed when it
takes too long, so that a hung mount or daemon costs its own metrics only. Nothing here takes a lock on other nodes:
Gluster is asked through ``gluster get-state``, which glusterd answers from its own memory, and heals are counted in the
local bricks.

The program runs every minute on every node: it imports little, and a job imports what it alone needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

CONFIG = "/etc/personal-cluster/collect.json"
GLUSTERD = "/run/glusterd.socket"
# Seconds for which an answer about split-brain is kept: the question walks through everything that waits for its heal.
SPLIT_BRAIN_AGE = 600.0

PREFIX = "personal_cluster_"
HELP = {
    "telemetry_collect_timestamp_seconds": "When the last run of the collector ended, since the epoch.",
    "telemetry_collect_duration_seconds": "How long a job of the collector took.",
    "telemetry_collect_success": "Whether a job of the collector could look at its layer.",
    "telemetry_certificate_expiry_timestamp_seconds": "When a certificate ends, since the epoch.",
    "storage_peer_connected": "Whether this node's glusterd is connected to a peer.",
    "storage_volume_started": "Whether a wanted Gluster volume is started.",
    "storage_brick_online": "Whether a brick of this node serves its volume.",
    "storage_replica_bricks": "How many bricks each replica set of a volume has.",
    "storage_heal_pending_entries": "How many entries this node's brick keeps for others that must be healed.",
    "storage_split_brain_entries": "How many entries of a volume are in split-brain.",
    "storage_mount_ok": "Whether a file system is mounted and answers in time.",
    "storage_thin_data_ratio": "Used part of a thin pool's data, 0 to 1.",
    "storage_thin_metadata_ratio": "Used part of a thin pool's metadata, 0 to 1.",
    "encryption_tang_reachable": "Whether a tang server advertises keys to this node.",
    "encryption_device_unlocked": "Whether an encrypted disk is unlocked.",
    "encryption_header_backup_present": "Whether there is a backup of an encrypted disk's header.",
    "hypervisor_guest_running": "Whether a guest runs on this node.",
    "hypervisor_guest_autostart": "Whether a guest is wanted on this node by its autostart mark.",
    "hypervisor_guest_paused_io_error": "Whether a guest was paused because its disk failed.",
    "network_interface_ok": "Whether Open vSwitch could attach an interface.",
    "network_uplink_up": "Whether a network card in a bridge has link.",
    "network_upcalls_lost_total": "Packets that Open vSwitch's datapath could not hand to its daemon.",
}


class Sample(NamedTuple):
    """One value; ``name`` is without the common prefix."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Job(NamedTuple):
    """One look; ``otherwise`` is what its failure means, for a job whose failure is an answer."""

    name: str
    look: Callable[[], Iterable[Sample]]
    otherwise: tuple[Sample, ...] = ()


class CollectError(Exception):
    """A job could not look at its layer."""


def run(argv: Sequence[str]) -> str:
    """Return what a tool prints. One that hangs is killed together with its job.

    :raises CollectError: it is missing, or failed.
    """
    # The gluster command starts a Python at every call, to learn whether geo-replication is there, unless PYTHON names
    # another interpreter.
    environ = {**os.environ, "LC_ALL": "C", "PYTHON": "/bin/true"}
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ, check=False)
    except OSError as error:
        raise CollectError(str(error)) from error
    if done.returncode:
        raise CollectError(f"{' '.join(argv)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# Gluster


def parse_state(text: str) -> dict[str, dict[str, str]]:
    """Return the sections of what ``gluster get-state`` wrote: names as ``Volume1.Brick2.status``, and values."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif ": " in line:
            key, value = line.split(": ", 1)
            section[key] = value.strip()
    return sections


def numbered(section: Mapping[str, str], prefix: str) -> Iterator[dict[str, str]]:
    """Yield the things ``prefix``1, ``prefix``2, … of a section, each with its own keys."""
    number = 1
    while things := {
        key[len(f"{prefix}{number}.") :]: value
        for key, value in section.items()
        if key.startswith(f"{prefix}{number}.")
    }:
        yield things
        number += 1


def count_pending(brick: str) -> int:
    """Return how many entries a brick's index holds for its replicas: what ``volume heal … info`` counts.

    :raises OSError: the brick cannot be read.
    """
    try:
        with os.scandir(f"{brick}/.glusterfs/indices/xattrop") as entries:
            return sum(1 for entry in entries if not entry.name.startswith("xattrop-"))
    except FileNotFoundError:
        if os.path.isdir(f"{brick}/.glusterfs"):
            return 0
        raise


def volume_samples(volume: Mapping[str, str], pending: Callable[[str], int]) -> Iterator[Sample]:
    """Describe this node's bricks of one volume; ``pending`` counts the entries of a brick that wait for a heal."""
    name = volume["name"]
    replicas = int(volume["replica_count"])
    yield Sample("storage_replica_bricks", replicas, (("volume", name),))
    for number, brick in enumerate(numbered(volume, "Brick")):
        if "status" not in brick:
            continue
        labels = (("volume", name), ("replica_set", str(number // replicas)), ("brick", brick["path"]))
        online = brick["status"] == "Started"
        yield Sample("storage_brick_online", online, labels)
        if replicas > 1:
            try:
                yield Sample("storage_heal_pending_entries", pending(brick["path"].partition(":")[2]), labels)
            except OSError as error:
                # A disk that is still locked: the brick is offline, and what it would have to tell is not known.
                print(f"heals of {brick['path']} are not known: {error}", file=sys.stderr)


def gluster_samples(text: str, wanted: Iterable[str], pending: Callable[[str], int]) -> Iterator[Sample]:
    """Describe peers, volumes and this node's bricks from what ``gluster get-state`` wrote."""
    state = parse_state(text)
    for peer in numbered(state.get("Peers", {}), "Peer"):
        connected = peer["connected"] == "Connected" and peer["state"] == "Peer in Cluster"
        yield Sample("storage_peer_connected", connected, (("peer", peer["primary_hostname"]),))
    volumes = {volume["name"]: volume for volume in numbered(state.get("Volumes", {}), "Volume")}
    for name in sorted({*wanted, *volumes}):
        started = volumes.get(name, {}).get("status") == "Started"
        if name in wanted:
            yield Sample("storage_volume_started", started, (("volume", name),))
        if started:
            yield from volume_samples(volumes[name], pending)


def look_at_gluster(state_dir: str, wanted: Sequence[str]) -> list[Sample]:
    """Ask this node's glusterd for what it knows, which takes no lock on the others."""
    if not os.path.exists(GLUSTERD):
        raise CollectError("glusterd does not run")
    run(["gluster", "--mode=script", "get-state", "glusterd", "odir", state_dir, "file", "glusterd-state"])
    return list(gluster_samples(read(f"{state_dir}/glusterd-state"), wanted, count_pending))


def parse_split_brain(xml: str) -> int:
    """Return the number of entries in split-brain; each brick lists the same ones, as far as it answers."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(xml)
    if root.findtext("opRet") != "0":
        raise CollectError(f"gluster: {root.findtext('opErrstr')}")
    counts = [brick.findtext("numberOfEntries") for brick in root.iter("brick")]
    return max((int(count) for count in counts if count and count.isdigit()), default=0)


def look_at_split_brain(state_dir: str, volume: str) -> list[Sample]:
    """Ask for the split-brains of a volume, unless that was done a few minutes ago."""
    known = f"{state_dir}/split-brain-{volume}"
    if not os.path.exists(known) or time.time() - os.stat(known).st_mtime > SPLIT_BRAIN_AGE:
        write(known, "")
        answer = run(["gluster", "--mode=script", "--xml", "volume", "heal", volume, "info", "split-brain"])
        write(known, str(parse_split_brain(answer)))
    value = read(known)
    if not value:
        raise CollectError(
            f"the last question about split-brains of {volume} was not answered; it is asked again later"
        )
    return [Sample("storage_split_brain_entries", int(value), (("volume", volume),))]


def split_brain_jobs(samples: Iterable[Sample], state_dir: str) -> tuple[list[Job], list[Sample]]:
    """Return the questions to ask about split-brain, and the answers that need no question.

    What is in split-brain also waits for its heal: a volume with nothing pending here needs no look.
    """
    pending: dict[str, float] = {}
    for sample in samples:
        if sample.name == "storage_heal_pending_entries":
            volume = dict(sample.labels)["volume"]
            pending[volume] = pending.get(volume, 0) + sample.value
    jobs = []
    for volume in sorted(volume for volume, entries in pending.items() if entries):
        jobs.append(Job(f"split-brain {volume}", partial(look_at_split_brain, state_dir, volume)))
    answers = [Sample("storage_split_brain_entries", 0, (("volume", name),)) for name, n in pending.items() if not n]
    return jobs, answers


# Mounts and thin pools


def look_at_mount(path: str) -> list[Sample]:
    """Ask a mounted file system for its size, which a hung one does not answer."""
    mounted = os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    return [Sample("storage_mount_ok", mounted and os.statvfs(path).f_blocks > 0, (("mount", path),))]


def mount_job(path: str) -> Job:
    """Return the look at one mount, whose failure or silence says that it is not usable."""
    return Job(f"mount {path}", lambda: look_at_mount(path), (Sample("storage_mount_ok", 0, (("mount", path),)),))


def thin_samples(lvs: str) -> Iterator[Sample]:
    """Describe the thin pools in what ``lvs --reportformat json`` printed; an inactive pool has no figures."""
    for pool in json.loads(lvs)["report"][0]["lv"]:
        labels = (("vg", pool["vg_name"]), ("pool", pool["lv_name"]))
        for column, name in (("data_percent", "data"), ("metadata_percent", "metadata")):
            if pool[column]:
                yield Sample(f"storage_thin_{name}_ratio", round(float(pool[column]) / 100, 4), labels)


def look_at_thin_pools() -> list[Sample]:
    """Ask LVM how full the thin pools are."""
    columns = "vg_name,lv_name,data_percent,metadata_percent"
    return list(thin_samples(run(["lvs", "--reportformat", "json", "-o", columns, "-S", "segtype=thin-pool"])))


# Encryption


def ask_tang(server: str, timeout: float) -> bool:
    """Return whether a tang server, ``address:port``, advertises keys within ``timeout`` seconds."""
    import socket

    host, _, port = server.rpartition(":")
    request = f"GET /adv HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n".encode()
    answer = b""
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as link:
            link.sendall(request)
            while (left := deadline - time.monotonic()) > 0:
                link.settimeout(left)
                part = link.recv(65536)
                if not part:
                    break
                answer += part
    except OSError:
        return False
    return answer.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"200"] and b'"payload"' in answer


def tang_job(server: str, timeout: float) -> Job:
    """Return the look at one tang server, whose failure or silence says that it cannot be reached."""
    labels = (("server", server),)
    return Job(
        f"tang {server}",
        lambda: [Sample("encryption_tang_reachable", ask_tang(server, timeout), labels)],
        (Sample("encryption_tang_reachable", 0, labels),),
    )


def look_at_disks(devices: Mapping[str, str], header_backups: Mapping[str, str]) -> list[Sample]:
    """Look for the opened devices and the header backups.

    :param devices: disk name, and the path that is there while it is unlocked.
    :param header_backups: disk name, and the pattern of its backups' paths.
    """
    from glob import glob

    samples = [
        Sample("encryption_device_unlocked", os.path.exists(path), (("disk", name),)) for name, path in devices.items()
    ]
    samples += [
        Sample("encryption_header_backup_present", bool(glob(pattern)), (("disk", name),))
        for name, pattern in header_backups.items()
    ]
    return samples


# Hypervisor


def guest_samples(domain: Any, running: Sequence[int], paused: tuple[int, int]) -> Iterator[Sample]:
    """Describe one libvirt domain; ``running`` and ``paused`` are libvirt's numbers for those states."""
    labels = (("vm", domain.name()),)
    state, reason = domain.state()
    yield Sample("hypervisor_guest_running", state in running, labels)
    yield Sample("hypervisor_guest_autostart", domain.autostart() != 0, labels)
    yield Sample("hypervisor_guest_paused_io_error", (state, reason) == paused, labels)


def look_at_guests(uri: str) -> list[Sample]:
    """Ask libvirt for the guests of this node."""
    import libvirt

    libvirt.registerErrorHandler(lambda context, error: None, None)
    connection = libvirt.openReadOnly(uri)
    running = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_PMSUSPENDED)
    paused = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
    samples: list[Sample] = []
    for domain in connection.listAllDomains():
        try:
            samples += guest_samples(domain, running, paused)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it went away since it was listed
                raise
    return samples


# Network


def ovs_value(value: Any) -> Any:
    """Return an OVSDB value as Python has it; an empty set is ``None``."""
    if isinstance(value, list) and value and value[0] == "set":
        return value[1] or None
    return value


def interface_samples(table: str, is_card: Callable[[str], bool]) -> Iterator[Sample]:
    """Describe the interfaces that ``ovs-vsctl --format=json`` listed, without those of guests."""
    listed = json.loads(table)
    for values in listed["data"]:
        row = dict(zip(listed["headings"], map(ovs_value, values), strict=True))
        # What libvirt put there comes and goes with its guest, and a power cut leaves it behind without harm.
        if any(key == "vm-id" for key, _ in row["external_ids"][1]):
            continue
        labels = (("interface", row["name"]),)
        yield Sample("network_interface_ok", not row["error"] and row["ofport"] not in (None, -1), labels)
        if is_card(row["name"]):
            yield Sample("network_uplink_up", row["link_state"] == "up", labels)


def upcall_samples(text: str) -> Iterator[Sample]:
    """Describe the lost upcalls of each datapath that ``ovs-appctl dpctl/show`` printed."""
    datapath = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            datapath = line.rstrip(":").strip()
        words = line.split()
        if words[:1] == ["lookups:"]:
            lost = next(word for word in words if word.startswith("lost:")).partition(":")[2]
            yield Sample("network_upcalls_lost_total", int(lost), (("datapath", datapath),))


def look_at_ovs() -> list[Sample]:
    """Ask Open vSwitch for its interfaces and its datapath."""
    columns = "--columns=name,error,ofport,link_state,external_ids"
    table = run(["ovs-vsctl", "--format=json", columns, "list", "Interface"])
    samples = list(interface_samples(table, lambda name: os.path.exists(f"/sys/class/net/{name}/device")))
    return [*samples, *upcall_samples(run(["ovs-appctl", "dpctl/show"]))]


# Certificates


def parse_end(text: str) -> float:
    """Return seconds since the epoch of what ``openssl x509 -enddate`` printed."""
    from calendar import timegm

    return float(timegm(time.strptime(text.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")))


def look_at_certificates(paths: Sequence[str], state_dir: str) -> list[Sample]:
    """Read when certificates end; openssl is started for those that changed since the last look."""
    cache = f"{state_dir}/certificates.json"
    known = json.loads(read(cache)) if os.path.exists(cache) else {}
    now: dict[str, list[float]] = {}
    for path in paths:
        changed = os.stat(path).st_mtime
        entry = known.get(path)
        if entry is None or entry[0] != changed:
            entry = [changed, parse_end(run(["openssl", "x509", "-noout", "-enddate", "-in", path]))]
        now[path] = entry
    if now != known:
        write(cache, json.dumps(now))
    return [
        Sample("telemetry_certificate_expiry_timestamp_seconds", entry[1], (("path", path),))
        for path, entry in now.items()
    ]


# The run


def read(path: str) -> str:
    """Return a text file."""
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def write(path: str, text: str) -> None:
    """Replace a text file atomically; everyone may read it."""
    new = f"{path}.{os.getpid()}.new"
    with open(new, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(new, 0o644)
    os.replace(new, path)


def render(samples: Iterable[Sample]) -> str:
    """Return samples in Prometheus' text format, in a stable order."""
    families: dict[str, list[str]] = {}
    for name, value, labels in samples:
        pairs = ",".join(f'{key}="{escape(text)}"' for key, text in labels)
        number = repr(round(float(value), 4)).removesuffix(".0")
        families.setdefault(name, []).append(f"{PREFIX}{name}{'{' + pairs + '}' if pairs else ''} {number}\n")
    text = ""
    for name in sorted(families):
        kind = "counter" if name.endswith("_total") else "gauge"
        text += f"# HELP {PREFIX}{name} {HELP[name]}\n# TYPE {PREFIX}{name} {kind}\n" + "".join(sorted(families[name]))
    return text


def escape(text: str) -> str:
    """Return a label value as the text format wants it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def jobs_of(config: Mapping[str, Any]) -> list[Job]:
    """Return the jobs that the configuration asks for."""
    state_dir = config["state_dir"]
    known = {
        "gluster": [Job("gluster", lambda: look_at_gluster(state_dir, config["volumes"]))],
        "mounts": [mount_job(path) for path in config["mounts"]],
        "thin": [Job("thin", look_at_thin_pools)],
        "disks": [Job("disks", lambda: look_at_disks(config["devices"], config["header_backups"]))],
        "tang": [tang_job(server, config["timeout"]) for server in config["tang_servers"]],
        "guests": [Job("guests", lambda: look_at_guests(config["libvirt_uri"]))],
        "ovs": [Job("ovs", look_at_ovs)],
        "certificates": [Job("certificates", lambda: look_at_certificates(config["certificates"], state_dir))],
    }
    return [job for name in config["collectors"] for job in known[name]]


class Child:
    """A job in its own process and process group."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = time.monotonic()
        self.answer = b""
        self.out, inlet = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.out)
            self._work(inlet)
        os.close(inlet)

    def _work(self, inlet: int) -> None:
        """Do the job, hand over the samples and end this process."""
        status = 1
        try:
            os.setpgid(0, 0)
            answer = json.dumps([sample for sample in self.job.look()]).encode()
            with os.fdopen(inlet, "wb") as stream:
                stream.write(answer)
            status = 0
        except Exception as error:  # whatever went wrong in there, it ends here and shows as a failed job
            print(f"{self.job.name}: {type(error).__name__}: {error}", file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(status)

    def finish(self) -> list[Sample] | None:
        """Return the samples, or ``None`` when the job failed; one that still runs is killed with its tools."""
        for group in (os.killpg, os.kill):
            try:
                group(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A process that hangs in a file system dies when that answers; it must not hold up this one.
        os.waitpid(self.pid, os.WNOHANG)
        os.close(self.out)
        if not self.answer:
            return None
        try:
            rows = json.loads(self.answer)
        except ValueError:
            return None
        return [Sample(name, value, tuple((key, text) for key, text in labels)) for name, value, labels in rows]


def collect(jobs: Sequence[Job], timeout: float) -> list[Sample]:
    """Do all jobs at once and return their samples, and how each of them went.

    :param timeout: seconds after which what is not finished counts as failed.
    """
    samples: list[Sample] = []
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for job in jobs:
            child = Child(job)
            selector.register(child.out, selectors.EVENT_READ, child)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = [key.data for key, _ in selector.select(left)] if left > 0 else []
            late = left <= 0
            for child in [key.data for key in selector.get_map().values()] if late else ready:
                part = b"" if late else os.read(child.out, 65536)
                child.answer = b"" if late else child.answer + part
                if late:
                    print(f"{child.job.name}: not finished after {timeout} s, killed", file=sys.stderr)
                if not part:
                    selector.unregister(child.out)
                    samples += report(child)
    return samples


def report(child: Child) -> list[Sample]:
    """End a child and return its samples with those about it."""
    found = child.finish()
    labels = (("collector", child.job.name),)
    samples = [Sample("telemetry_collect_duration_seconds", time.monotonic() - child.started, labels)]
    if child.job.otherwise:
        return samples + list(child.job.otherwise if found is None else found)
    return [*samples, Sample("telemetry_collect_success", found is not None, labels), *(found or [])]


def main() -> int:
    """Run once; the exit code is 0 unless nothing could be written."""
    config = json.loads(read(sys.argv[1] if len(sys.argv) > 1 else CONFIG))
    state_dir, timeout = config["state_dir"], config["timeout"]
    os.makedirs(state_dir, exist_ok=True)
    with open(f"{state_dir}/lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run of this collector is not finished; nothing was done", file=sys.stderr)
            return 1
        samples = collect(jobs_of(config), timeout)
        questions, answers = split_brain_jobs(samples, state_dir)
        samples += answers + collect(questions, timeout)
        samples.append(Sample("telemetry_collect_timestamp_seconds", time.time()))
        write(config["output"], render(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
