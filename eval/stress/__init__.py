# SPDX-License-Identifier: Apache-2.0
"""What only time shows: hangs, leaks, and weights gone wrong under commits that race."""
