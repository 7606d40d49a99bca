# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's files as Ansible renders them, judged by promtool and amtool, and every alert in promtool's unit tests.

Needs the Debian packages prometheus, prometheus-alertmanager and prometheus-node-exporter.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
ROLE = TOP / "roles/telemetry"
RECORDED = TOP / "tests/unit/recorded/collect"
NODES = {"node1": "10.10.0.11", "node2": "10.10.0.12", "node3": "10.10.0.13"}
TANG = {"tang1": "10.10.0.10"}

SETTINGS: dict[str, Any] = {
    "inventory_hostname": "node1",
    "telemetry_cluster": "lab",
    "telemetry_name": "node1",
    "telemetry_address": "10.10.0.11",
    "telemetry_nodes": NODES,
    "telemetry_extra_hosts": TANG,
    "telemetry_disks": [{"volume": "gv0"}, {"volume": "gv1", "name": "gv1-a"}],
    "telemetry_tang_servers": ["10.10.0.10:7500", "10.10.0.9:7500"],
    # Minutes, not hours: promtool takes its time for every minute.
    "telemetry_alert_delay_long": "10m",
    "telemetry_backup_max_age": 1200,
    "telemetry_backup_max_duration": 900,
    "telemetry_receiver": {"webhook_configs": [{"url": "https://example.org/alerts?a=1&b='2'"}]},
}

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - personal.cluster.config_files:
        files: "{{{{ __telemetry_files + __telemetry_grafana_files[1:] }}}}"
