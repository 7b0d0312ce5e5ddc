# SPDX-License-Identifier: Apache-2.0
"""What hangs on vLLM's `EplbState`: the only room that touches it."""
