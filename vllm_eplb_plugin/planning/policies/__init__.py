# SPDX-License-Identifier: Apache-2.0
"""From a load to a placement."""