"""


def tool(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, **options
    )


def render(work: Path, **settings: Any) -> Path:
    """Write all files of the role below ``work`` through the module that writes them on a node, checks included."""
    for name in ("templates", "files"):
        if not (work / name).exists():
            (work / name).symlink_to(ROLE / name)
    (work / "play.yml").write_text(PLAYBOOK.format(role=ROLE))
    out = work / "out"
    places = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "__telemetry_dir": str(out),
        "__telemetry_unit_dir": str(out / "units"),
        "__telemetry_programs": str(out / "programs"),
        "__telemetry_collect_config": str(out / "collect.json"),
        "__telemetry_grafana_dir": str(out / "grafana"),
    }
    ansible = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert ansible, "ansible-playbook is not installed beside this Python"
    variables = json.dumps({**SETTINGS, **places, **settings})
    done = tool(
        [ansible, "-i", "localhost,", "-e", variables, str(work / "play.yml")],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("telemetry"))


def rules_of(out: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((out / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


# A healthy cluster, a value a minute: three nodes, tang, two of them with Prometheus; guest web runs on node1.

Series = dict[str, str]
LENGTH = 100
ONE = f"1+0x{LENGTH}"
ZERO = f"0+0x{LENGTH}"
CLOCK = f"0+60x{LENGTH}"
OWN = "personal_cluster_"


def node_series(name: str, number: int) -> Series:
    """Return what a healthy node exports, with the labels that Prometheus adds."""
    at = f'instance="{name}",job="node",role="node"'
    brick = f'volume="gv0",replica_set="0",brick="{name}:/bricks/gv0/brick"'
    series = {
        f"up{{{at}}}": ONE,
        f"node_time_seconds{{{at}}}": CLOCK,
        f'node_filesystem_avail_bytes{{{at},mountpoint="/"}}': f"50+0x{LENGTH}",
        f'node_filesystem_size_bytes{{{at},mountpoint="/"}}': f"100+0x{LENGTH}",
        f"{OWN}telemetry_collect_timestamp_seconds{{{at}}}": CLOCK,
        f'{OWN}telemetry_collect_success{{{at},collector="gluster"}}': ONE,
        f'{OWN}telemetry_certificate_expiry_timestamp_seconds{{{at},path="node.pem"}}': f"4000000+0x{LENGTH}",
        f'{OWN}storage_volume_started{{{at},volume="gv0"}}': ONE,
        f"{OWN}storage_brick_online{{{at},{brick}}}": ONE,
        f'{OWN}storage_replica_bricks{{{at},volume="gv0"}}': f"3+0x{LENGTH}",
        f"{OWN}storage_heal_pending_entries{{{at},{brick}}}": ZERO,
        f'{OWN}storage_split_brain_entries{{{at},volume="gv0"}}': ZERO,
        f'{OWN}storage_mount_ok{{{at},mount="/srv/gv0"}}': ONE,
        f'{OWN}storage_thin_data_ratio{{{at},vg="vg_gv0",pool="pool"}}': f"0.5+0x{LENGTH}",
        f'{OWN}storage_thin_metadata_ratio{{{at},vg="vg_gv0",pool="pool"}}': f"0.1+0x{LENGTH}",
        f'{OWN}encryption_tang_reachable{{{at},server="a"}}': ONE,
        f'{OWN}encryption_tang_reachable{{{at},server="b"}}': ONE,
        f'{OWN}encryption_device_unlocked{{{at},disk="gv0"}}': ONE,
        f'{OWN}encryption_header_backup_present{{{at},disk="gv0"}}': ONE,
        f'{OWN}hypervisor_guest_running{{{at},vm="web"}}': ONE if number == 1 else ZERO,
        f'{OWN}hypervisor_guest_autostart{{{at},vm="web"}}': ONE if number == 1 else ZERO,
        f'{OWN}hypervisor_guest_paused_io_error{{{at},vm="web"}}': ZERO,
        f'{OWN}network_interface_ok{{{at},interface="eth0"}}': ONE,
        f'{OWN}network_uplink_up{{{at},interface="eth0"}}': ONE,
        f'{OWN}network_upcalls_lost_total{{{at},datapath="system@ovs-system"}}': f"7+0x{LENGTH}",
        f'{OWN}backup_last_good_timestamp_seconds{{{at},vm="web"}}': CLOCK if number == 1 else ZERO,
        f"{OWN}backup_last_run_success{{{at}}}": ONE,
    }
    for peer in sorted(NODES.keys() - {name}):
        series[f'{OWN}storage_peer_connected{{{at},peer="{peer}"}}'] = ONE
    for state in ("failed", "activating"):
        series[f'node_systemd_unit_state{{{at},name="personal-cluster-backup.service",state="{state}"}}'] = ZERO
    return series


def healthy() -> Series:
    series: Series = {'up{instance="tang1",job="node",role="extra"}': ONE}
    for number, name in enumerate(NODES, 1):
        series |= node_series(name, number)
        series[f'up{{instance="{name}",job="alertmanager"}}'] = ONE
        series[f'alertmanager_cluster_members{{instance="{name}",job="alertmanager"}}'] = f"3+0x{LENGTH}"
    for name in list(NODES)[:2]:
        series[f'up{{instance="{name}",job="prometheus"}}'] = ONE
    return series


def changed(pattern: str, values: str | None, series: Series | None = None) -> Series:
    """Return a healthy cluster whose series that match ``pattern`` have other values, or none."""
    before = healthy() if series is None else series
    hits = [name for name in before if re.search(pattern, name)]
    assert hits, f"nothing matches {pattern}"
    after = {name: value for name, value in before.items() if name not in hits}
    return after if values is None else after | dict.fromkeys(hits, values)


def on(node: str, metric: str) -> str:
    return f'^{metric}{{.*instance="{node}",job="node"'


def since(minute: int, before: int | str, after: int | str) -> str:
    """Return values that change at a minute."""
    return f"{before}+0x{minute - 1} {after}+0x{LENGTH}"


def ends(minute: int, before: int | str = 1) -> str:
    return f"{before}+0x{minute - 1} stale"


def dead(node: str, minute: int) -> Series:
    """Return a cluster in which one node loses its power."""
    series = changed(f'instance="{node}"', ends(minute))
    series = changed(f'^up{{.*instance="{node}"', since(minute, 1, 0), series)
    series = changed(f'peer="{node}"', since(minute, 1, 0), series)
    return changed("alertmanager_cluster_members", f"2+0x{LENGTH}", series)


def alerts(name: str, *labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"alertname": name, **each} for each in labels or ({},)]


def nodes(name: str, **labels: str) -> list[dict[str, str]]:
    return [{"alertname": name, "instance": node, **labels} for node in NODES]


N1 = {"instance": "node1"}
WEB = {"vm": "web"}
GV0 = {"volume": "gv0"}
EVERYTHING_DOWN = changed("^up", since(5, 1, 0), changed("^(?!up)", ends(5)))
DOWN = [
    *alerts("NodeDown", *({"instance": name} for name in (*NODES, *TANG))),
    *alerts("MonitoringDown", *({"instance": name} for name in NODES)),
]

# What is tested, the series, the minute at which to look, and all that must fire then beside Watchdog.
Scenario = tuple[str, Series, int, list[dict[str, str]]]
SCENARIOS: list[Scenario] = [
    ("healthy", healthy(), 30, []),
    ("no series at all", {}, 15, []),
    ("no series for longer than a backup may be old", {}, 22, alerts("BackupNeverRan")),
    ("everything down", EVERYTHING_DOWN, 15, [*DOWN, *alerts("GuestNotRunning", WEB)]),
    ("everything down for hours", EVERYTHING_DOWN, 75, [*DOWN, *alerts("BackupNeverRan")]),
    ("a node down for a moment", changed(on("node3", "up"), since(10, 1, 0)), 11, []),
    (
        "a node down",
        dead("node3", 10),
        13,
        [
            *alerts("NodeDown", {"instance": "node3"}),
            *alerts("MonitoringDown", {"instance": "node3"}),
            *alerts("PeerDisconnected", N1, {"instance": "node2"}),
        ],
    ),
    (
        "the node of a guest down",
        dead("node1", 10),
        13,
        [
            *alerts("NodeDown", N1),
            *alerts("MonitoringDown", N1),
            *alerts("PeerDisconnected", {"instance": "node2"}, {"instance": "node3"}),
            *alerts("GuestNotRunning", WEB),
        ],
    ),
    ("an exporter without metrics", changed(on("node1", "(?!up).*"), ends(10)), 13, alerts("CollectorStale", N1)),
]


def single(pattern: str, values: str, *expected: list[dict[str, str]], at: int = 15) -> Scenario:
    return (f"{pattern} {values[:12]}", changed(pattern, values), at, [alert for group in expected for alert in group])


def own(metric: str, node: str = "node1") -> str:
    return f'^{OWN}{metric}[a-z_]*{{instance="{node}"'


SCENARIOS += [
    single('^up{instance="tang1"', ZERO, alerts("NodeDown", {"instance": "tang1"})),
    single('^up{instance="node2",job="prometheus"', ZERO, alerts("MonitoringDown", {"instance": "node2"})),
    single('^alertmanager_cluster_members{instance="node1"', f"2+0x{LENGTH}", alerts("AlertmanagerMeshSplit", N1)),
    single(own("telemetry_collect_timestamp"), f"0+60x5 300+0x{LENGTH}", [], at=11),
    single(own("telemetry_collect_timestamp"), f"0+60x5 300+0x{LENGTH}", alerts("CollectorStale", N1), at=14),
    single(own("telemetry_collect_success"), since(5, 1, 0), [], at=9),
    single(own("telemetry_collect_success"), since(5, 1, 0), alerts("CollectorFailed", N1), at=11),
    single('^node_systemd.*instance="node1".*failed', ONE, alerts("UnitFailed", N1)),
    single(on("node1", "node_time_seconds"), f"3+60x{LENGTH}", alerts("ClockSkew", N1)),
    single(on("node1", "node_time_seconds"), f"-1+60x{LENGTH}", []),
    single(on("node1", "node_filesystem_avail_bytes"), f"9+0x{LENGTH}", alerts("FilesystemAlmostFull", N1)),
    single(on("node1", "node_filesystem_avail_bytes"), f"11+0x{LENGTH}", []),
    single(own("telemetry_certificate_expiry"), f"1810000+0x{LENGTH}", alerts("CertificateExpiring", N1)),
    single(own("storage_peer_connected"), ZERO, alerts("PeerDisconnected", N1)),
    single(own("storage_volume_started"), ZERO, alerts("VolumeNotStarted", N1 | GV0)),
    single(own("storage_brick_online"), ZERO, alerts("BrickOffline", N1 | GV0)),
    single(
        "storage_brick_online.*node[12]:",
        ZERO,
        alerts("BrickOffline", N1 | GV0, {"instance": "node2"} | GV0),
        alerts("QuorumLost", GV0),
    ),
    single("storage_brick_online", ZERO, nodes("BrickOffline", **GV0), alerts("QuorumLost", GV0)),
    single("storage_brick_online.*node[12]:", ends(5), alerts("QuorumLost", GV0)),
    single(own("storage_split_brain_entries"), ONE, alerts("SplitBrain", GV0)),
    single(own("storage_heal_pending_entries"), since(7, 0, 5), []),
    single(own("storage_heal_pending_entries"), since(2, 0, 5), alerts("HealBacklog", GV0)),
    single(own("storage_mount_ok"), ZERO, alerts("MountUnresponsive", N1)),
    single(own("storage_thin_data_ratio"), f"0.79+0x{LENGTH}", []),
    single(own("storage_thin_data_ratio"), f"0.8+0x{LENGTH}", alerts("ThinDataHigh", N1)),
    single(
        own("storage_thin_data_ratio"), f"0.95+0x{LENGTH}", alerts("ThinDataHigh", N1), alerts("ThinDataCritical", N1)
    ),
    single(own("storage_thin_metadata_ratio"), f"0.69+0x{LENGTH}", []),
    single(own("storage_thin_metadata_ratio"), f"0.7+0x{LENGTH}", alerts("ThinMetadataHigh", N1)),
    single(
        'tang_reachable{instance="node1".*server="a"',
        ZERO,
        alerts("TangUnreachable", N1 | {"server": "a"}),
        alerts("UnlockAtRisk", N1),
    ),
    single(
        'tang_reachable{instance="node1"',
        ZERO,
        alerts("TangUnreachable", N1 | {"server": "a"}, N1 | {"server": "b"}),
        alerts("UnlockImpossible", N1),
    ),
    single(own("encryption_device_unlocked"), ZERO, alerts("DiskLocked", N1)),
    single(own("encryption_header_backup_present"), ZERO, alerts("HeaderBackupMissing", N1)),
    single(own("hypervisor_guest_running"), ZERO, alerts("GuestNotRunning", WEB)),
    single("hypervisor_guest_running.*node2", ONE, alerts("GuestRunningTwice", WEB)),
    single("hypervisor_guest_autostart.*node1", since(10, 1, 0), []),
    single(own("hypervisor_guest_paused_io_error"), ONE, alerts("GuestPausedByIoError", N1 | WEB)),
    single(own("network_interface_ok"), ZERO, alerts("OvsInterfaceError", N1)),
    single(own("network_uplink_up"), ZERO, alerts("UplinkDown", N1)),
    single(own("network_upcalls_lost_total"), f"7+3x{LENGTH}", alerts("OvsUpcallsLost", N1)),
    single("backup_last_good", f"0+0x{LENGTH}", [], at=20),
    single("backup_last_good", f"0+0x{LENGTH}", alerts("BackupTooOld", WEB), at=21),
    single(own("backup_last_run_success"), ZERO, alerts("BackupFailed", N1)),
    single('^node_systemd.*instance="node1".*activating', ONE, [], at=14),
    single('^node_systemd.*instance="node1".*activating', ONE, alerts("BackupStuck", N1), at=16),
    (
        "a guest that moved to another node",
        changed("guest_running.*node2", ONE, changed("guest_running.*node1", ZERO)),
        15,
        [],
    ),
]

# What fires when a metric exists nowhere: its own alert cannot, and these say so instead.
ABSENT = {
    "up": [],
    f"{OWN}telemetry_collect_timestamp_seconds": nodes("CollectorStale"),
    f"{OWN}backup_last_run_success": alerts("BackupNeverRan"),
    f"{OWN}hypervisor_guest_running": alerts("GuestNotRunning", WEB),
}
METRICS = sorted({name.partition("{")[0] for name in healthy()})
SCENARIOS += [
    (f"{metric} absent", changed(f"^{metric}{{", None), 22, list(ABSENT.get(metric, []))) for metric in METRICS
]

LABELS = ("alertname", "instance", "volume", "vm", "server")


def as_test(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario as promtool wants it."""
    name, series, minute, expected = scenario
    samples = [
        {"labels": "{" + ",".join(f'{key}="{text}"' for key, text in alert.items()) + "}", "value": 1}
        for alert in [*expected, {"alertname": "Watchdog"}]
    ]
    expression = f'group by ({", ".join(LABELS)}) (ALERTS{{alertstate="firing"}})'
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": text} for key, text in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}],
    }


