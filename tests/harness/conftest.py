# SPDX-License-Identifier: Apache-2.0
"""What starts processes of the harness."""

from tests.builders.harness import forked_harness, harness, imported, tiny_llama

__all__ = ["forked_harness", "harness", "imported", "tiny_llama"]
