# SPDX-License-Identifier: Apache-2.0
"""What stands on /metrics, and how it is computed from what ranks say of themselves."""
