# SPDX-License-Identifier: Apache-2.0
"""DP+EP+EPLB without several GPUs, for development and CI. Off unless a setting asks for it."""
