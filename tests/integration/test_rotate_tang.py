# SPDX-License-Identifier: GPL-3.0-or-later
"""rotate_tang.yml on two nodes and two tang hosts that are all this computer, each with its own files and servers.

The play sees directories of the test in the place of /var/lib/tang and /var/backups, by a mount namespace of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from encryption import CHEAP, PASSPHRASE, Tang, blank_disk, metadata, params, unlocks
from harness import direct, needs, play, playbook_argv
from killing import die_in

pytestmark = pytest.mark.long

needs("cryptsetup", "clevis", "socat", "tang-show-keys", "jose", "unshare")


@dataclass
class Site:
    """Two nodes with a disk each, and a tang host."""

    home: Path
    tang: Tang

    @property
    def disks(self) -> dict[str, Path]:
        return {node: self.home / f"{node}.img" for node in ("node1", "node2")}

    def inventory(self, **node2: Any) -> Path:
        nodes = {
            name: {
                "cluster_disks": [{"device": str(disk), "volume": name}],
                "cluster_address": "127.0.0.1",
                "encryption_format": CHEAP,
                "encryption_tang_timeout": 5,
            }
            for name, disk in self.disks.items()
        }
        nodes["node2"] |= node2
        tang1 = {"cluster_address": "127.0.0.1"}
        common = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "/usr/bin/python3",
            "tang_port": self.tang.port,
            "cluster_recovery_passphrase": PASSPHRASE,
            # Opening needs device-mapper.
            "__encryption_devices": [
                {"device": "{{ cluster_disks[0].device }}", "name": "luks-{{ inventory_hostname }}", "state": "present"}
            ],
        }
        path = self.home / "inventory.json"
        path.write_text(
            json.dumps({"all": {"children": {"nodes": {"hosts": nodes}, "tang": {"hosts": {"tang1": tang1}}}}})
        )
        (self.home / "extra.json").write_text(json.dumps(common))
        return path

    def command(self, *options: str) -> list[str]:
        mounts = {self.tang.home: "/var/lib/tang", self.home / "backups": "/var/backups"}
        extra = ["-e", f"@{self.home}/extra.json", *options]
        return playbook_argv("rotate_tang", self.home / "inventory.json", mounts, *extra)

    def rotate(self, *options: str) -> tuple[int, str, dict[str, int]]:
        """Return exit code, output, and how many tasks changed something on each host."""
        rc, said, changed = play(self.command(*options))
        assert PASSPHRASE not in said
        return rc, said, changed

    def kids(self) -> dict[str, str]:
        found = direct("luks_clevis_info", {"devices": [str(disk) for disk in self.disks.values()]})["devices"]
        return {node: found[str(disk)]["tang_keys"][0]["kid"] for node, disk in self.disks.items()}

    def slots(self) -> dict[str, int]:
        found = direct("luks_clevis_info", {"devices": [str(disk) for disk in self.disks.values()]})["devices"]
        return {node: found[str(disk)]["keyslot"] for node, disk in self.disks.items()}

    def shown(self, advertised: bool) -> set[str]:
        pattern = "[!.]*.jwk" if advertised else ".*.jwk"
        return {path.name.strip(".").removesuffix(".jwk") for path in self.tang.home.glob(pattern)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "backups").mkdir()
    site = Site(tmp_path, Tang.at(tmp_path / "tang"))
    site.tang.start()
    for disk in site.disks.values():
        blank_disk(disk)
        bound = direct("luks_clevis_bind", params([disk], [site.tang.entry()]))
        assert not bound.get("failed"), bound
    site.inventory()
    yield site
    site.tang.stop()


def open_all(site: Site) -> bool:
    return all(unlocks(site.disks[node], slot) for node, slot in site.slots().items())


def test_rotate_then_purge(site: Site) -> None:
    servers = "encryption_tang_servers | dict2items(key_name='url', value_name='thp')"
    site.inventory(encryption_policy="{{ {'tang': " + servers + "} }}")
    old, hidden = site.kids(), site.shown(True)
    headers = {node: metadata(disk) for node, disk in site.disks.items()}
    rc, said, foreseen = site.rotate("-e", "rotation=2026-12", "--check")
    assert rc == 0, said
    assert site.shown(True) == hidden and {node: metadata(disk) for node, disk in site.disks.items()} == headers

    rc, said, changed = site.rotate("-e", "rotation=2026-12")
    assert rc == 0, said
    assert {host for host, count in changed.items() if count} == {host for host, count in foreseen.items() if count}
    assert site.shown(False) == hidden and not site.shown(True) & hidden
    assert set(site.kids().values()) <= site.shown(True) and open_all(site)
    assert {path.stem for path in (site.home / "backups/personal-cluster/tang").iterdir()} == hidden

    for check in ([], ["--check"]):
        rc, said, changed = site.rotate("-e", "rotation=2026-12", *check)
        assert rc == 0 and not any(changed.values()), said

    rc, said, changed = site.rotate("-e", "rotation=2026-12", "-e", "purge=true")
    assert rc == 0 and changed == {"node1": 0, "node2": 0, "tang1": 1}, said
    assert site.shown(False) == set() and open_all(site)
    assert not set(old.values()) & set(site.kids().values())


@pytest.mark.parametrize(
    ("task", "delay"),
    [
        ("Make new keys", 0.7),
        ("See whether the old bindings still work", 0.5),
        ("Encrypt, bind and open", 2),
        ("See what unlocks the disks now", 0.5),
        ("Delete what no disk needs", 0.7),
    ],
)
def test_a_killed_run_is_completed_by_the_next(site: Site, task: str, delay: float) -> None:
    old, asked = site.kids(), ["-e", "rotation=a", "-e", "purge=true"]
    assert die_in(site.command(*asked), task, delay)
    assert open_all(site)
    rc, said, _ = site.rotate(*asked)
    assert rc == 0, said
    assert not set(site.kids().values()) & set(old.values()) and open_all(site) and site.shown(False) == set()
    rc, said, changed = site.rotate(*asked)
    assert rc == 0 and not any(changed.values()), said


def away(site: Site) -> list[str]:
    site.inventory(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=9)
    extra = json.loads((site.home / "extra.json").read_text())
    del extra["ansible_connection"]
    (site.home / "extra.json").write_text(json.dumps(extra))
    inventory = json.loads((site.home / "inventory.json").read_text())
    for group in inventory["all"]["children"].values():
        for host, variables in group["hosts"].items():
            if host != "node2":
                variables["ansible_connection"] = "local"
    (site.home / "inventory.json").write_text(json.dumps(inventory))
    return ["-e", "rotation=a", "-e", "purge=true"]


def lost(site: Site) -> list[str]:
    for path in site.tang.home.glob("*.jwk"):
        path.unlink()
    return ["-e", "rotation=a"]


def unbound(site: Site) -> list[str]:
    argv = ["cryptsetup", "luksKillSlot", "-q", str(site.disks["node2"]), str(site.slots()["node2"])]
    subprocess.run(argv, check=True)
    return ["-e", "rotation=a"]


def broken(site: Site) -> list[str]:
    """Another keyslot takes the place of the one that the token was made for."""
    disk, slot = str(site.disks["node2"]), str(site.slots()["node2"])
    subprocess.run(["cryptsetup", "luksKillSlot", "-q", disk, slot], check=True)
    key = site.home / "other"
    key.write_text("another")
    argv = [
        "cryptsetup",
        "luksAddKey",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "-S",
        slot,
        disk,
        str(key),
    ]
    subprocess.run(argv, input=PASSPHRASE.encode(), check=True)
    token = str(next(iter(metadata(Path(disk))["tokens"])))
    argv = ["cryptsetup", "token", "export", "--token-id", token, disk]
    exported = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout) | {"keyslots": [slot]}
    subprocess.run(["cryptsetup", "token", "remove", "--token-id", token, disk], check=True)
    subprocess.run(["cryptsetup", "token", "import", disk], input=json.dumps(exported).encode(), check=True)
    return ["-e", "rotation=a"]


def pinned(site: Site) -> list[str]:
    inner = {"tang": [site.tang.entry(), {"url": "http://192.0.2.7", "thp": "another"}]}
    site.inventory(encryption_policy={"tpm2": {}, "sss": [{"tpm2": {}, "sss": [inner]}]})
    return ["-e", "rotation=a"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: [], "A rotation needs a name"),
        (lambda _: ["-e", "rotation=a", "--limit", "node1,tang1"], "Run it without --limit: node2"),
        (away, "No answer from node2; nothing was changed"),
        (lost, "node2: no tang host has the key of {disk}"),
        (pinned, "node2: encryption_policy has written out the thumbprint of {url}, which a rotation retires. Nothing"),
        (unbound, "node2: there is no binding on {disk}"),
        (broken, "node2: the binding of {disk} does not unlock it"),
    ],
)
def test_refusals_change_nothing(site: Site, spoil: Any, says: str) -> None:
    options = spoil(site)
    headers = {node: disk.read_bytes() for node, disk in site.disks.items()}
    keys = site.shown(True)
    rc, said, changed = site.rotate(*options)
    flat = re.sub(r"\s+", " ", said)
    assert rc != 0 and says.format(disk=site.disks["node2"], url=site.tang.url) in flat, said
    assert not any(changed.values())
    # A server without any key makes some when it is asked.
    assert not keys or site.shown(True) == keys
    assert {node: disk.read_bytes() for node, disk in site.disks.items()} == headers
