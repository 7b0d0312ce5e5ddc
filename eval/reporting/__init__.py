# SPDX-License-Identifier: Apache-2.0
"""Finished runs as people read and share them: Markdown and one HTML page."""
