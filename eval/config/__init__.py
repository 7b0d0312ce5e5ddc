# SPDX-License-Identifier: Apache-2.0
"""What an evaluation is told to do."""
