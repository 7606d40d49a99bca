# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority, with the real library on real files."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends import x509 as x509_backend
from ansible_collections.personal.cluster.plugins.module_utils._backends.x509 import Authority, Wanted
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, Refused
from cryptography import x509

NODES = [Wanted("node1", ("node1",), ("10.10.0.11",)), Wanted("node2", ("node2",), ("10.10.0.12",))]
MAKE_ALL = [
    "give {} to its owner alone",
    "make the certificate authority of cluster lab",
    "make the key and the certificate of node1",
    "make the key and the certificate of node2",
]


def authority(directory: Path, nodes: list[Wanted] | None = None, years_ahead: int = 0, renew: int = 0) -> Authority:
    def now() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365 * years_ahead)

    return Authority(str(directory), "lab", NODES if nodes is None else nodes, 20, 5, renew, now)


def converge(resource: Authority, check: bool = False) -> dict[str, Any]:
    return _engine.converge(resource, check=check, done=[])


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    converge(authority(tmp_path / "tls"))
    return tmp_path / "tls"


def test_check_mode_lists_what_the_run_does_and_makes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "tls"
    planned = converge(authority(directory), check=True)
    assert not directory.parent.exists()
    done = converge(authority(directory))
    assert planned["actions"] == done["actions"] == [step.format(directory) for step in MAKE_ALL]
    assert directory.parent.stat().st_mode & 0o777 == 0o700


def test_second_run_changes_nothing(made: Path) -> None:
    before = content(made)
    result = converge(authority(made))
    assert (result["changed"], result["actions"]) == (False, [])
    assert content(made) == before


def test_keys_are_for_their_owner_and_never_in_the_result(tmp_path: Path) -> None:
    result = converge(authority(tmp_path / "tls"))
    keys = list((tmp_path / "tls").rglob("*.key"))
    assert sorted(key.name for key in keys) == ["ca.key", "node1.key", "node2.key"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert "PRIVATE" not in str(result)


def test_openssl_accepts_the_certificate_for_name_and_address(made: Path) -> None:
    certificate = str(made / "nodes" / "node1.pem")
    for arguments in (["-verify_hostname", "node1"], ["-verify_ip", "10.10.0.11"], ["-purpose", "sslserver"]):
        subprocess.run(["openssl", "verify", "-CAfile", str(made / "ca.pem"), *arguments, certificate], check=True)
    wrong = ["openssl", "verify", "-CAfile", str(made / "ca.pem"), "-verify_hostname", "node2", certificate]
    assert subprocess.run(wrong, check=False, capture_output=True).returncode != 0


def test_certificates_are_good_on_a_clock_that_has_lost_the_time(made: Path) -> None:
    for path in ("ca.pem", "nodes/node1.pem", "nodes/node2.pem"):
        certificate = x509.load_pem_x509_certificate((made / path).read_bytes())
        assert certificate.not_valid_before_utc == datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    at = ["-attime", str(int(datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC).timestamp()))]
    node = str(made / "nodes" / "node1.pem")
    subprocess.run(["openssl", "verify", "-CAfile", str(made / "ca.pem"), *at, node], check=True)


def test_certificates_that_begin_later_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x509_backend, "VALID_FROM", datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1))
    converge(authority(tmp_path / "tls"))
    monkeypatch.undo()
    assert not converge(authority(tmp_path / "tls"))["changed"]


def test_wrong_modes_are_mended(made: Path) -> None:
    (made / "ca.key").chmod(0o644)
    (made / "nodes" / "node2.key").chmod(0o640)
    made.chmod(0o755)
    planned = converge(authority(made), check=True)
    done = converge(authority(made))
    assert planned["actions"] == done["actions"]
    assert [action.rsplit("/", 1)[1] for action in done["actions"]] == [
        "tls to its owner alone",
        "ca.key to its owner alone",
        "node2.key to its owner alone",
    ]
    assert planned["diff"]["after"] == done["diff"]["after"]


