# SPDX-License-Identifier: Apache-2.0
"""What users feel of EPLB: inter-token latency while experts move all the time."""
