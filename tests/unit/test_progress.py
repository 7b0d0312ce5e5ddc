# SPDX-License-Identifier: Apache-2.0
"""A rearrangement has exactly one outcome, whatever comes in whatever order."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_eplb_plugin.observe.progress import Outcome, Rearrangement

LAYERS = 4
OUTCOMES = get_args(Outcome)
layers = st.sets(st.integers(0, LAYERS - 1))
happenings = st.one_of(
    st.tuples(st.just("plan"), layers),
    st.tuples(st.just("commit"), layers),
    st.tuples(st.just("end"), st.sampled_from(OUTCOMES)),
)


def rearrangement() -> Rearrangement:
    return Rearrangement(number=1, step=10, mode="async", started=0.0, layers=LAYERS)


@given(st.lists(happenings, max_size=12))
def test_it_goes_as_in_a_plain_account_of_it(steps: list[tuple[str, object]]) -> None:
    one = rearrangement()
    changed: set[int] | None = None
    outcome = None
    for verb, what in steps:
        if verb == "plan":
            assert isinstance(what, set)
            if changed is None and outcome is None:
                one.plan(what)
                changed = set(what)
            else:
                with pytest.raises(ValueError, match="cannot be planned any more"):
                    one.plan(what)
        elif verb == "commit":
            assert isinstance(what, set)
            visible = sorted(what)
            expected = [] if changed is None or outcome else [x for x in visible if x in changed]
            assert one.commit(visible) == expected
            if changed is not None:
                changed -= set(expected)
        elif what == "finished" and (changed is None or changed):
            with pytest.raises(ValueError, match="has not finished"):
                one.end("finished")
        else:
            assert one.end(what) == (outcome is None)  # type: ignore[arg-type]
            outcome = outcome or what
        assert one.outcome == outcome
        assert one.is_open == (outcome is None)
        assert one.awaited == changed


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match="are no layers of 4"):
        rearrangement().plan([0, layer])


@pytest.mark.parametrize(("number", "layers"), [(0, 4), (1, 0)])
def test_what_counts_counts_from_one(number: int, layers: int) -> None:
    with pytest.raises(ValueError, match="both count"):
        Rearrangement(number=number, step=0, mode="sync", started=0.0, layers=layers)