def test_new_address_gets_a_new_certificate_for_the_same_key(made: Path) -> None:
    before = content(made)
    moved = [Wanted("node1", ("node1",), ("10.20.0.11",)), NODES[1]]
    result = converge(authority(made, moved))
    assert result["actions"] == ["issue the certificate of node1 again for node1, 10.20.0.11"]
    after = content(made)
    assert {path for path in after if after[path] != before[path]} == {str(made / "nodes" / "node1.pem")}


def test_another_node_joins(made: Path) -> None:
    before = content(made)
    result = converge(authority(made, [*NODES, Wanted("node3", ("node3",), ("10.10.0.13",))]))
    assert result["actions"] == ["make the key and the certificate of node3"]
    assert {path: text for path, text in content(made).items() if path in before} == before


@pytest.mark.parametrize("lost", ["ca.pem", "nodes/node1.pem"])
def test_run_killed_after_a_key_goes_on_with_that_key(tmp_path: Path, lost: str) -> None:
    directory = tmp_path / "tls"
    nodes = NODES if lost != "ca.pem" else []
    converge(authority(directory, nodes))
    keys = {path: text for path, text in content(directory).items() if path.endswith(".key")}
    (directory / lost).unlink()
    assert converge(authority(directory, nodes))["changed"]
    assert {path: text for path, text in content(directory).items() if path.endswith(".key")} == keys


@pytest.mark.parametrize(
    ("lost", "said"),
    [("ca.key", "its key ca.key is not; restore it"), ("ca.pem", "has certificates of node1, node2 but no ca.pem")],
)
def test_lost_authority_is_refused(made: Path, lost: str, said: str) -> None:
    (made / lost).unlink()
    before = content(made)
    with pytest.raises(Refused, match=said):
        converge(authority(made))
    assert content(made) == before


def test_certificate_of_another_authority_is_refused(made: Path, tmp_path: Path) -> None:
    converge(authority(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "nodes" / "node2.pem", made / "nodes" / "node2.pem")
    before = content(made)
    with pytest.raises(Refused, match="the certificate of node2 was not issued by"):
        converge(authority(made))
    assert content(made) == before


def test_damaged_certificate_is_named(made: Path) -> None:
    (made / "nodes" / "node1.pem").write_text("nothing")
    with pytest.raises(ClusterError, match=r"nodes/node1\.pem holds no certificate"):
        converge(authority(made))


def test_authority_beside_a_newer_one_still_signs(made: Path, tmp_path: Path) -> None:
    converge(authority(tmp_path / "next"))
    bundle = (made / "ca.pem").read_bytes() + (tmp_path / "next" / "ca.pem").read_bytes()
    (made / "ca.pem").write_bytes(bundle)
    assert converge(authority(made))["changed"] is False


def test_certificates_that_end_soon_are_warned_about(made: Path) -> None:
    assert "warnings" not in converge(authority(made))
    warnings = converge(authority(made, years_ahead=5))["warnings"]
    assert [warning.split(" ends on ")[0] for warning in warnings] == [
        "the certificate of node1",
        "the certificate of node2",
    ]


def test_a_certificate_that_ends_soon_is_issued_again_with_its_key(made: Path) -> None:
    before = content(made)
    assert not converge(authority(made, years_ahead=4, renew=90))["changed"]
    late = authority(made, years_ahead=4, renew=400)
    planned = converge(late, check=True)
    assert content(made) == before
    done = converge(late)
    ends = planned["diff"]["before"]["certificates"]["node1"]["not_after"][:10]
    assert (
        planned["actions"]
        == done["actions"]
        == [f"issue the certificate of {name} again: it ends on {ends}" for name in ("node1", "node2")]
    )
    assert done["certificates"]["node1"]["not_after"][:4] == str(int(ends[:4]) + 4)
    kept = {path: data for path, data in content(made).items() if not path.endswith(("node1.pem", "node2.pem"))}
    assert kept == {path: data for path, data in before.items() if path in kept} and len(kept) == len(before) - 2
    assert not converge(late)["changed"]


def test_days_in_which_every_certificate_ends_are_refused(made: Path) -> None:
    with pytest.raises(Refused, match="a new one lasts 1825; take fewer days"):
        converge(authority(made, renew=1825))
