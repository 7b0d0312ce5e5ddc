# SPDX-License-Identifier: Apache-2.0
"""EP on a CPU."""
