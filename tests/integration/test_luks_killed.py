# SPDX-License-Identifier: GPL-3.0-or-later
"""luks_clevis_bind that fails or is killed: the header stays as it was, and the next run completes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._lock import lock_file, locked_within
from encryption import CHECKSUM, PASSPHRASE, RECOVERY, SECOND_COPY, Tang, blank_disk, free_port, overwrite
from harness import TOP, interposed, needs

needs("cryptsetup", "clevis", "socat", "tang-show-keys", "jose")

MODULE = "ansible_collections.personal.cluster.plugins.modules.luks_clevis_bind"
HEADER = 16 * 2**20
MAGIC = 6
KILL_ALL_BEFORE = "kill -KILL 0"
KILL_ALL_AFTER = '"$REAL" "$@"; kill -KILL 0'
# Whoever started the tool dies, and the tool works on.
KILL_MODULE = "kill -KILL $LEADER; until [ -e $GO ]; do sleep 0.1; done"


@pytest.fixture
def tangs(tmp_path: Path) -> Iterator[list[dict[str, str]]]:
    """One server at two addresses: two policies."""
    first = Tang.at(tmp_path / "tang")
    servers = [first, Tang(first.home, free_port())]
    for server in servers:
        server.start()
    yield [server.entry() for server in servers]
    for server in servers:
        server.stop()


@pytest.fixture
def tang(tangs: list[dict[str, str]]) -> dict[str, str]:
    return tangs[0]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return blank_disk(tmp_path / "a.img")


def params(disk: Path, server: dict[str, str] | None, **more: Any) -> dict[str, Any]:
    return {
        "devices": [{"device": str(disk), "name": f"luks-{disk.stem}", "state": "present"}],
        "passphrase": PASSPHRASE,
        "format": {"sector_size": 512, "pbkdf": "pbkdf2", "pbkdf_force_iterations": 1000},
        "header_backup_dir": str(disk.parent / "headers"),
        "tang_timeout": 10,
        **({"policy": {"tang": [server]}} if server else {}),
        **more,
    }


def start(wanted: dict[str, Any], env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the module alone, as the leader of a process group of its own."""
    code = (
        f"import os, runpy; os.environ['LEADER'] = str(os.getpid()); runpy.run_module('{MODULE}', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TOP / ".build/collections"), **env},
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**wanted, "_ansible_module_name": "luks_clevis_bind"}}))
    process.stdin.close()
    return process


def run(wanted: dict[str, Any], **env: str) -> dict[str, Any]:
    process = start(wanted, env)
    assert process.stdout and process.stderr
    out, err = process.stdout.read(), process.stderr.read()
    if process.wait(60) == -signal.SIGKILL:
        return {"killed": True, "group": process.pid}
    assert out, err
    result: dict[str, Any] = json.loads(out)
    return result


def converges(wanted: dict[str, Any]) -> dict[str, Any]:
    done = run(wanted)
    assert not done.get("failed"), done
    assert run(wanted)["actions"] == []
    return done


def tool(tmp_path: Path, word: str, number: int, more: str) -> dict[str, str]:
    """Return an environment in which cryptsetup does more at its call ``number`` with ``word``."""
    return interposed(tmp_path, "cryptsetup", f" {word} ", number, more)


def header(disk: Path) -> bytes:
    with disk.open("rb") as stream:
        return stream.read(HEADER)


def metadata(disk: Path) -> dict[str, Any]:
    argv = ["cryptsetup", "luksDump", "--dump-json-metadata", str(disk)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return found


def tear(disk: Path) -> None:
    """Leave of a header what cryptsetup has written at first: one copy, without its checksum."""
    overwrite(disk, CHECKSUM, 64)
    overwrite(disk, SECOND_COPY, SECOND_COPY)


def unlocks(disk: Path) -> bool:
    """Tell whether any binding of the disk decrypts."""
    slots = [token["keyslots"][0] for token in metadata(disk)["tokens"].values() if token["keyslots"]]
    argv = ["clevis", "luks", "pass", "-d", str(disk), "-s"]
    return any(subprocess.run([*argv, slot], capture_output=True, check=False).returncode == 0 for slot in slots)


class Fading(BaseHTTPRequestHandler):
    """Hands on what tang says to the first requests; then accepts and never answers, or answers nonsense.

    It advertises keys, and refuses to recover one as often as ``refused`` says.
    """

    url = ""
    upstream = ""
    left = 0
    hangs = True
    refused = 0

    def do_GET(self) -> None:
        self._hand_on(None)

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).refused -= 1
        if type(self).refused < 0:
            self._hand_on(asked)
        else:
            self.send_error(500)

    def _hand_on(self, asked: bytes | None) -> None:
        cls = type(self)
        cls.left -= 1
        if cls.left < 0 and cls.hangs:
            time.sleep(8)
            return
        headers = {"Content-Type": self.headers["Content-Type"]} if asked else {}
        with build_opener(ProxyHandler({})).open(Request(f"{cls.upstream}{self.path}", asked, headers)) as answer:
            body = answer.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body if cls.left >= 0 else b"{}")

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def fading(tang: dict[str, str]) -> Iterator[type[Fading]]:
    class Handler(Fading):
        upstream = tang["url"]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()


