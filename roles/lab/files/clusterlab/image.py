# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the node image: a plain Debian with the cluster's packages on disk and their services switched off."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .settings import LabError, Paths

SIZE = "8G"
MIRROR = os.environ.get("LAB_MIRROR", "http://deb.debian.org/debian")

GUEST = Path(__file__).resolve().parents[1] / "guest" / "build_guest.py"
ZIP_BYTECODE = Path(__file__).resolve().parents[1] / "node" / "zip_bytecode.py"

# What a Debian installation with an ssh server has.
PLAIN = """
linux-image-cloud-amd64 systemd-sysv dbus udev kmod ifupdown isc-dhcp-client iproute2 iputils-ping
openssh-server python3 python3-apt sudo ca-certificates procps less nano cron logrotate
""".split()
# What the roles install: baked in, so that an emulated node need not unpack it.
BAKED = """
chrony curl cryptsetup clevis clevis-luks clevis-systemd tang jose lvm2 thin-provisioning-tools xfsprogs
glusterfs-server glusterfs-client openvswitch-switch qemu-system-x86 qemu-utils libvirt-daemon-system
libvirt-daemon-driver-qemu libvirt-clients python3-libvirt apparmor borgbackup libnbd-bin python3-libnbd
prometheus prometheus-alertmanager prometheus-node-exporter python3-prometheus-client tcpdump socat
busybox-static qemu-guest-agent
""".split()
ONLY_IN = {"trixie": ["systemd-cryptsetup", "libvirt-daemon-lock"], "bookworm": []}
# Roles enable these; idle daemons cost minutes when three machines boot under emulation.
DISABLED = """
chrony.service libvirt-guests.service libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
virtlogd.service virtlogd.socket virtlogd-admin.socket virtlockd.socket virtlockd-admin.socket
openvswitch-switch.service prometheus.service prometheus-alertmanager.service prometheus-node-exporter.service
glusterd.service tangd.socket clevis-luks-askpass.path apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
e2scrub_reap.service fstrim.timer xfs_scrub_all.timer man-db.timer dpkg-db-backup.timer lvm2-monitor.service
""".split()

IDENTITY = """#!/bin/sh
# Give this copy of the image its name and addresses, as an installer would have: once, from the kernel command line.
set -eu
for word in $(cat /proc/cmdline); do
    case "$word" in
        lab.name=*) name=${word#*=} ;;
        lab.mgmt=*) mgmt=${word#*=} ;;
        lab.lan=*) lan=${word#*=} ;;
        lab.address=*) address=${word#*=} ;;
    esac
done
echo "$name" > /etc/hostname
hostname "$name"
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$name" > /etc/hosts
cat > /etc/network/interfaces <<END
# The loopback network interface
auto lo
iface lo inet loopback

auto $mgmt
iface $mgmt inet dhcp

# The primary network interface
auto $lan
iface $lan inet static
    address $address
END
touch /etc/lab-identity
"""
IDENTITY_UNIT = """[Unit]
Description=Name and addresses of this lab machine
DefaultDependencies=no
ConditionPathExists=!/etc/lab-identity
After=systemd-remount-fs.service
Before=sysinit.target networking.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/lab-identity
[Install]
WantedBy=sysinit.target
"""


def recipe(release: str, authorized_key: str, host_key: str, plain: bool) -> str:
    """Return the mmdebstrap hook that finishes the image; its text also tells whether an image is up to date."""
    disable = "" if plain else f'chroot "$1" systemctl disable {" ".join(DISABLED)} 2>&1 | grep -v ^Removed || true'
    return f"""set -eu
mkdir -p "$1/root/.ssh" "$1/etc/ssh"
cat > "$1/root/.ssh/authorized_keys" <<'END'
{authorized_key}END
rm -f "$1"/etc/ssh/ssh_host_*
cat > "$1/etc/ssh/ssh_host_ed25519_key" <<'END'
{host_key}END
chmod 0600 "$1/etc/ssh/ssh_host_ed25519_key" "$1/root/.ssh/authorized_keys"
cat > "$1/usr/local/sbin/lab-identity" <<'OUTER'
{IDENTITY}OUTER
chmod 0755 "$1/usr/local/sbin/lab-identity"
cat > "$1/etc/systemd/system/lab-identity.service" <<'END'
{IDENTITY_UNIT}END
for version in "$1"/usr/lib/python3.*; do
    packages="$1/usr/local/lib/${{version##*/}}/dist-packages"
    mkdir -p "$packages"
    cat > "$packages/zip_bytecode.py" <<'END'
{ZIP_BYTECODE.read_text()}END
    echo 'import zip_bytecode; zip_bytecode.install()' > "$packages/zip_bytecode.pth"
done
# The other profiles name programs that no node has; compiling them is most of AppArmor's minute at the first boot.
find "$1/etc/apparmor.d" -maxdepth 1 -type f ! -name 'usr.lib.libvirt.*' ! -name 'usr.sbin.*' -delete
printf 'LABEL=root / ext4 errors=remount-ro 0 1\\n' > "$1/etc/fstab"
: > "$1/etc/machine-id"
chroot "$1" systemctl enable lab-identity.service
{disable}
chroot "$1" apt-get clean
chroot "$1" apt-cache gencaches >/dev/null
# What packages do at their installation is done: no machine does it again at its first boot.
touch "$1/etc/.updated" "$1/var/.updated"
"""


