# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches and machines as processes: start, stop, pull the plug, cut a cable."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .settings import ALL, SWITCHES, LabError, Machine, Paths

BOOT_LIMIT = 900.0


def _pid(file: Path) -> int | None:
    """Return the process id in ``file`` if that process is alive and is ours."""
    try:
        pid = int(file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(file.parent).encode() in command else None


def _spawn(argv: list[str], pid_file: Path, log: Path) -> None:
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    pid_file.write_text(str(process.pid))


def _gone(pid: int) -> bool:
    """Tell whether a process has closed all its files: its command line vanishes earlier, its ports still taken."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX" and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def _end(pid_file: Path, sign: signal.Signals, limit: float = 20.0) -> None:
    pid = _pid(pid_file)
    if pid is not None:
        os.kill(pid, sign)
        deadline = time.monotonic() + limit
        while not _gone(pid):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.1)
    pid_file.unlink(missing_ok=True)


def pid_file(where: Paths, name: str) -> Path:
    """Return the file that holds the process id of a machine or switch."""
    return where.run / f"{name}.pid"


def running(where: Paths, item: Machine) -> bool:
    """Tell whether the machine's process is alive."""
    return _pid(pid_file(where, item.name)) is not None


def start_switches(where: Paths) -> None:
    """Start the three physical switches that are missing."""
    where.run.mkdir(parents=True, exist_ok=True)
    for name in SWITCHES:
        file = pid_file(where, name)
        if _pid(file) is None:
            shutil.rmtree(where.run / f"{name}.vde", ignore_errors=True)
            file.unlink(missing_ok=True)
            # A vde_switch drops tagged frames. As a hub (-x) it passes them, but to everybody, which costs them time.
            hub = ["-x"] if name == "vlans" else []
            argv = ["vde_switch", *hub, "-s", str(where.run / f"{name}.vde"), "-d", "-p", str(file)]
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=30)
    deadline = time.monotonic() + 10
    while not all((where.run / f"{name}.vde" / "ctl").exists() for name in SWITCHES):
        if time.monotonic() > deadline:
            raise LabError(
                "a vde_switch did not start: its socket is missing after 10 s; run 'vde_switch' by hand to see why"
            )
        time.sleep(0.1)


def accelerator(where: Paths, image: Path) -> str:
    """Return ``kvm`` when a kernel really boots with it, else ``tcg``; asked once per image.

    /dev/kvm alone proves nothing: it can exist, accept a machine, and never run the kernel.
    """
    answer = image / "accelerator"
    if not answer.exists():
        answer.write_text("kvm" if _kvm_boots(image) else "tcg")
    return answer.read_text()


def _kvm_boots(image: Path) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-serial", "stdio", "-kernel", str(image / "vmlinuz")]
    argv += ["-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired as late:
        return b"VFS: " in (late.stdout or b"")
    return b"VFS: " in done.stdout


def _argv(where: Paths, item: Machine, image: Path, accel: str) -> list[str]:
    home = where.disks / item.name
    kernel = f"root=LABEL=root rw console=ttyS0 lab.name={item.name} lab.address={item.address}/24"
    names = {nic.switch: nic.name for nic in item.nics}
    kernel += f" lab.mgmt={names['mgmt']} lab.lan={names['br0']}"
    argv = ["qemu-system-x86_64", "-name", item.name, "-machine", "q35", "-nodefaults", "-display", "none"]
    # Emulating AVX costs more than it saves, and one emulated processor a quarter less than two: no locks to keep.
    emulated = ["-accel", "tcg,thread=multi", "-cpu", "max,-avx,-avx2"]
    argv += ["-accel", "kvm", "-cpu", "host"] if accel == "kvm" else emulated
    argv += ["-smp", str(item.cpus), "-m", str(item.memory_mib), "-device", "virtio-rng-pci,addr=0x10"]
    argv += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", kernel]
    argv += ["-serial", f"file:{where.run / item.name}.console"]
    argv += ["-qmp", f"unix:{where.run / item.name}.qmp,server=on,wait=off"]
    # What a machine wrote survives its process in the host's page cache: flushing it to the host's disk proves nothing.
    argv += _drive("root", home / "root.qcow2", "qcow2", 0x11)
    for place, disk in enumerate(item.disks):
        argv += _drive(disk.serial, home / f"{disk.serial}.raw", "raw", 0x12 + place)
    for nic in item.nics:
        argv += ["-netdev", _netdev(where, item, nic.switch)]
        argv += [
            "-device",
            f"virtio-net-pci,netdev={nic.switch},mac={nic.mac},addr={nic.slot:#x},id=nic-{nic.switch},romfile=",
        ]
    return argv


def _drive(serial: str, file: Path, kind: str, slot: int) -> list[str]:
    drive = f"if=none,id={serial},file={file},format={kind},cache=unsafe,discard=unmap"
    return [
        "-drive",
        drive,
        "-device",
        f"virtio-blk-pci,drive={serial},serial={serial},addr={slot:#x},id=disk-{serial}",
    ]


def _netdev(where: Paths, item: Machine, switch: str) -> str:
    if switch == "mgmt":
        return f"user,id=mgmt,hostfwd=tcp:127.0.0.1:{item.ssh_port}-:22"
    return f"vde,id={switch},sock={where.run / switch}.vde"


def make_disks(where: Paths, item: Machine, image: Path) -> None:
    """Create the disks of a machine that do not exist yet."""
    home = where.disks / item.name
    home.mkdir(parents=True, exist_ok=True)
    # Each gets its name when it is whole: an interrupted run leaves no half disk.
    fresh = home / "new"
    root = home / "root.qcow2"
    if not root.exists():
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image / "root.img"), str(fresh)]
        subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=60)
        fresh.rename(root)
    for disk in item.disks:
        file = home / f"{disk.serial}.raw"
        if not file.exists():
            with fresh.open("wb") as blank:
                blank.truncate(disk.size_mib * 1024 * 1024)
            fresh.rename(file)