def promtool_test(out: Path, scenarios: list[Scenario]) -> subprocess.CompletedProcess[str]:
    path = out / "rules_test.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(out / "rules.yml")],
                "evaluation_interval": "1m",
                "tests": [as_test(scenario) for scenario in scenarios],
            }
        )
    )
    return tool(["promtool", "test", "rules", str(path)])


def test_every_alert_fires_when_it_must_and_only_then(out: Path) -> None:
    done = promtool_test(out, SCENARIOS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_scenario_in_which_it_fires(out: Path) -> None:
    tested = {alert["alertname"] for _, _, _, expected in SCENARIOS for alert in expected} | {"Watchdog"}
    assert tested == {rule["alert"] for rule in rules_of(out)}


def test_a_rule_that_never_fires_is_noticed(out: Path, tmp_path: Path) -> None:
    text = (out / "rules.yml").read_text().replace("personal_cluster_storage_mount_ok == 0", "vector(1) == 0")
    (tmp_path / "rules.yml").write_text(text)
    scenarios = [scenario for scenario in SCENARIOS if "mount_ok" in scenario[0]]
    assert promtool_test(out, scenarios).returncode == 0
    assert promtool_test(tmp_path, scenarios).returncode != 0


# The whole chain, running: exporter, Prometheus, Alertmanager and a receiver, with the role's own command lines.

PORTS = ("9090", "9093", "9094", "9100")


def free_ports() -> dict[str, str]:
    """Return a free port for each of the fixed ones, all reserved at the same moment."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    found = {port: str(listener.getsockname()[1]) for port, listener in zip(PORTS, listeners, strict=True)}
    for listener in listeners:
        listener.close()
    return found


def command(unit: Path, replacements: dict[str, str]) -> list[str]:
    """Return the command line of a unit's drop-in, as systemd would split it."""
    line = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart=/"))
    for old, new in replacements.items():
        line = line.replace(old, new)
    return shlex.split(line.removeprefix("ExecStart=").replace("$$", "$"))


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def eventually(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Return the first true answer; fail after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes what Alertmanager sends."""

    received: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.extend({"path": self.path, **alert["labels"]} for alert in body["alerts"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


class Chain(NamedTuple):
    """Where the running programs answer."""

    prometheus: str
    alertmanager: str


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Run one node of two with everything on it; the other one is down."""
    work = tmp_path_factory.mktemp("chain")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_port}"
    out = render(
        work,
        telemetry_address="127.0.0.1",
        telemetry_nodes={"node1": "127.0.0.1", "node2": "127.0.0.2"},
        telemetry_prometheus_hosts=["node1"],
        telemetry_extra_hosts={},
        telemetry_scrape_interval="1s",
        telemetry_scrape_timeout="1s",
        telemetry_alert_delay="1s",
        telemetry_alert_group_wait="1s",
        telemetry_receiver={"webhook_configs": [{"url": f"{hook}/operator"}]},
        telemetry_watchdog_receiver={"webhook_configs": [{"url": f"{hook}/watchdog"}]},
        __telemetry_textfiles=str(work),
    )
    shutil.copy(RECORDED / "collect-trixie.prom", work)
    (work / "personal_cluster_backup.prom").write_text(BACKUP_METRICS)
    ports = free_ports()
    moved = {f":{old}": f":{new}" for old, new in ports.items()} | {"/var/lib/prometheus": str(work / "data")}
    text = re.sub(r":(9\d{3})\b", lambda match: f":{ports[match[1]]}", (out / "prometheus.yml").read_text())
    (out / "prometheus.yml").write_text(text.replace("scrape_interval: 1m", "scrape_interval: 1s"))
    (work / "data").mkdir()
    running = []
    found = Chain(f"http://127.0.0.1:{ports['9090']}", f"http://127.0.0.1:{ports['9093']}")
    try:
        for name in ("prometheus-node-exporter", "prometheus-alertmanager", "prometheus"):
            # Here both addresses are the same one; it may be given only once.
            argv = list(dict.fromkeys(command(out / f"units/{name}.service.d/personal-cluster.conf", moved)))
            if name == "prometheus":
                # Alerts fire before it knows its Alertmanagers; it would send them again after a minute only.
                argv.append("--rules.alert.resend-delay=1s")
            with open(work / f"{name}.log", "wb") as log:
                running.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        yield found
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=20)
        server.shutdown()


