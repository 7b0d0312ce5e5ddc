# SPDX-License-Identifier: Apache-2.0
"""Who is told of events; fed by `observe.delivery`, never on the thread that runs the model."""
