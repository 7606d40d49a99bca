# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup of virtual machines into a Borg repository, and their restore."""