# The module asks for the keys; then its trial asks for them, and recovers one; then clevis asks for them.
TRIAL, BIND, PROOF = 1, 3, 4


@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize(("policy", "moment"), [(None, TRIAL), (None, BIND), ("old", TRIAL), ("old", BIND)])
def test_a_server_that_fails_during_the_bind_leaves_the_header_as_it_was(
    tang: dict[str, str], fading: type[Fading], disk: Path, hangs: bool, policy: str | None, moment: int
) -> None:
    converges(params(disk, tang if policy else None))
    before = header(disk)
    fading.left, fading.hangs = moment, hangs
    failed = run(params(disk, {"url": fading.url, "thp": tang["thp"]}, tang_timeout=5))
    says = f"{disk} was left as it is, it could not be bound" if moment == TRIAL else f"{disk} was not bound"
    assert failed["failed"] and says in failed["msg"], failed
    assert fading.left < 0, "clevis asked nobody"
    assert header(disk) == before
    assert unlocks(disk) is bool(policy)
    converges(params(disk, tang))


def test_a_new_binding_that_fails_its_test_is_taken_away(
    tang: dict[str, str], fading: type[Fading], disk: Path
) -> None:
    converges(params(disk, tang))
    before = metadata(disk)
    fading.left, fading.hangs = PROOF, False
    failed = run(params(disk, {"url": fading.url, "thp": tang["thp"]}))
    assert failed["failed"] and "the new binding failed its test and was removed" in failed["msg"]
    assert fading.left < 0 and metadata(disk) == before and unlocks(disk)
    converges(params(disk, tang))


def test_a_server_that_recovers_nothing_changes_nothing(tang: dict[str, str], fading: type[Fading], disk: Path) -> None:
    fading.left = 1000
    wanted = params(disk, {"url": fading.url, "thp": tang["thp"]})
    converges(wanted)
    before = header(disk)
    fading.refused = 1000
    kept = run(wanted)
    assert kept["actions"] == [] and "a new one would not either" in str(kept["warnings"]), kept
    moved = run(params(disk, {"url": fading.url.replace("127.0.0.1", "localhost"), "thp": tang["thp"]}))
    assert moved["failed"] and "would not come back" in moved["msg"] and header(disk) == before
    # An answer that was lost is no reason to bind anew.
    fading.refused = 1
    assert run(wanted)["actions"] == [] and fading.refused < 0


def silent(tang: dict[str, str]) -> dict[str, str]:
    return {**tang, "url": "http://127.0.0.1:9"}


def wrong(tang: dict[str, str]) -> dict[str, str]:
    return {**tang, "thp": "V70S1sqvOiK_uBbsrXoI8dFxwhZWvNvayDSKc-xRNz4"}


@pytest.mark.parametrize("spoil", [silent, wrong])
def test_a_bind_that_fails_leaves_the_header_as_it_was(tang: dict[str, str], disk: Path, spoil: Any) -> None:
    converges(params(disk, None))
    before = header(disk)
    assert run(params(disk, spoil(tang)))["failed"]
    assert header(disk) == before
    # The same by clevis itself, past all that the module looks at beforehand.
    argv = ["clevis", "luks", "bind", "-f", "-k", "-", "-s", "1", "-d", str(disk), "tang", json.dumps(spoil(tang))]
    assert subprocess.run(argv, input=PASSPHRASE.encode(), capture_output=True, check=False).returncode
    assert header(disk) == before


@pytest.mark.long
@pytest.mark.parametrize("more", [KILL_ALL_BEFORE, KILL_ALL_AFTER])
@pytest.mark.parametrize("word", ["luksAddKey", "import", "config", "luksKillSlot", "remove", "luksHeaderBackup"])
def test_a_killed_change_of_policy_is_completed(
    tangs: list[dict[str, str]], disk: Path, tmp_path: Path, word: str, more: str
) -> None:
    run(params(disk, tangs[1]))
    wanted = params(disk, tangs[0])
    number = 1
    while run(wanted, **tool(tmp_path, word, number, more)).get("killed"):
        assert unlocks(disk), f"no working binding after {word} {number}"
        done = converges(wanted)["devices"][str(disk)]
        assert done["policy"] == {"tang": {"url": tangs[0]["url"]}}
        assert len(metadata(disk)["keyslots"]) == 2 and len(metadata(disk)["tokens"]) == 1
        run(params(disk, tangs[1]))
        number += 1
    assert number > 1, f"nothing was killed at {word}"


