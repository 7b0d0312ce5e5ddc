# SPDX-License-Identifier: Apache-2.0
"""Functions that only a compiled one calls."""

import numba

inner = numba.njit(nogil=True)
"""They are compiled and cached with the one that calls them (`placement.compiling.compiled`)."""
