# SPDX-License-Identifier: Apache-2.0
"""Figures that README and docs state, made anew from the JSON files that they come from."""