def _packages(release: str, plain: bool) -> list[str]:
    return PLAIN if plain else PLAIN + BAKED + ONLY_IN[release]


def build(where: Paths, release: str, plain: bool = False) -> Path:
    """Build the image of ``release`` unless an up-to-date one exists.

    :param plain: leave the cluster's packages out, as on a new installation.
    :returns: the directory with root.img, vmlinuz and initrd.img.
    :raises LabError: a tool failed.
    """
    target = where.image(release + ("-plain" if plain else ""))
    key = (where.ssh / "id_ed25519.pub").read_text()
    hook = recipe(release, key, (where.ssh / "host_ed25519").read_text(), plain)
    guest = "".join(file.read_text() for file in sorted(GUEST.parent.iterdir()) if file.is_file())
    digest = hashlib.sha256((hook + " ".join(_packages(release, plain)) + SIZE + guest).encode()).hexdigest()
    stamp = target / "recipe"
    if stamp.exists() and stamp.read_text() == digest:
        return target
    print(f"Building the {release} node image from Debian packages (a few minutes, once) …", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=where.top) as work:
        _bootstrap(Path(work), release, hook, plain, target / "build.log")
        _make_filesystem(Path(work), target, plain)
    stamp.write_text(digest)
    return target


def _bootstrap(work: Path, release: str, hook: str, plain: bool, log: Path) -> None:
    hook_file = work / "hook"
    hook_file.write_text(hook)
    argv = [
        "mmdebstrap",
        "--variant=minbase",
        "--components=main",
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--include={','.join(_packages(release, plain))}",
        # A user's mmdebstrap works in a namespace of its own, to which the files of a home are closed.
        f"--customize-hook=upload {hook_file} /root/hook",
        '--customize-hook=sh "$1/root/hook" "$1" && rm "$1/root/hook"',
        # Package lists and their cache stay: parsing them takes a minute on an emulated node.
        "--skip=cleanup/apt",
        release,
        str(work / "root.tar"),
        MIRROR,
    ]
    with log.open("w") as output:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=1800, check=False)
    if done.returncode:
        tail = log.read_text()[-1500:]
        raise LabError(f"mmdebstrap failed; the whole log is {log}. Its end:\n{tail}")


def _make_filesystem(work: Path, target: Path, plain: bool) -> None:
    # Debian 12's mke2fs does not read tar files; unpacking keeps owners only as root or under fakeroot.
    # The tiny guest is made of the node's own kernel and packages, and lies at the same place on every node.
    guest = (
        "" if plain else f"python3 {GUEST} --tree {work}/tree --out {work}/tree/usr/local/share/personal-cluster-lab; "
    )
    script = (
        f"set -eu; mkdir {work}/tree; tar -xf {work}/root.tar -C {work}/tree; rm {work}/root.tar; "
        f"{guest}rm -f {target}/root.img; mke2fs -q -t ext4 -L root -d {work}/tree {target}/root.img {SIZE}; "
        f"chmod -R u+rwX {work}/tree/boot; cp {work}/tree/boot/vmlinuz-* {target}/vmlinuz; "
        f"cp {work}/tree/boot/initrd.img-* {target}/initrd.img"
    )
    argv = ["sh", "-c", script]
    if os.geteuid() != 0:
        argv = ["fakeroot", *argv]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    shutil.rmtree(work / "tree", ignore_errors=True)
    if done.returncode:
        raise LabError(f"the root filesystem could not be made in {target}: {done.stderr.strip()[-800:]}")
