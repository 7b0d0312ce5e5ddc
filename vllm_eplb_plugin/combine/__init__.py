# SPDX-License-Identifier: Apache-2.0
"""Experts' outputs, added so that the sum does not depend on where experts live (docs/exact.md)."""
