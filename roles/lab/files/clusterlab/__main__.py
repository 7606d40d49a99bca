# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import image, machines
from .settings import ALL, MACHINES, RELEASES, LabError, Machine, Paths, check_node_count, machine, paths

FREE_MIB = 14 * 1024
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "vde_switch": "vde2",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


def _check_tools() -> None:
    needed = dict(TOOLS)
    if os.geteuid() != 0:
        needed["fakeroot"] = "fakeroot"
    missing = sorted({package for tool, package in needed.items() if shutil.which(tool) is None})
    if missing:
        raise LabError(f"missing tools; install them: apt-get install {' '.join(missing)}")


def _check_space(where: Paths) -> None:
    free = shutil.disk_usage(where.top).free // (1024 * 1024)
    if not where.disks.exists() and free < FREE_MIB:
        raise LabError(f"{where.top} has {free} MiB free, the lab needs {FREE_MIB}; make room or set LAB_DIR elsewhere")


def _make_keys(where: Paths) -> None:
    where.ssh.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("id_ed25519", "host_ed25519"):
        if not (where.ssh / name).exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(where.ssh / name)]
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=60)
    host_key = (where.ssh / "host_ed25519.pub").read_text()
    known = "".join(f"[127.0.0.1]:{item.ssh_port} {host_key}" for item in MACHINES)
    (where.ssh / "known_hosts").write_text(known)


def _write_ssh_config(where: Paths) -> None:
    common = (
        f"  HostName 127.0.0.1\n  User root\n  IdentitiesOnly yes\n  IdentityFile {where.ssh}/id_ed25519\n"
        f"  UserKnownHostsFile {where.ssh}/known_hosts\n  ConnectTimeout 20\n  ServerAliveInterval 15\n"
        "  LogLevel ERROR\n"
    )
    blocks = (f"Host {item.name}\n  Port {item.ssh_port}\n{common}" for item in MACHINES)
    where.ssh_config.write_text("\n".join(blocks))


def _make_secrets(where: Paths) -> None:
    where.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("recovery_passphrase", "backup_passphrase", "escrow_passphrase"):
        file = where.secrets / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(24))


def _chosen(where: Paths, wanted: str | None, plain: bool) -> str:
    """Return the image that this lab's disks stand on."""
    if plain:
        wanted = (wanted or "trixie") + "-plain"
    if not where.release_file.exists():
        return wanted or "trixie"
    present = where.release_file.read_text()
    if wanted and wanted != present:
        raise LabError(
            f"this lab runs {present}, not {wanted}; 'make lab-destroy' first, or set LAB_DIR for a second lab"
        )
    return present


def _build(where: Paths, chosen: str) -> Path:
    release, _, plain = chosen.partition("-")
    if where.release_file.exists():
        # Overlays stand on the image: with disks present it must stay as it is.
        return where.image(chosen)
    return image.build(where, release, plain=bool(plain))


def up(arguments: argparse.Namespace, where: Paths) -> None:
    """Build what is missing and switch everything on."""
    _check_tools()
    where.top.mkdir(parents=True, exist_ok=True)
    _check_space(where)
    _make_keys(where)
    _write_ssh_config(where)
    _make_secrets(where)
    chosen = _chosen(where, arguments.release, arguments.plain)
    _build(where, chosen)
    if arguments.image_only:
        return
    where.disks.mkdir(parents=True, exist_ok=True)
    where.release_file.write_text(chosen)
    _switch_on(where, list(MACHINES))


def _switch_on(where: Paths, items: list[Machine]) -> None:
    if not where.release_file.exists():
        raise LabError("there is no lab yet; 'make lab' builds one")
    directory = where.image(where.release_file.read_text())
    accel = machines.accelerator(where, directory)
    how = "with KVM" if accel == "kvm" else "emulated: KVM does not boot a kernel on this computer, expect minutes"
    cold = [item for item in items if not machines.running(where, item)]
    if cold:
        print(f"Booting {', '.join(item.name for item in cold)} ({how}) …", flush=True)
    machines.start_switches(where)
    for item in items:
        machines.start(where, item, directory, accel)
    machines.wait_for_ssh(where, items)


def _named(names: list[str], default: tuple[Machine, ...]) -> list[Machine]:
    return [machine(name) for name in names] if names else list(default)


def start(arguments: argparse.Namespace, where: Paths) -> None:
    """Switch machines on and wait for ssh."""
    _check_tools()
    _switch_on(where, _named(arguments.machines, MACHINES))


