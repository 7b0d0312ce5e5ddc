# SPDX-License-Identifier: Apache-2.0
"""EP with all ranks on one GPU."""
