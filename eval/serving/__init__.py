# SPDX-License-Identifier: Apache-2.0
"""One served arm: its command, process, health and log."""
