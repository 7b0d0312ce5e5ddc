# SPDX-License-Identifier: Apache-2.0
"""Loads and placements of a served model on disk, to be planned from again."""
