# SPDX-License-Identifier: Apache-2.0
"""What the commands that start servers do: run, latency, stress, throughput."""
