# SPDX-License-Identifier: Apache-2.0
"""What loopback cannot do."""


class LoopbackError(ValueError):
    """Loopback cannot serve a configuration; the message says what to change."""
