# SPDX-License-Identifier: Apache-2.0
"""Rules, statistics, negative controls and the verdict."""
