# SPDX-License-Identifier: Apache-2.0
"""What an override of vLLM is, how it is bound, and which a release gets."""
