# SPDX-License-Identifier: Apache-2.0
"""The single map: which logical expert sits in each physical slot, and what follows from it."""
