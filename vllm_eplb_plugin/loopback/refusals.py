# SPDX-License-Identifier: Apache-2.0
"""What loopback cannot do."""


class LoopbackError(ValueError):
    """A configuration that loopback cannot serve; the message says what to change."""
