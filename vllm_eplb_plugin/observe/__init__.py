# SPDX-License-Identifier: Apache-2.0
"""What tells people that the load balancer works."""
