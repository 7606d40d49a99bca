# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock between the runs of one computer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._lock import lock_file, wait_alone


def test_a_run_waits_for_the_one_before_and_says_when_that_does_not_end(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hold = f"import fcntl, time; it = open({str(lock)!r}, 'w'); fcntl.flock(it, fcntl.LOCK_EX); "
    hold += "it.write('4711'); it.flush(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ClusterError, match=f"holds {lock}.*process 4711"):
            wait_alone(str(lock), 0.1)
        other.kill()
    wait_alone(str(lock), 5)
    assert lock.read_text() == str(os.getpid())


def test_only_root_writes_where_the_lock_of_root_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Path(lock_file("virt_domain")).parent == Path("/run")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lock_file("borg_repo") == "/run/lock/personal-cluster-borg_repo.1000.lock"