def start(where: Paths, item: Machine, image: Path, accel: str) -> None:
    """Switch a machine on; nothing happens when it runs.

    :raises LabError: its ssh port is taken, or QEMU refuses.
    """
    if running(where, item):
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", item.ssh_port))
        except OSError as error:
            raise LabError(
                f"port {item.ssh_port} for {item.name} is in use; end what listens there or set LAB_PORT_BASE"
            ) from error
    make_disks(where, item, image)
    file, log = pid_file(where, item.name), where.run / f"{item.name}.log"
    log.write_text("")
    _spawn(_argv(where, item, image, accel), file, log)
    time.sleep(0.5)
    if not running(where, item):
        raise LabError(f"{item.name} did not start: {log.read_text().strip()[-800:]}")


def ssh_argv(where: Paths, name: str, *command: str) -> list[str]:
    """Return the argv that runs ``command`` on a machine."""
    return ["ssh", "-F", str(where.ssh_config), name, *command]


def answers(where: Paths, name: str) -> bool:
    """Tell whether a machine answers on ssh."""
    argv = ssh_argv(where, name, "true")
    try:
        return (
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def wait_for_ssh(where: Paths, items: list[Machine], limit: float = BOOT_LIMIT) -> None:
    """Wait until all machines answer on ssh.

    :param limit: seconds.
    :raises LabError: one did not answer in time, or its process ended.
    """
    began = time.monotonic()
    missing = list(items)
    while missing:
        for item in list(missing):
            if answers(where, item.name):
                missing.remove(item)
                print(f"  {item.name} answers after {time.monotonic() - began:.0f} s", flush=True)
            elif not running(where, item):
                raise LabError(f"{item.name} ended while it booted; see {where.run / item.name}.console")
        if missing and time.monotonic() - began > limit:
            names = ", ".join(item.name for item in missing)
            raise LabError(f"{names} did not answer on ssh within {limit:.0f} s; see {where.run}/*.console")
        if missing:
            time.sleep(2)


def qmp(where: Paths, item: Machine, command: str, **arguments: Any) -> Any:
    """Send one command to a machine's QEMU monitor and return its answer.

    :raises LabError: the machine is off, or the monitor refuses.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        try:
            connection.connect(str(where.run / f"{item.name}.qmp"))
        except OSError as error:
            raise LabError(f"{item.name} is off") from error
        stream = connection.makefile("rw")
        stream.readline()
        for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer = json.loads(stream.readline())
            while "event" in answer:
                answer = json.loads(stream.readline())
    if "error" in answer:
        raise LabError(f"{item.name}: {command}: {answer['error']['desc']}")
    return answer.get("return")


def kill(where: Paths, item: Machine) -> None:
    """Pull the plug: the machine stops at once, whatever it is doing."""
    _end(pid_file(where, item.name), signal.SIGKILL)


def stop(where: Paths, items: list[Machine], limit: float = 300.0) -> None:
    """Press the power buttons and wait; what has not stopped after ``limit`` seconds loses its power."""
    alive = [item for item in items if running(where, item)]
    for item in alive:
        qmp(where, item, "system_powerdown")
    deadline = time.monotonic() + limit
    while any(running(where, item) for item in alive) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(1)
    for item in alive:
        if running(where, item):
            print(f"  {item.name} did not stop within {limit:.0f} s: pulling its plug", flush=True)
        kill(where, item)


def stop_switches(where: Paths) -> None:
    """Switch the three switches off."""
    for name in SWITCHES:
        _end(pid_file(where, name), signal.SIGTERM)


def set_link(where: Paths, item: Machine, switch: str, up: bool) -> None:
    """Cut or mend the cable between a machine and a switch."""
    if switch not in {nic.switch for nic in item.nics}:
        raise LabError(f"{item.name} has no cable to {switch!r}")
    qmp(where, item, "set_link", name=f"nic-{switch}", up=up)


def everything_off(where: Paths) -> bool:
    """Tell whether no machine runs."""
    return not any(running(where, item) for item in ALL)
