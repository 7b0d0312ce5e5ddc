# SPDX-License-Identifier: Apache-2.0
"""Which prompts a traffic has, of which domains, in which order."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from eval.commands.throughput_asked import (
    KindChoice,
    TrafficLoadChoice,
    domains_of_texts,
    random_domains,
    require_model,
    traffics_of,
)
from eval.errors import ConfigError
from eval.load.domains import DOMAINS, PROMPT_TOKENS, tokens_of
from eval.load.traffic import domains_in_order, prompts_of, read_texts, text_domain, token_domains
from eval.results.latency import ModelShape
from eval.results.throughput import Traffic, TrafficLoad

VOCABULARY = 1024
BOTH, ALL = list(KindChoice), list(TrafficLoadChoice)


def traffic(load: TrafficLoad = "switching", kind: KindChoice = KindChoice.decode) -> Traffic:
    (one,) = traffics_of([kind], [TrafficLoadChoice(load)], prompt_tokens=40, tokens=32)
    return one


def order(load: TrafficLoad, completions: int, turn: int = 1) -> list[int]:
    return domains_in_order(load, completions, 4, turn, random.Random(0))


def test_a_skewed_load_stays_in_one_domain() -> None:
    assert order("skewed", 5) == [0] * 5


def test_domains_that_switch_follow_each_other_and_the_first_the_last() -> None:
    assert order("switching", 10, turn=2) == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0]


def test_a_drifting_load_goes_from_each_domain_to_the_next_little_by_little() -> None:
    found = order("drifting", 4000)
    shares = [
        [found[first : first + 250].count(domain) for domain in range(4)]
        for first in range(0, 4000, 250)
    ]
    for place, share in enumerate(shares):
        going = place // 4
        assert share[going] + share[(going + 1) % 4] == 250, "only two at a time"
    assert [share[1] for share in shares[:4]] == sorted(share[1] for share in shares[:4])
    assert shares[0][0] > 180 and shares[3][0] < 70 and shares[15][0] > 180


def test_every_round_asks_other_prompts_and_every_arm_the_same() -> None:
    domains = token_domains(VOCABULARY)
    first, again, other = (prompts_of(traffic(), domains, 8, 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert not any(one in other for one in first)


@pytest.mark.parametrize(("kind", "length"), [("decode", PROMPT_TOKENS), ("prefill", 40)])
def test_prompts_of_a_random_model_are_as_long_as_is_told_and_of_their_domain(
    kind: str, length: int
) -> None:
    asked = traffic(kind=KindChoice(kind))
    found = prompts_of(asked, token_domains(VOCABULARY), 2 * DOMAINS, 2, 1)
    assert {len(prompt) for prompt in found} == {length}
    for number, prompt in enumerate(found):
        assert set(prompt) <= set(tokens_of(number // 2, VOCABULARY))


def test_every_kind_is_asked_with_every_load() -> None:
    found = traffics_of(BOTH, ALL, prompt_tokens=1024, tokens=256)
    assert [one.name for one in found] == [
        *("decode-skewed", "decode-drifting", "decode-switching"),
        *("prefill-skewed", "prefill-drifting", "prefill-switching"),
    ]
    assert {(one.prompt_tokens, one.tokens) for one in found} == {(16, 256), (1024, 8)}
    assert len(traffics_of([KindChoice.decode] * 2, ALL[:1] * 2, 64, 64)) == 1


def test_texts_are_asked_as_they_are_or_joined_until_they_are_long() -> None:
    domain, choose = text_domain(["one text", "another"]), random.Random(0)
    assert {domain(traffic(), choose) for _ in range(20)} == {"one text", "another"}
    long = domain(traffic(kind=KindChoice.prefill), choose)
    assert isinstance(long, str)
    assert len(long) == 3 * 40
    assert "one text\n\nanother" in long


def test_prompts_are_read_line_by_line_or_as_json(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("first\n\nsecond\n")
    (tmp_path / "lines.jsonl").write_text(f"{json.dumps('a' + chr(10) + 'b')}\n")
    assert read_texts(tmp_path / "plain.txt") == ["first", "second"]
    assert read_texts(tmp_path / "lines.jsonl") == ["a\nb"]


@pytest.mark.parametrize(
    ("text", "rule"), [("", "has no prompt"), ("{}\n", "is no JSON string"), (None, "No such file")]
)
def test_a_file_without_prompts_is_refused(text: str | None, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rule):
        read_texts(file)


@pytest.mark.parametrize(
    ("prompts", "rule"),
    [
        ([], "add --prompts NAME=FILE"),
        (["code"], "give NAME=FILE"),
        (["=file"], "give NAME=FILE"),
        (["code=a.txt", "code=a.txt"], "there is another code"),
    ],
)
def test_domains_of_texts_have_a_name_and_a_file(
    prompts: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(ConfigError, match=rule):
        domains_of_texts(prompts)
    assert list(domains_of_texts(["code=a.txt"])) == ["code"]


def test_what_a_random_model_cannot_hold_is_refused() -> None:
    short = ModelShape(max_positions=48)
    assert len(random_domains(short, [traffic()])) == DOMAINS
    with pytest.raises(ConfigError, match="have up to 49 tokens, and the model takes 48"):
        random_domains(short, [traffic().model_copy(update={"tokens": 33})])


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (None, "is no folder of a model"),
        ({"num_hidden_layers": 2}, "tells of no routed experts"),
        ({"n_routed_experts": 8}, "8 experts and 3 redundant are 11 slots"),
        ({"num_experts": 8}, "8 experts and 3 redundant are 11 slots"),
    ],
)
def test_a_model_without_experts_to_share_is_refused(
    config: dict[str, int] | None, rule: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rule):
        require_model(tmp_path, redundant=3, ranks=2)


def test_rounds_drift_by_other_draws() -> None:
    found = [domains_in_order("drifting", 64, 4, 1, random.Random(seed)) for seed in range(3)]
    assert all(one != other for one, other in pairwise(found))
