# SPDX-License-Identifier: Apache-2.0
"""What every rank of a group has to say, told to all of them."""

from typing import Any

from torch.distributed import ProcessGroup, all_gather_object


def gather_objects(mine: Any, group: ProcessGroup) -> list[Any]:
    """Return what each rank of a gloo group hands in, in their order; all of them call together.

    Args:
        mine: Anything that can be pickled.
        group: Of ranks that belong to one server, or to one benchmark.
    """
    of_all: list[Any] = [None] * group.size()
    all_gather_object(of_all, mine, group=group)
    return of_all
