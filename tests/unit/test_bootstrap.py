# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/bootstrap leaves on the computer on which it installs packages."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from plays import REPOSITORY

# Nothing is installed, and whoever runs the tests is root.
TOOLS = {
    "id": "echo 0",
    "dpkg-query": "exit 1",
    "apt-get": """
case " $* " in
    *" indextargets "*) exec /usr/bin/apt-get "$@" ;;
    *" install "*) echo "$*" >>"$0.asked"; touch "$0.installs"; sleep "${PATIENCE:-0}" ;;
esac""",
}
# Far more than it takes, on a computer that is busy with other tests.
LIMIT = 300
USERS = "#!/bin/sh\n# mine\nexit 0\n"


class Computer:
    """A root directory for the script, and programs in the place of those that change this computer."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for directory in ("usr/sbin", "etc/apt/sources.list.d", "bin", "tools", ".venv"):
            (top / directory).mkdir(parents=True)
        for name, script in TOOLS.items():
            (top / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (top / "bin" / name).chmod(0o755)
        (top / "etc/os-release").write_text("VERSION_CODENAME=bookworm\n")
        (top / "etc/debian_version").touch()
        # It knows its Python packages.
        for file in ("requirements.txt", ".venv/requirements"):
            (top / file).touch()
        (top / "apt.conf").write_text(f'Dir::Etc "{top}/etc/apt";\n')
        script = (REPOSITORY / "tools/bootstrap").read_text()
        for path in ("/usr/sbin/", "/etc/"):
            script = script.replace(path, f"{top}{path}")
        (top / "tools/bootstrap").write_text(script)
        self.policy = top / "usr/sbin/policy-rc.d"

    def begin(self, patience: int = 0) -> subprocess.Popen[bytes]:
        environment = {"PATH": f"{self.top}/bin:/usr/bin:/bin", "APT_CONFIG": f"{self.top}/apt.conf"}
        argv = ["sh", str(self.top / "tools/bootstrap"), "lab"]
        return subprocess.Popen(
            argv, env={**environment, "PATIENCE": str(patience)}, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def run(self) -> None:
        assert self.begin().wait(timeout=LIMIT) == 0

    def killed(self, number: int) -> None:
        """Kill a run, and all that it began, while it installs."""
        run, installs = self.begin(LIMIT), self.top / "bin/apt-get.installs"
        deadline = time.monotonic() + LIMIT
        while not installs.exists():
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.02)
        assert self.policy.stat().st_mode & 0o111 and "exit 101" in self.policy.read_text()
        os.killpg(run.pid, number)
        assert run.wait(timeout=LIMIT) != 0


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_services_start_again_after_a_run_that_was_stopped(computer: Computer, number: int) -> None:
    computer.killed(number)
    assert not computer.policy.exists()


@pytest.mark.parametrize("installed", [False, True])
def test_what_a_killed_run_left_goes_with_the_next_one(computer: Computer, installed: bool) -> None:
    computer.killed(signal.SIGKILL)
    assert computer.policy.exists()
    if installed:
        (computer.top / "bin/dpkg-query").write_text("#!/bin/sh\necho ii\n")
        (computer.top / "etc/os-release").write_text("VERSION_CODENAME=trixie\n")
    computer.run()
    assert not computer.policy.exists()


def test_the_policy_of_the_user_stays(computer: Computer) -> None:
    computer.policy.write_text(USERS)
    computer.run()
    assert computer.policy.read_text() == USERS


@pytest.mark.parametrize(
    ("file", "text", "there"),
    [
        ("sources.list", "# deb http://deb.debian.org/debian bookworm-backports main", False),
        ("sources.list", "deb http://deb.debian.org/debian bookworm-backports main", True),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n bookworm-backports\nComponents: main",
            True,
        ),
        (
            "sources.list.d/debian.sources",
            "Enabled: no\nTypes: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm-backports\nComponents: main",
            False,
        ),
    ],
)
def test_backports_are_named_once(computer: Computer, file: str, text: str, there: bool) -> None:
    (computer.top / "etc/apt" / file).write_text(f"{text}\n")
    computer.run()
    assert (computer.top / "etc/apt/sources.list.d/bookworm-backports.list").exists() is not there
    assert "-t bookworm-backports qemu-system-x86" in (computer.top / "bin/apt-get.asked").read_text()
