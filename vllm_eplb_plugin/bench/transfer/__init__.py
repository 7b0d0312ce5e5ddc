# SPDX-License-Identifier: Apache-2.0
"""How long the experts of a layer take from rank to rank: vLLM's communicators and peer pulls."""
