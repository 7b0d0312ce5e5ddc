"""A policy that does not answer costs a rearrangement, and nothing else."""

import threading
from contextvars import ContextVar

import pytest

from vllm_eplb_plugin.planning.asking import Asker, PolicyHangsError


def test_the_answer_comes_back_with_what_was_known() -> None:
    known = ContextVar("known", default="nothing")
    known.set("something")
    assert Asker().ask(known.get, 10) == "something"


def test_an_error_comes_back() -> None:
    def ask() -> None:
        raise KeyError("expert")

    with pytest.raises(KeyError, match="expert"):
        Asker().ask(ask, 10)


def test_who_hangs_is_not_asked_again_before_it_has_answered() -> None:
    asker, may_answer, asked = Asker(), threading.Event(), []
    was_asked = threading.Event()

    def hang() -> None:
        asked.append("hanging")
        was_asked.set()
        may_answer.wait()

    with pytest.raises(PolicyHangsError, match="has not answered in 0.05 s"):
        asker.ask(hang, 0.05)
    assert was_asked.wait(30)
    with pytest.raises(PolicyHangsError, match="still has not answered"):
        asker.ask(lambda: asked.append("again"), 10)
    assert asked == ["hanging"]
    may_answer.set()
    asker._unanswered.join()  # type: ignore[union-attr]
    asker.ask(lambda: asked.append("again"), 10)
    assert asked == ["hanging", "again"]


def test_threads_begin_with_what_they_are_given() -> None:
    asker, order = Asker(), []
    asker.prepare = lambda: order.append("prepared")
    asker.ask(lambda: order.append("asked"), 10)
    assert order == ["prepared", "asked"]
