# SPDX-License-Identifier: Apache-2.0
"""Other systems' ideas, written from their descriptions: to compare with, not to serve with."""
