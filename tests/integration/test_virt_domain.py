# SPDX-License-Identifier: GPL-3.0-or-later
"""virt_host, virt_domain, virt_domain_info and start_guests against a real libvirtd with emulated guests.

An unprivileged libvirtd of libvirt's QEMU user does it: no system daemon, no KVM, no bridge is
needed. What needs taps and a second node (VLANs, migration) is shown in the lab.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import TOP, needs, run_module

USER = "libvirt-qemu"
needs("libvirtd", "virtlogd", "virsh", "setpriv", "qemu-system-x86_64")
NETWORKS: list[dict[str, Any]] = [
    {"name": "br0", "bridge": "br0"},
    {"name": "vlans", "bridge": "vlans", "portgroups": [{"name": "blue", "tag": 101}, {"name": "trunk"}]},
]


class Session:
    """A libvirtd of its own, in a directory of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.images = top / "images"
        self.uri = f"qemu+unix:///session?socket={top}/run/libvirt/libvirt-sock"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        user = pwd.getpwnam(USER)
        for name in ("run", "home", "images"):
            (self.top / name).mkdir()
            os.chown(self.top / name, user.pw_uid, user.pw_gid)
        # Daemons look for their sockets below these; nothing of the caller's environment leads elsewhere.
        env = {"PATH": os.environ["PATH"], "HOME": f"{self.top}/home", "XDG_RUNTIME_DIR": f"{self.top}/run"}
        drop = ["setpriv", f"--reuid={USER}", f"--regid={user.pw_gid}", "--clear-groups"]
        for daemon in ("virtlogd", "libvirtd"):
            self._daemons.append(subprocess.Popen([*drop, shutil.which(daemon) or daemon], env=env))
        limit = time.monotonic() + 30
        while subprocess.run(["virsh", "-c", self.uri, "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < limit, "libvirtd did not come up"
            time.sleep(0.2)

    def stop(self) -> None:
        for name in self.virsh("list", "--name").split():
            self.virsh("destroy", name)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(timeout=20)

    def virsh(self, *words: str) -> str:
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def host(self, **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = run_module("virt_host", {"cluster": "test", "uri": self.uri, **params})
        return result

    def domains(self, *domains: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        given = [{"domain_type": "qemu", **domain} for domain in domains]
        params = {"cluster": "test", "domains": given, "uri": self.uri, **more}
        result: dict[str, Any] = run_module("virt_domain", params, check=check)
        return result


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="virt.") as top:
        os.chmod(top, 0o755)
        it = Session(Path(top))
        it.start()
        try:
            yield it
        finally:
            it.stop()


@pytest.fixture(scope="module")
def prepared(session: Session) -> Session:
    """The session with networks and a pool."""
    result = session.host(networks=NETWORKS, pools=[{"name": "gv0", "path": str(session.images)}])
    assert not result.get("failed"), result
    return session


def guest(**more: Any) -> dict[str, Any]:
    return {
        "name": "g1",
        "memory": "64M",
        "vcpus": 1,
        "machine": "pc",
        "state": "running",
        "disks": [{"pool": "gv0", "size": "16M"}],
        **more,
    }


def test_networks_and_pools_are_made_once_and_a_new_vlan_is_added_live(session: Session) -> None:
    params = {"networks": NETWORKS, "pools": [{"name": "gv0", "path": str(session.images)}]}
    planned = run_module("virt_host", {"cluster": "test", "uri": session.uri, **params}, check=True)
    assert session.virsh("net-list", "--all", "--name").split() == []
    made = session.host(**params)
    assert made["changed"] and made["actions"] == planned["actions"]
    assert (made["networks"], made["pools"]) == (planned["networks"], planned["pools"])
    again = session.host(**params)
    assert (again["changed"], again["actions"]) == (False, [])

    wider = [NETWORKS[0], {**NETWORKS[1], "portgroups": [*NETWORKS[1]["portgroups"], {"name": "green", "tag": 102}]}]
    added = session.host(networks=wider)
    assert added["actions"] == ["set VLAN green of network vlans"]
    assert added["networks"]["vlans"]["portgroups"] == {"blue": [101], "trunk": [], "green": [102]}
    assert "green" in session.virsh("net-dumpxml", "vlans") and "green" in session.virsh(
        "net-dumpxml", "vlans", "--inactive"
    )
    assert session.host(networks=wider)["changed"] is False


def test_a_pool_is_not_made_below_an_empty_mount_point(session: Session) -> None:
    pool = {"name": "late", "path": f"{session.top}/late/images", "mount": f"{session.top}/late"}
    result = session.host(pools=[pool])
    assert result["failed"] and "is not mounted" in result["msg"]
    assert not Path(pool["path"]).exists() and "late" not in session.virsh("pool-list", "--all", "--name")


def test_a_guest_is_made_changed_and_removed(prepared: Session) -> None:
    image = prepared.images / "g1-vda.img"
    planned = prepared.domains(guest(), check=True)
    assert not image.exists() and prepared.virsh("list", "--all", "--name").split() == []
    made = prepared.domains(guest())
    assert made["actions"] == planned["actions"]
    assert made["actions"] == ["create image g1-vda.img in pool gv0, 16 MiB", "define guest g1", "start guest g1"]
    assert image.stat().st_size == 16 << 20 and image.stat().st_blocks == 0
    assert image.stat().st_uid == pwd.getpwnam(USER).pw_uid
    assert made["domains"]["g1"]["state"] == "running" and made["pending"] == {}
    assert prepared.domains(guest())["actions"] == []

    # What somebody adds by hand stays; what is declared is put right, now in the definition and later in the guest.
    prepared.virsh("desc", "g1", "--config", "somebody's note")
    changed = prepared.domains(guest(memory="80M"))
    assert changed["actions"] == ["redefine guest g1: memory 80 MiB"]
    assert changed["pending"] == {"g1": ["memory 80 MiB"]}
    assert prepared.domains(guest(memory="80M"))["changed"] is False
    assert "somebody's note" in prepared.virsh("desc", "g1", "--config")

    # A disk can be plugged into the running guest.
    two = guest(memory="80M", disks=[{"pool": "gv0", "size": "16M"}, {"pool": "gv0", "size": "1M", "name": "more.img"}])
    planned, plugged = prepared.domains(two, check=True), prepared.domains(two)
    assert plugged["actions"] == planned["actions"] and len(plugged["actions"]) == 3
    assert "more.img" in prepared.virsh("domblklist", "g1")

    # The image grows under the running guest; it never shrinks.
    grown = guest(memory="80M", disks=[{"pool": "gv0", "size": "24M"}])
    assert prepared.domains(grown)["actions"] == [f"grow {image} from 16 MiB to 24 MiB"]
    assert image.stat().st_size == 24 << 20
    refused = prepared.domains(guest(memory="80M"))
    assert refused["failed"] and "never shrunk" in refused["msg"] and image.stat().st_size == 24 << 20

    # It has no operating system, so it ignores the shutdown: it may be ended only when that is allowed.
    stuck = prepared.domains(guest(memory="80M", state="absent", shutdown_timeout=1))
    assert stuck["failed"] and "force_stop" in stuck["msg"] and "g1" in prepared.virsh("list", "--name")
    foreign = prepared.domains(guest(state="absent", force_stop=True, delete_disks=["/etc/hostname"]))
    assert foreign["failed"] and "none of its disks" in foreign["msg"] and Path("/etc/hostname").exists()
    gone = guest(state="absent", force_stop=True, shutdown_timeout=1, delete_disks=[str(image)])
    planned, removed = prepared.domains(gone, check=True), prepared.domains(gone)
    assert removed["actions"] == planned["actions"] and len(removed["actions"]) == 3
    assert not image.exists() and (prepared.images / "more.img").exists()
    assert prepared.domains(gone)["changed"] is False


def test_a_disk_never_becomes_a_blank_one(prepared: Session) -> None:
    wanted = guest(name="g5", state="defined")
    image, moved = prepared.images / "g5-vda.img", prepared.images / "moved.img"
    assert prepared.domains(wanted, check=True)["changed"]
    assert prepared.domains(wanted)["changed"]
    image.rename(moved)
    for check in (True, False):
        lost = prepared.domains(wanted, check=check)
        assert lost["failed"] and f"disk vda, {image}, is not there" in lost["msg"] and not image.exists()
    other = prepared.domains(guest(name="g5", state="defined", disks=[{"pool": "gv0", "size": "16M", "name": "x.img"}]))
    assert other["failed"] and f"its disk vda is {image}; move that image there first" in other["msg"]
    assert str(image) in prepared.virsh("domblklist", "g5") and not (prepared.images / "x.img").exists()

    # The guest follows its image, and takes new disks.
    first = {"pool": "gv0", "size": "16M", "name": "moved.img"}
    followed = prepared.domains(guest(name="g5", state="defined", disks=[first, {"pool": "gv0", "size": "1M"}]))
    assert followed["actions"][0] == "create image g5-vdb.img in pool gv0, 1 MiB" and len(followed["actions"]) == 2
    assert prepared.domains(guest(name="g5", state="absent"))["actions"] == ["undefine guest g5"]
    # Killed before the guest was defined, a run leaves an image of the right size: the next one uses it.
    again = prepared.domains(guest(name="g5", state="defined", disks=[first]))
    assert again["actions"] == ["define guest g5"]
    prepared.domains(guest(name="g5", state="absent"))


def test_a_guest_with_a_snapshot_is_not_set_back(prepared: Session) -> None:
    image, overlay = prepared.images / "g8-vda.img", prepared.images / "g8-vda.snap"
    prepared.domains(guest(name="g8"))
    prepared.virsh(
        "snapshot-create-as", "g8", "snap", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={overlay}"
    )
    for check in (True, False):
        refused = prepared.domains(guest(name="g8"), check=check)
        assert refused["failed"] and f"its disk vda is {overlay}, declared is {image}" in refused["msg"]
    prepared.virsh("blockcommit", "g8", "vda", "--active", "--pivot", "--wait")
    assert prepared.domains(guest(name="g8"))["actions"] == []
    prepared.domains(guest(name="g8", state="absent", force_stop=True, shutdown_timeout=1))


def test_an_image_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone(prepared: Session) -> None:
    image, copy = prepared.images / "g9-vda.img", prepared.images / "g9-copy.img"
    other = guest(name="g9", state="defined", disks=[{"path": str(copy), "size": "16M"}])
    prepared.domains(other)
    copy.rename(image)
    # As on storage that does not answer, which is another error than that there is no such file.
    copy.symlink_to(copy)
    refused = prepared.domains(guest(name="g9", state="defined"))
    assert refused["failed"] and f"its disk vda is {copy}, declared is {image}, and the first" in refused["msg"]
    copy.unlink()
    assert len(prepared.domains(guest(name="g9", state="defined"))["actions"]) == 1
    prepared.domains(guest(name="g9", state="absent"))


def test_a_removal_that_was_killed_is_completed(prepared: Session) -> None:
    image = prepared.images / "g7-vda.img"
    prepared.domains(guest(name="g7", state="defined"))
    gone = guest(name="g7", state="absent", delete_disks=[str(image)])
    image.unlink()
    assert prepared.domains(gone)["actions"] == ["undefine guest g7"]
    # A file at that place is somebody else's from now on.
    image.touch()
    assert prepared.domains(gone)["changed"] is False and image.exists()
    image.unlink()


def test_a_qcow2_image_is_not_taken_for_a_raw_one(prepared: Session) -> None:
    image = prepared.images / "g6-vda.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M"], check=True)
    before = image.read_bytes()
    for check in (True, False):
        refused = prepared.domains(guest(name="g6", state="defined"), check=check)
        assert refused["failed"] and f"{image} is qcow2, declared is raw; declare format: qcow2" in refused["msg"]
    assert "g6" not in prepared.virsh("list", "--all", "--name")
    right = guest(name="g6", state="defined", disks=[{"pool": "gv0", "size": "16M", "format": "qcow2"}])
    assert prepared.domains(right)["actions"] == ["define guest g6"]
    refused = prepared.domains(guest(name="g6", state="defined"))
    assert refused["failed"] and "declare format: qcow2" in refused["msg"] and image.read_bytes() == before
    assert prepared.domains(right)["actions"] == []
    prepared.domains(guest(name="g6", state="absent"))


# A boot sector that writes itself to the eleventh cylinder of its disk for ever:
#   mov ax, 0x0301; mov bx, 0x7c00; mov cx, 0x0a01; mov dx, 0x0080; int 0x13; jmp to the first
WRITER = bytes.fromhex("b80103 bb007c b9010a ba8000 cd13 ebf0".replace(" ", "")).ljust(510, b"\0") + b"\x55\xaa"


def test_a_guest_whose_disk_fails_again_when_it_is_resumed_is_an_error(prepared: Session) -> None:
    small = prepared.top / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "none", str(small)], check=True)
    try:
        wanted = guest(name="g9", disks=[{"path": str(small / "g9.img"), "size": "16M"}])
        made = prepared.domains({**wanted, "state": "defined"})
        assert not made.get("failed"), made
        with (small / "g9.img").open("r+b") as image:
            image.write(WRITER)
        assert prepared.domains(wanted)["actions"] == ["start guest g9"]
        limit = time.monotonic() + 60
        while prepared.virsh("domstate", "g9", "--reason").strip() != "paused (I/O error)":
            assert time.monotonic() < limit, "the guest's disk did not fail"
            time.sleep(0.5)
        sentence = "resume guest g9, whose disk failed (if it fails again on storage that is well: virsh destroy g9 && "
        # What libvirt gives as the reason of the pause depends on which of QEMU's words it hears first.
        for _ in range(5):
            prepared.virsh("resume", "g9")
            time.sleep(0.5)
            (action,) = prepared.domains(wanted, check=True)["actions"]
            assert action.startswith(sentence), prepared.virsh("domstate", "g9", "--reason")
        failed = prepared.domains(wanted)
        assert failed["failed"] and f"not converged, still to do: {sentence}" in failed["msg"]
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        resumed = prepared.domains(wanted)
        (action,) = resumed["actions"]
        assert action.startswith(sentence) and resumed["domains"]["g9"]["state"] == "running"
        assert not prepared.domains(wanted)["changed"]
        prepared.domains({"name": "g9", "state": "absent", "force_stop": True, "shutdown_timeout": 0})
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_vlans_uuid_and_places_are_guarded(prepared: Session) -> None:
    nic = guest(name="g2", state="defined", nics=[{"network": "vlans", "vlan": "red"}])
    result = prepared.domains(nic)
    assert result["failed"] and "has no VLAN red" in result["msg"]
    trunk = prepared.domains(guest(name="g2", state="defined", nics=[{"network": "vlans"}]))
    assert trunk["failed"] and "name one of" in trunk["msg"]
    assert "g2" not in prepared.virsh("list", "--all", "--name")
    double = prepared.domains(guest(name="g2"), elsewhere={"g2": "node2"})
    assert double["failed"] and "is on node2" in double["msg"]

    good = guest(name="g2", state="defined", autostart=False, nics=[{"network": "vlans", "vlan": "blue"}])
    made = prepared.domains(good)
    assert list(made["domains"]["g2"]["nics"].values()) == [{"network": "vlans", "vlan": "blue"}]
    other = prepared.domains({**good, "uuid": "7d0b5a4e-0000-4000-8000-000000000001"})
    assert other["failed"] and "declare uuid" in other["msg"]
    stolen = prepared.domains(good, guest(name="g3", disks=[{"path": f"{prepared.images}/g2-vda.img", "size": "16M"}]))
    assert stolen["failed"] and "declared for guest g2 and for guest g3" in stolen["msg"]
    found = run_module("virt_domain_info", {"uri": prepared.uri})
    assert found["domains"]["g2"]["uuid"] == made["domains"]["g2"]["uuid"] and found["changed"] is False
    assert prepared.domains(guest(name="g2", state="absent"))["actions"] == ["undefine guest g2"]


def test_a_libvirt_of_ones_own_that_does_not_answer_is_an_error() -> None:
    nowhere = "qemu+unix:///session?socket=/nonexistent"
    params = {"cluster": "test", "domains": [guest(domain_type="qemu")], "uri": nowhere}
    used = run_module("virt_domain", params, check=True)
    assert used["failed"] and "does not answer" in used["msg"], "only the system daemon can be 'not yet there'"


# libvirt's own driver for tests has one domain.
LEAVING = """
import libvirt
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import read_domains

class Leaving:
    def __init__(self, real):
        self.real = real

    def listAllDomains(self):
        domains = self.real.listAllDomains()
        self.real.lookupByName("test").destroy()
        self.real.lookupByName("test").undefine()
        return domains

connection = libvirt.open("test:///default")
print(list(read_domains(connection)), list(read_domains(Leaving(connection))))
"""


def test_a_guest_that_leaves_while_it_is_read_is_not_there() -> None:
    argv = ["/usr/bin/python3", "-c", LEAVING]
    environ = {**os.environ, "PYTHONPATH": str(TOP / ".build/collections")}
    done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.stdout == "['test'] []\n", done.stderr