# As the backup layer writes it.
BACKUP_METRICS = """personal_cluster_backup_last_good_timestamp_seconds{vm="web"} 1
personal_cluster_backup_last_run_success 1
"""


def query(chain: Chain, expression: str) -> list[dict[str, Any]]:
    answer = get(f"{chain.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def test_targets(chain: Chain) -> None:
    def up() -> dict[tuple[str, str], str]:
        return {(one["metric"]["job"], one["metric"]["instance"]): one["value"][1] for one in query(chain, "up")}

    expected = {(job, "node1"): "1" for job in ("node", "alertmanager", "prometheus")}
    expected |= {("node", "node2"): "0", ("alertmanager", "node2"): "0"}
    eventually(lambda: up() == expected, "all targets are scraped", 90)


def test_an_alert_reaches_its_receiver(chain: Chain) -> None:
    def fired(path: str, name: str) -> list[dict[str, str]]:
        return [one for one in Receiver.received if (one["path"], one["alertname"]) == (path, name)]

    down = eventually(lambda: fired("/operator", "NodeDown"), "NodeDown is delivered")
    assert (down[0]["instance"], down[0]["cluster"]) == ("node2", "lab")
    assert "replica" not in down[0]
    assert eventually(lambda: fired("/watchdog", "Watchdog"), "Watchdog is delivered")
    assert not fired("/operator", "Watchdog")


def test_every_query_of_the_dashboard_returns_data(chain: Chain, out: Path) -> None:
    dashboard = json.loads((out / "grafana/personal-cluster/overview.json").read_text())
    datasource = yaml.safe_load((out / "grafana/provisioning/datasources/personal-cluster.yml").read_text())
    uid = datasource["datasources"][0]["uid"]
    targets = [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(targets) >= 10
    for title, target in targets:
        assert target["datasource"] == {"type": "prometheus", "uid": uid}
        eventually(partial(query, chain, target["expr"]), f"panel {title} has data", 30)


def test_alerts_say_what_they_are_about(chain: Chain) -> None:
    alerts_of = eventually(lambda: get(f"{chain.prometheus}/api/v1/alerts")["data"]["alerts"], "alerts fire")
    for alert in alerts_of:
        for text in alert["annotations"].values():
            assert "no value" not in text and "error" not in text.casefold().replace("clock", ""), alert
