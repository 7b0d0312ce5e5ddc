# SPDX-License-Identifier: Apache-2.0
"""What is raised where nothing can be simulated."""


class SimulationError(ValueError):
    """A simulation cannot be made, or a policy failed in it."""