def stop(arguments: argparse.Namespace, where: Paths) -> None:
    """Shut machines down cleanly."""
    machines.stop(where, _named(arguments.machines, ALL))
    if machines.everything_off(where):
        machines.stop_switches(where)


def kill(arguments: argparse.Namespace, where: Paths) -> None:
    """Pull the plug of machines."""
    for item in _named(arguments.machines, ALL):
        machines.kill(where, item)


def link(arguments: argparse.Namespace, where: Paths) -> None:
    """Cut or mend a cable."""
    machines.set_link(where, machine(arguments.machine), arguments.switch, arguments.to == "up")


def status(_arguments: argparse.Namespace, where: Paths) -> None:
    """Say what runs."""
    if not where.release_file.exists():
        print("There is no lab yet; 'make lab' builds one.")
        return
    print(f"Release {where.release_file.read_text()}, in {where.top}")
    for item in MACHINES:
        if not machines.running(where, item):
            state = "off"
        else:
            state = "on, answers" if machines.answers(where, item.name) else "on, does not answer on ssh"
        print(f"  {item.name}  {item.address}  ssh 127.0.0.1:{item.ssh_port}  {state}")


def destroy(arguments: argparse.Namespace, where: Paths) -> None:
    """Remove the machines and their disks; the image stays unless asked."""
    kill(argparse.Namespace(machines=[]), where)
    machines.stop_switches(where)
    gone = [where.disks, where.run, where.saved, where.state]
    if arguments.everything:
        gone += [where.images, where.ssh, where.secrets]
        where.ssh_config.unlink(missing_ok=True)
    for directory in gone:
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.everything:
        # LAB_DIR may be a directory that holds more than the lab.
        with contextlib.suppress(OSError):
            where.top.rmdir()


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    argv = ["cp", "-a", "--sparse=always", "--reflink=auto", str(source), str(target)]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=900)


def save(arguments: argparse.Namespace, where: Paths) -> None:
    """Keep a copy of all disks under a name."""
    if not machines.everything_off(where):
        raise LabError("stop the lab first: a copy of running disks is no copy")
    where.saved.mkdir(parents=True, exist_ok=True)
    _copy(where.disks, where.saved / arguments.name)


def load(arguments: argparse.Namespace, where: Paths) -> None:
    """Put a kept copy of all disks back."""
    if not machines.everything_off(where):
        raise LabError("stop the lab first")
    if not (where.saved / arguments.name).is_dir():
        raise LabError(f"nothing is saved under {arguments.name!r}")
    _copy(where.saved / arguments.name, where.disks)


def ssh(arguments: argparse.Namespace, where: Paths) -> None:
    """Log in, or run one command."""
    machine(arguments.machine)
    argv = machines.ssh_argv(where, arguments.machine, *arguments.command)
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clusterlab", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser("up", help="build what is missing and switch everything on")
    one.add_argument("--release", choices=RELEASES, help="Debian release of a new lab (default: trixie)")
    one.add_argument("--plain", action="store_true", help="nodes without the cluster's packages, as freshly installed")
    one.add_argument("--image-only", action="store_true", help="build the image and stop")
    one.set_defaults(verb=up)
    for name, verb in (("start", start), ("stop", stop), ("kill", kill)):
        one = verbs.add_parser(name, help=verb.__doc__)
        one.add_argument("machines", nargs="*", metavar="MACHINE", help="default: all")
        one.set_defaults(verb=verb)
    one = verbs.add_parser("link", help=link.__doc__)
    one.add_argument("machine")
    one.add_argument("switch", choices=("mgmt", "br0", "wan0", "vlans"))
    one.add_argument("to", choices=("up", "down"))
    one.set_defaults(verb=link)
    for name, verb in (("save", save), ("load", load)):
        one = verbs.add_parser(name, help=verb.__doc__)
        one.add_argument("name")
        one.set_defaults(verb=verb)
    verbs.add_parser("status", help=status.__doc__).set_defaults(verb=status)
    one = verbs.add_parser("destroy", help=destroy.__doc__)
    one.add_argument("--everything", action="store_true", help="the images, keys and secrets too")
    one.set_defaults(verb=destroy)
    one = verbs.add_parser("ssh", help=ssh.__doc__)
    one.add_argument("machine")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(verb=ssh)
    return parser


def main() -> int:
    """Run one verb; errors are one sentence on standard error."""
    arguments = _parser().parse_args()
    began = time.monotonic()
    # Debian gives its users a PATH without sbin, and mke2fs lives there.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    try:
        check_node_count()
        arguments.verb(arguments, paths())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    if arguments.verb is start or (arguments.verb is up and not arguments.image_only):
        print(f"The lab is up ({time.monotonic() - began:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
