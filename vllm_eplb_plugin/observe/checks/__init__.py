# SPDX-License-Identifier: Apache-2.0
"""What is compared after a commit."""
