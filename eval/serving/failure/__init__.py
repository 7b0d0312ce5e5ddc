# SPDX-License-Identifier: Apache-2.0
"""Why a server died, from what its processes wrote."""
