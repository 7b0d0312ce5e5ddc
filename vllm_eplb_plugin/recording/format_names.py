# SPDX-License-Identifier: Apache-2.0
"""What can be converted into what, by name; docs/recording.md says what each holds."""

OWN = "recording"
"""Ours, a folder."""

FOREIGN = ("vllm", "sglang", "hygon", "expert-map", "tensorrt-llm")
"""Of other projects, a file; `formats.FORMATS` reads and writes them."""
