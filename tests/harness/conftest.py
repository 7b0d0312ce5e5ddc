# SPDX-License-Identifier: Apache-2.0
"""What starts processes of the harness."""

from tests.builders.harness import harness, tiny_llama

__all__ = ["harness", "tiny_llama"]
