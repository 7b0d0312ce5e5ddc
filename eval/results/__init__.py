# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run: its schema, its folder, its lock."""
