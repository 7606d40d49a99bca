# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line.

What needs libvirt or libnbd is imported by the command that needs it: the others start seconds sooner on a busy node.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict

from . import config as settings
from .errors import BackupError

Command = Callable[[settings.Config, argparse.Namespace], int]


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def _say_aside(text: str) -> None:
    """Show progress where standard output is the result."""
    print(text, file=sys.stderr, flush=True)


def _run(config: settings.Config, args: argparse.Namespace) -> int:
    from . import run

    return 0 if run.run(config, args.vm, say) else 1


def _list(config: settings.Config, args: argparse.Namespace) -> int:
    from . import run, sets

    with run.repository(config, _say_aside) as repository:
        found = [item for item in sets.group(repository.names()) if item.complete and args.vm in ("", item.guest)]
    if args.json:
        say(json.dumps([{"vm": item.guest, "set": item.stamp} for item in found]))
    else:
        for item in found:
            say(f"{item.stamp}  {item.guest}")
    return 0


def _show(config: settings.Config, args: argparse.Namespace) -> int:
    from . import restore, run

    with run.repository(config, _say_aside) as repository, tempfile.TemporaryDirectory() as folder:
        about, _xml = restore.fetch(repository, args.vm, args.set, folder)
    say(json.dumps(asdict(about)))
    return 0


def _state(config: settings.Config, args: argparse.Namespace) -> int:
    from . import run

    guest = run.connect(config).find(args.vm)
    say(json.dumps({"defined": bool(guest and guest.persistent), "active": bool(guest and guest.active)}))
    return 0


def _restore(config: settings.Config, args: argparse.Namespace) -> int:
    from . import restore

    restore.restore(config, args.vm, args.set, not args.no_start, say)
    return 0


def _cleanup(config: settings.Config, _args: argparse.Namespace) -> int:
    from . import run

    with run.node_lock(config, say):
        run.clear_up(config, run.connect(config), say)
    return 0


def _borg(config: settings.Config, args: argparse.Namespace) -> int:
    from . import run

    with run.repository(config, _say_aside) as repository:
        return repository.interactive(args.arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="personal-cluster-backup", description="Back up and restore the virtual machines of this node."
    )
    top.add_argument("--config", default=settings.DEFAULT_PATH, help="settings of this node (default: %(default)s)")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Command | None, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(call=call)
        return added

    run = command("run", _run, "back up the guests of this node, then delete what expired")
    run.add_argument("--vm", action="append", default=[], help="only this guest; may be given several times")
    listing = command("list", _list, "list the complete sets in the repository")
    listing.add_argument("--vm", default="", help="only this guest")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = command("show", _show, "print the manifest of a set as JSON")
    state = command("state", _state, "say as JSON whether a guest is defined and runs on this node")
    restore = command("restore", _restore, "restore a guest that runs on no node")
    for each in (show, state, restore):
        each.add_argument("--vm", required=True, help="the guest")
    for each in (show, restore):
        each.add_argument("--set", default="", help="the set (default: the newest)")
    restore.add_argument("--no-start", action="store_true", help="define the guest and leave it shut off")
    command("cleanup", _cleanup, "clear up after a run that was killed: backup jobs, frozen guests, scratch files")
    borg = command("borg", _borg, "run borg on the repository, with its passphrase and as its only user")
    borg.add_argument("arguments", nargs=argparse.REMAINDER, help="borg's arguments; ::NAME stands for an archive")
    read = command("read", None, "print a disk that is exported over NBD (used by run)")
    read.add_argument("--uri", required=True, help="NBD address")
    read.add_argument("--report", required=True, help="file that receives size and hash")
    read.add_argument("--label", default="disk", help="name of the disk in progress lines")
    return top


def _dispatch(args: argparse.Namespace) -> int:
    if args.call:
        call: Command = args.call
        return call(settings.load(args.config), args)
    from . import reader

    reader.read(args.uri, args.report, args.label)
    return 0


def main() -> int:
    """Run the command; return the exit code."""
    os.umask(0o077)
    args = parser().parse_args()
    # A request to stop must run what clears up.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        return _dispatch(args)
    except BackupError as error:
        print(f"personal-cluster-backup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
