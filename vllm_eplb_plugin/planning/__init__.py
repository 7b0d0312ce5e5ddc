# SPDX-License-Identifier: Apache-2.0
"""From load to placement: what stands between vLLM and its policy."""
