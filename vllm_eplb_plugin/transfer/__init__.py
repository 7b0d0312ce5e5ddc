# SPDX-License-Identifier: Apache-2.0
"""How weights get from rank to rank, and from the buffer into the model."""
