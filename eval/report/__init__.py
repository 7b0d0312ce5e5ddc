# SPDX-License-Identifier: Apache-2.0
"""Results as people read them: terminal, Markdown, HTML, JUnit."""
