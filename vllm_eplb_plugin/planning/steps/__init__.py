# SPDX-License-Identifier: Apache-2.0
"""From a placement to a better one, or to one that is cheaper to reach."""