@pytest.mark.long
@pytest.mark.parametrize("more", [KILL_ALL_BEFORE, KILL_ALL_AFTER])
@pytest.mark.parametrize("word", ["luksAddKey", "luksKillSlot"])
def test_killed_while_keys_change(tang: dict[str, str], disk: Path, tmp_path: Path, word: str, more: str) -> None:
    wanted = params(disk, tang, recovery_key=RECOVERY, remove_passphrase=True)
    wanted["devices"][0]["replaced"] = True
    number = 1
    while run(wanted, **tool(tmp_path, word, number, more)).get("killed"):
        converges(wanted)
        assert unlocks(disk) and len(metadata(disk)["keyslots"]) == 2
        with disk.open("wb") as stream:
            stream.truncate(20 * 2**20)
        number += 1
    assert number > 1, f"nothing was killed at {word}"


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_killed_while_it_formats(tang: dict[str, str], disk: Path, tmp_path: Path, torn: bool) -> None:
    slow = {"sector_size": 512, "pbkdf": "pbkdf2", "pbkdf_force_iterations": 3000000}
    # The checksum of the second copy is the last that is written before the first key is derived.
    last = f'tail -c +{SECOND_COPY + CHECKSUM + 1} "${{!#}}" | head -c 32 | tr -d "\\0"'
    early = f'until [ "$({last} | wc -c)" -gt 0 ]; do sleep 0.01; done'
    more = f'"$REAL" "$@" <&0 & {early}; kill -KILL 0'
    assert run(params(disk, tang, format=slow), **tool(tmp_path, "luksFormat", 1, more)).get("killed")
    assert metadata(disk)["keyslots"] == {}, "killed too late to show anything"
    if torn:
        tear(disk)
    converges(params(disk, tang))
    assert unlocks(disk)


@pytest.mark.parametrize("left", ["all of it", "no keyslots", "the second copy"])
def test_a_killed_erase_is_completed(tang: dict[str, str], disk: Path, tmp_path: Path, left: str) -> None:
    converges(params(disk, tang))
    uuid = subprocess.run(["cryptsetup", "luksUUID", disk], capture_output=True, text=True, check=True).stdout.strip()
    gone = params(disk, None)
    gone["devices"][0] |= {"state": "absent", "erase": uuid}
    killed = KILL_ALL_BEFORE if left == "all of it" else KILL_ALL_AFTER
    assert run(gone, **tool(tmp_path, "erase", 1, killed)).get("killed")
    assert bool(metadata(disk)["keyslots"]) == (left == "all of it")
    if left == "the second copy":
        overwrite(disk, 0, MAGIC)
    converges(gone)
    assert subprocess.run(["wipefs", disk], capture_output=True, check=True).stdout == b""
    assert list((tmp_path / "headers").iterdir()) == []


def test_the_next_run_waits_for_what_a_killed_one_left_running(
    tang: dict[str, str], disk: Path, tmp_path: Path
) -> None:
    run(params(disk, None))
    wanted, go = params(disk, tang), tmp_path / "go"
    group = run(wanted, GO=str(go), **tool(tmp_path, "luksAddKey", 1, KILL_MODULE))["group"]
    try:
        os.killpg(group, 0)
        lock = os.open(lock_file("luks_clevis_bind"), os.O_RDWR)
        # A clevis that finds its keyslot taken puts back the header that it saw first, without the other's binding.
        assert not locked_within(lock, 1.0), "clevis is still at work"
        os.close(lock)
    finally:
        go.touch()
    converges(wanted)
    assert unlocks(disk) and len(metadata(disk)["keyslots"]) == 2


def test_a_killed_bind_leaves_no_header_in_a_temporary_directory(
    tang: dict[str, str], disk: Path, tmp_path: Path
) -> None:
    converges(params(disk, None))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    killing = {**tool(tmp_path, "luksAddKey", 1, KILL_ALL_BEFORE), "TMPDIR": str(temporary)}
    assert run(params(disk, tang), **killing).get("killed")
    assert list(temporary.iterdir()) == []
    converges(params(disk, tang))
    assert list(Path("/run").glob("personal-cluster-clevis-*")) == []
