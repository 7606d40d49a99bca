# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: three cluster nodes and a tang host as QEMU machines on one computer."""
