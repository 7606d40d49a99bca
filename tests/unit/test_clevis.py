# SPDX-License-Identifier: GPL-3.0-or-later
"""The clevis backend on recorded tokens, advertisements and complaints of Debian 12 and 13."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _addresses as addresses
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis import binder as clevis
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis import tokens as clevis_tokens
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import Policy
from ansible_collections.personal.cluster.plugins.module_utils._errors import (
    ClusterError,
    CommandFailed,
    NotYet,
    Refused,
)
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded"
RELEASES = ["bookworm", "trixie"]
ONE, TWO = "http://127.0.0.1:7511", "http://127.0.0.1:7512"


def tokens(release: str, dump: str) -> dict[str, Any]:
    text = (RECORDED / "cryptsetup" / release / f"{dump}.json").read_text()
    found: dict[str, Any] = json.loads(text)["tokens"]
    return found


def policy(*servers: tuple[str, str], threshold: int = 1, pin: str | None = None) -> Policy:
    tang = [{"url": url, "thp": thp} for url, thp in servers]
    return Policy.of({"tang": tang, "threshold": threshold, "pin": pin})


class Answers:
    """A runner that gives one answer and keeps what it was asked."""

    def __init__(self, stdout: str = "", stderr: str = "", rc: int = 0) -> None:
        self.answer = Completed(rc, stdout, stderr)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        home = (options.get("env") or {}).get("CURL_HOME")
        limit = Path(home, ".curlrc").read_text() if home else ""
        self.calls.append({"argv": list(argv), "stdin": options.get("stdin"), "curlrc": limit})
        return self.answer


def test_thumbprint_of_rfc7638() -> None:
    key = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert clevis_tokens.thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("release", RELEASES)
def test_parse_tang_token(release: str) -> None:
    found = clevis.Clevis(Answers(), 5).parse(tokens(release, "tang")["0"])
    assert found["policy"] == {"tang": {"url": ONE}}  # recorded with a slash at its end
    (key,) = found["tang_keys"]
    known = clevis_tokens.advertised((RECORDED / "clevis" / release / "adv.json").read_text())
    assert key["kid"] in known and set(key["known"]) == known


@pytest.mark.parametrize("release", RELEASES)
def test_parse_sss_token(release: str) -> None:
    token = next(token for token in tokens(release, "sss_and_orphan").values() if token["keyslots"])
    found = clevis.Clevis(Answers(), 5).parse(token)
    assert found["policy"] == {"sss": {"t": 2, "pins": [{"tang": {"url": ONE}}, {"tang": {"url": TWO}}]}}
    assert found["policy"] == policy((TWO, "a"), (ONE + "/", "b"), threshold=2).canonical()
    assert sorted(key["url"] for key in found["tang_keys"]) == [ONE, TWO]
    assert '"p"' not in json.dumps(found)


def nested(threshold: int = 2, **tpm2: Any) -> Policy:
    """The policy of the recorded nested token."""
    one, two = {"url": ONE, "thp": "a"}, {"url": TWO + "/", "thp": "b"}
    inner = [{"threshold": 1, "tang": [two]}, {"threshold": 1, "tang": [two, one]}]
    return Policy.of({"threshold": threshold, "tpm2": tpm2, "sss": inner})


def test_parse_tpm2_token() -> None:
    found = clevis.Clevis(Answers(), 5).parse(tokens("bookworm", "tpm2")["0"])
    assert found == {"policy": {"tpm2": {"pcr_bank": "sha256", "pcr_ids": "0,7"}}, "tang_keys": []}
    wanted = Policy.of({"threshold": 1, "tpm2": {"pcr_bank": "sha256", "pcr_ids": [7, 0, 7]}})
    assert wanted.canonical() == found["policy"]
    pin, config = wanted.arguments()
    assert (pin, json.loads(config)) == ("tpm2", {"pcr_bank": "sha256", "pcr_ids": "0,7"})


def test_a_bank_that_nobody_asked_for_is_the_choice_of_clevis() -> None:
    tool = clevis.Clevis(Answers(), 5)
    found = tool.parse(tokens("bookworm", "tpm2")["0"])["policy"]
    for settings, same in [
        ({"pcr_ids": [0, 7]}, True),
        ({"pcr_ids": [0, 7], "pcr_bank": "sha1"}, False),
        ({"pcr_ids": [7]}, False),
        ({}, False),
    ]:
        wanted = Policy.of({"threshold": 1, "tpm2": settings}).canonical()
        assert tool.agree(found, wanted) is same, settings
        assert tool.agree({"sss": {"t": 1, "pins": [found]}}, {"sss": {"t": 1, "pins": [wanted]}}) is same
    assert not tool.agree(found, policy((ONE, "")).canonical())


def test_parse_nested_token() -> None:
    tool = clevis.Clevis(Answers(), 5)
    found = tool.parse(tokens("bookworm", "nested")["0"])
    one, two = {"tang": {"url": ONE}}, {"tang": {"url": TWO}}
    pins = [{"sss": {"t": 1, "pins": [one, two]}}, {"sss": {"t": 1, "pins": [two]}}, {"tpm2": {}}]
    assert found["policy"] == {"sss": {"t": 2, "pins": pins}}
    assert sorted(key["url"] for key in found["tang_keys"]) == [ONE, TWO, TWO]
    assert tool.agree(found["policy"], nested().canonical())
    assert not tool.agree(found["policy"], nested(3).canonical())
    assert tool.sentence(found["policy"]) == f"2 of (1 of (tang {ONE}, tang {TWO}), 1 of (tang {TWO}), tpm2)"
    secrets = json.dumps(found)
    assert '"p"' not in secrets and "jwk_priv" not in secrets and '"d"' not in secrets


def test_nested_policy_arguments() -> None:
    pin, config = nested(pcr_ids=[7]).arguments()
    one, two = {"url": ONE, "thp": "a"}, {"url": TWO, "thp": "b"}
    inner = [{"t": 1, "pins": {"tang": [two]}}, {"t": 1, "pins": {"tang": [two, one]}}]
    assert (pin, json.loads(config)) == ("sss", {"t": 2, "pins": {"tpm2": [{"pcr_ids": "7"}], "sss": inner}})
    assert set(nested().sources) == {ONE, TWO, "tpm2"} and nested().faults() == []
    assert nested().alone == [TWO] and nested(3).alone == [] and policy((ONE, "t"), threshold=1).alone == []


def test_tpm() -> None:
    wanted = Policy.of({"threshold": 1, "tpm2": {}})
    assert wanted.pin == "tpm2"

    def missing(argv: Sequence[str], **options: Any) -> Completed:
        raise NotYet(f"{argv[0]} is not installed")

    tool = clevis.Clevis(missing, 5)
    servers = tool.look(wanted.sources)
    assert tool.silent(wanted, servers) == ["the TPM (clevis-tpm2 is not installed)"]
    assert tool.obstacles(wanted, servers) == [], "what the run may still install is no refusal"


def test_a_node_without_a_tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPM2TOOLS_TCTI", raising=False)
    wanted = Policy.of({"threshold": 1, "tpm2": {}})
    tool = clevis.Clevis(Answers(rc=2), 5, root=tmp_path)
    assert "this node has no TPM 2.0" in tool.obstacles(wanted, tool.look(wanted.sources))[0]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").touch()
    servers = tool.look(wanted.sources)
    assert tool.obstacles(wanted, servers) == tool.silent(wanted, servers) == []


def test_damaged_token_is_named() -> None:
    with pytest.raises(ClusterError, match="cannot be read"):
        clevis.Clevis(Answers(), 5).parse({"jwe": {"protected": "%%%"}})


def test_policy_arguments() -> None:
    pin, config = policy((ONE, "t1")).arguments()
    assert (pin, json.loads(config)) == ("tang", {"url": ONE, "thp": "t1"})
    pin, config = policy((ONE, "t1"), (TWO, "t2"), threshold=2).arguments()
    pins = {"tang": [{"url": ONE, "thp": "t1"}, {"url": TWO, "thp": "t2"}]}
    assert (pin, json.loads(config)) == ("sss", {"t": 2, "pins": pins})


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (policy((ONE, "t"), (TWO, "t"), threshold=3), "threshold 3 exceeds 2 pins"),
        (policy((ONE, "t"), threshold=2, pin="sss"), "threshold 2 exceeds 1 pin"),
        (policy((ONE, "t"), threshold=0), "threshold 0 lets anybody unlock"),
        (policy((ONE, "t"), (TWO, "t"), pin="tang"), "takes one server"),
        (policy((ONE, "t"), (ONE + "/", "t")), "is named twice"),
        (policy(), "names no tang server"),
        (nested(4), "threshold 4 exceeds 3 pins"),
        (nested(pcr_ids=[24]), "PCR 24 does not exist"),
        (nested(pcr_bank="sha256"), "pcr_bank means nothing without pcr_ids"),
        (Policy.of({"threshold": 1, "tang": [], "sss": [{"threshold": 2, "tpm2": {}}]}), "threshold 2 exceeds 1 pin"),
        (Policy.of({"threshold": 1, "tang": [], "sss": [{"threshold": 1}]}), "names no tang server"),
        (Policy.of({"threshold": 1, "pin": "tpm2", "tang": [{"url": ONE}]}), "pin tpm2 needs tpm2"),
        (Policy.of({"threshold": 1, "pin": "tang", "tpm2": {}}), "pin tang needs a server"),
        (
            Policy.of(
                {
                    "threshold": 1,
                    "tang": [{"url": ONE, "thp": "a"}],
                    "sss": [{"threshold": 1, "tang": [{"url": ONE, "thp": "b"}]}],
                }
            ),
            "is pinned to two keys",
        ),
    ],
)
def test_faults(wanted: Policy, says: str) -> None:
    faults = clevis.Clevis(Answers(), 5).faults(wanted)
    assert any(says in fault for fault in faults), faults


def test_no_fault_in_good_policies() -> None:
    for wanted in (policy((ONE, "t")), policy((ONE, "t"), (TWO, "t")), policy((ONE, "t"), pin="sss")):
        assert clevis.Clevis(Answers(), 5).faults(wanted) == []


class Trial:
    """clevis that gives back what it was given, or something else."""

    def __init__(self, *answers: Completed | Exception) -> None:
        self.answers, self.calls = list(answers), list[tuple[list[str], str | None]]()

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.calls.append((list(argv), options.get("stdin")))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_policy_is_tried_once_without_a_disk() -> None:
    run = Trial(Completed(0, "jwe", ""), Completed(0, clevis.TRIAL, ""), Completed(1, "", "W\nno such server\n"))
    tool = clevis.Clevis(run, 5)
    assert [tool.fails(policy((ONE, "x"))) for _ in range(2)] == ["", ""]
    (encrypt, given), (decrypt, back) = run.calls
    assert encrypt[:2] == ["clevis", "encrypt"] and (decrypt, back) == (["clevis", "decrypt"], "jwe")
    assert given == clevis.TRIAL
    assert tool.fails(policy((TWO, "x"))) == f"of {TWO} too little answers as it should (no such server)"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([Completed(0, "jwe", ""), Completed(0, "other", "")], "something else came back"),
        ([Completed(0, "jwe", ""), Completed(1, "", "Error communicating with server")], "Error communicating"),
        ([CommandFailed("clevis encrypt did not finish")], "did not finish"),
    ],
)
def test_a_policy_that_yields_nothing(answers: list[Completed | Exception], why: str) -> None:
    assert why in clevis.Clevis(Trial(*answers), 5).fails(policy((ONE, "x")))


def test_a_binding_yields_what_its_first_token_holds() -> None:
    jwe = {"protected": "p", "encrypted_key": "e", "iv": "i", "ciphertext": "c", "tag": "t"}
    token = {"type": "clevis", "keyslots": ["1"], "jwe": jwe}
    others = {"2": {**token, "type": "systemd-tpm2"}, "10": {**token, "jwe": "another"}, "1": {**token, "keyslots": []}}
    header = json.dumps({"tokens": {**others, "9": token}})
    run = Trial(Completed(0, header, ""), Completed(0, "secret\n", ""))
    assert clevis.Clevis(run, 5).secret("/dev/a", 1) == "secret"
    _, decrypt = run.calls
    # Not by way of `clevis`, which does not tell a part that is missing from one that fails.
    assert decrypt == (["clevis-decrypt"], "p.e.i.c.t")
    for answers in (
        [Completed(0, header, ""), Completed(1, "", "no answer")],
        [Completed(1, "", ""), Completed(1, "", "")],
    ):
        assert clevis.Clevis(Trial(*answers), 5).secret("/dev/a", 1) == ""


def test_a_policy_never_asks_the_node_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ("10.0.0.1", "fd00::1", "127.0.0.1")
    monkeypatch.setattr(addresses, "source_towards", lambda address: "10.0.0.1")
    monkeypatch.setattr(addresses, "is_own_address", lambda address: address in cards)
    monkeypatch.setattr(addresses, "binds_anywhere", lambda: False)
    monkeypatch.setattr(socket, "gethostname", lambda: "node1.lan")
    own = ["http://10.0.0.1:7500", "10.0.0.1", "http://[fd00::1]:7500", "http://[::ffff:10.0.0.1]", "http://0.0.0.0"]
    own += ["http://node1.lan", "http://NODE1:7500"]
    # A loopback address may lead anywhere, through a tunnel.
    others = ["http://10.0.0.2:7500", "http://127.0.0.1:7500", "http://[::ffff:127.0.0.1]", "http://localhost:7500"]
    others += ["http://node10", "http://node1.example.org", "http://[fd00::2", ""]
    own.append("http://tang.lan:7500")
    names = {"tang.lan": ("10.0.0.2", "10.0.0.1"), "localhost": ("127.0.0.1",), "node10": ("10.0.0.10",)}
    monkeypatch.setattr(addresses, "addresses_of", lambda name: frozenset(names.get(name, ())))
    for url in own + others:
        inner = {"tang": [{"url": url, "thp": "x"}], "threshold": 1}
        found = clevis.Clevis(Answers(), 5).faults(Policy.of({"tpm2": {}, "sss": [inner], "threshold": 2}))
        says = "is this node itself: it would unlock its disks for whoever carries it away; leave it out"
        assert [fault.partition(" of the policy")[0] for fault in found] == ([f"{url} {says}"] if url in own else [])
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert not addresses.is_own_card("localhost")
    monkeypatch.setattr(addresses, "binds_anywhere", lambda: True)
    monkeypatch.setattr(addresses, "is_own_address", lambda address: True)
    assert addresses.is_own_card("10.0.0.1") and not addresses.is_own_card("10.0.0.2")


def test_the_address_from_which_a_host_asks() -> None:
    assert addresses.source_towards("127.0.0.1") == "127.0.0.1"
    assert addresses.source_towards("127.0.0.1.1") == addresses.source_towards("fe80::1") == ""


def test_obstacles_name_server_and_remedy() -> None:
    tool = clevis.Clevis(Answers(), 5)
    servers = {ONE: frozenset({"t1"}), TWO: None}
    assert tool.obstacles(policy((ONE, "t1"), (TWO, "t2")), servers) == []
    assert "no thumbprint is pinned" in tool.obstacles(policy((ONE, "")), servers)[0]
    assert "does not advertise the key t9" in tool.obstacles(policy((ONE, "t9")), servers)[0]
    assert tool.silent(policy((ONE, "t1"), (TWO, "t2")), servers) == [TWO]


def kept(adv: Any, thp: str = "", threshold: int = 1) -> Policy:
    """A policy whose first server is away; what it advertised was kept."""
    servers = [{"url": ONE, "thp": thp, "adv": adv}, {"url": TWO, "thp": "t2"}]
    return Policy.of({"threshold": threshold, "tang": [], "sss": [{"threshold": 1, "tang": servers}]})


def test_an_advertisement_that_was_kept_replaces_a_server_that_is_away() -> None:
    answers = Answers((RECORDED / "clevis/trixie/adv.json").read_text())
    adv = json.loads(answers.answer.stdout)
    known, exchanging = clevis_tokens.advertised(json.dumps(adv)), clevis_tokens.exchanging(json.dumps(adv))
    (signs,), (exchanges,) = known - exchanging, exchanging
    tool = clevis.Clevis(answers, 5)
    away: clevis.Servers = {ONE: None, TWO: frozenset({"t2"})}
    wanted = kept(adv, signs)
    assert tool.silent(wanted, away) == [ONE] and tool.missing(wanted, away) == []
    assert tool.missing(wanted, {ONE: None, TWO: None}) == [ONE, TWO], "nothing could be proven"
    both = Policy.of({"threshold": 2, "tang": [{"url": ONE, "thp": signs, "adv": adv}, {"url": TWO, "thp": "t2"}]})
    assert tool.missing(both, away) == [ONE], "the others are not enough to unlock"
    assert tool.obstacles(wanted, away) == tool.faults(wanted) == []
    assert "does not advertise the key t9" in tool.obstacles(kept(adv, "t9"), away)[0]
    assert "signs nothing" in tool.obstacles(kept(adv, exchanges), away)[0]
    # A server that answers is asked, whatever was kept.
    assert "does not advertise" in tool.obstacles(wanted, {**away, ONE: frozenset({"new"})})[0]
    null = base64.urlsafe_b64encode(b'{"keys": [{"kty": "EC", "crv": "", "x": "", "y": "", "key_ops": null}]}').decode()
    for nonsense in ({}, {"payload": "e30"}, {"payload": "eyJrZXlzIjpbXX0"}, {"payload": 3}, {"payload": null}):
        assert any(f"adv of {ONE} " in fault for fault in tool.faults(kept(nonsense, signs))), nonsense
    twice = [{"url": ONE, "thp": signs, "adv": adv}], [{"url": ONE, "thp": signs, "adv": {**adv, "more": 1}}]
    outer = {"threshold": 1, "tang": twice[0], "sss": [{"threshold": 1, "tang": twice[1]}]}
    assert tool.faults(Policy.of(outer)) == [f"{ONE} has two advertisements"]
    del twice[1][0]["adv"]
    config = json.loads(Policy.of(outer).arguments([ONE])[1])
    assert config["pins"]["sss"][0]["pins"]["tang"][0]["adv"] == adv, "what was kept counts wherever the server stands"


def test_a_header_without_room_is_named() -> None:
    said = "Failed to import token from file.\nUnable to update metadata; operation cancelled\nError adding new binding"
    with pytest.raises(ClusterError, match="no room for a second binding .* state unbound"):
        clevis.Clevis(Answers("", said, 1), 9).bind("/dev/x", 3, policy((ONE, "t")), "secret words", "")


def test_clevis_gets_the_advertisement_of_a_server_that_is_away_alone() -> None:
    adv = json.loads((RECORDED / "clevis/trixie/adv.json").read_text())
    wanted = kept(adv, "t1")
    for answers, given in ((Answers("", rc=7), True), (Answers(json.dumps(adv)), False)):
        tool = clevis.Clevis(answers, 9)
        tool.look(wanted.sources)
        answers.answer = Completed(0, "", "")
        tool.bind("/dev/x", 3, wanted, "secret words", "")
        inner = json.loads(answers.calls[-1]["argv"][-1])["pins"]["sss"][0]["pins"]["tang"]
        assert [server.get("adv") for server in inner] == [adv if given else None, None]


def test_outdated() -> None:
    tool = clevis.Clevis(Answers(), 5)
    binding = {"tang_keys": [{"url": ONE, "kid": "x1", "known": ["s1", "x1"]}]}
    assert tool.outdated(binding, policy((ONE, "s1")), {ONE: frozenset({"s1", "x1"})}) == ""
    assert "rotated" in tool.outdated(binding, policy((ONE, "s1")), {ONE: frozenset({"s1", "x2"})})
    assert "pinned to another key" in tool.outdated(binding, policy((ONE, "s2")), {ONE: frozenset({"s2", "x1"})})
    # A pin that nobody advertises is no reason to bind again, nor is a server that does not answer.
    assert tool.outdated(binding, policy((ONE, "s9")), {ONE: frozenset({"s1", "x1"})}) == ""
    assert tool.outdated(binding, policy((ONE, "s2")), {ONE: None}) == ""


def test_look_asks_each_server_once_and_survives_nonsense() -> None:
    answers = Answers((RECORDED / "clevis/trixie/adv.json").read_text())
    found = clevis.Clevis(answers, 7).look([ONE, ONE, TWO])
    assert [call["argv"][-1] for call in answers.calls] == [f"{ONE}/adv", f"{TWO}/adv"]
    assert all("7" in call["argv"] for call in answers.calls)
    assert found[ONE] and found[ONE] == found[TWO]
    for nonsense in (Answers("<html>"), Answers("{}"), Answers('{"payload": "e30"}'), Answers("", rc=7)):
        assert clevis.Clevis(nonsense, 7).look([ONE]) == {ONE: None}
    deep = "[" * 200_000 + "]" * 200_000
    for payload in ('{"keys": ["x"]}', '{"keys": [[]]}', '{"keys": 3}', "3", deep, f'{{"keys": {deep}}}'):
        coded = base64.urlsafe_b64encode(payload.encode()).decode()
        assert clevis.Clevis(Answers(json.dumps({"payload": coded})), 7).look([ONE]) == {ONE: None}
    assert clevis.Clevis(Answers(deep), 7).look([ONE]) == {ONE: None}


def test_a_key_that_signs_nothing_is_not_pinned() -> None:
    answers = Answers((RECORDED / "clevis/trixie/adv.json").read_text())
    tool = clevis.Clevis(answers, 7)
    servers = tool.look([ONE])
    known = sorted(servers[ONE] or ())
    told = [tool.obstacles(policy((ONE, thp)), servers) for thp in known]
    assert sorted(map(len, told)) == [0, 1]
    assert any("signs nothing with the key" in found[0] for found in told if found)
    for limit in (0, -1, 10**12):
        with pytest.raises(Refused, match=f"tang_timeout is {limit}; take 1 to 3600 seconds"):
            clevis.Clevis(answers, limit).look([ONE])


def test_bind_keeps_the_passphrase_off_the_command_line_and_curl_on_a_leash() -> None:
    answers = Answers()
    clevis.Clevis(answers, 9).bind("/dev/x", 3, policy((ONE, "t")), "secret words", "")
    (call,) = answers.calls
    assert call["stdin"] == "secret words" and "secret words" not in " ".join(call["argv"])
    assert call["argv"][:9] == ["clevis", "luks", "bind", "-f", "-k", "-", "-s", "3", "-d"]
    assert "-y" not in call["argv"]
    assert "max-time = 9" in call["curlrc"]


def test_bind_takes_a_file_as_it_is() -> None:
    answers = Answers()
    clevis.Clevis(answers, 9).bind("/dev/x", 3, policy((ONE, "t")), "", "/run/key")
    assert answers.calls[0]["argv"][3:6] == ["-f", "-k", "/run/key"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        ("bind_wrong_thp", "did not sign with the pinned thp"),
        ("bind_no_server", "a tang server did not answer"),
    ],
)
def test_bind_complaints(release: str, recorded: str, says: str) -> None:
    stderr = (RECORDED / "clevis" / release / f"{recorded}.txt").read_text()
    with pytest.raises(ClusterError, match=f"/dev/x was not bound: .*{says}"):
        clevis.Clevis(Answers(stderr=stderr, rc=1), 5).bind("/dev/x", 1, policy((ONE, "t")), "p", "")


@pytest.mark.parametrize(("recorded", "says"), [("bind_no_bank", "no such PCR bank"), ("bind_no_tpm", "has no TPM")])
def test_bind_complaints_about_the_tpm(recorded: str, says: str) -> None:
    stderr = (RECORDED / "clevis/bookworm" / f"{recorded}.txt").read_text()
    with pytest.raises(ClusterError, match=f"/dev/x was not bound: .*{says}"):
        clevis.Clevis(Answers(stderr=stderr, rc=1), 5).bind("/dev/x", 1, nested(), "p", "")


def test_bind_without_a_valid_key() -> None:
    with pytest.raises(ClusterError, match="no valid passphrase and no binding decrypts"):
        stderr = "No key available with this passphrase.\nError adding new binding to /dev/x\n"
        clevis.Clevis(Answers(stderr=stderr, rc=1), 5).bind("/dev/x", 1, policy((ONE, "t")), "", "")


def test_sentences() -> None:
    tool = clevis.Clevis(Answers(), 5)
    assert tool.sentence({"tang": {"url": ONE}}) == f"tang {ONE}"
    assert tool.sentence(policy((ONE, ""), (TWO, "")).canonical()) == f"1 of (tang {ONE}, tang {TWO})"
    assert tool.sentence({"tpm2": {"pcr_ids": "7", "hash": "sha256"}}) == "tpm2 hash=sha256 pcr_ids=7"
