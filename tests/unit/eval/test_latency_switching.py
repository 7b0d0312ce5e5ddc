# SPDX-License-Identifier: Apache-2.0
"""A load whose domains take turns: its model, its prompts, its servers, its figures."""

import json
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from eval.commands.latency_setup import ArmName, Checks, Setup, Switching, latency_config
from eval.commands.latency_times import StepTime, seconds_rearranging, times_of_turns
from eval.commands.latency_weights import write_weights
from eval.config.schema import Config
from eval.judging.latency_rules import latency_rules
from eval.load.domains import DOMAINS, PROMPT_TOKENS, prompts_in_turns, tokens_of
from eval.load.streams import Stream
from eval.report.latency import latency_view
from eval.report.measured import repeat_command
from eval.results.latency import ModelShape
from eval.results.schema import ArmResult, Result
from tests.builders.latency import latency_result

SMALL = ModelShape(moe_layers=2, experts=16, redundant=4, experts_per_token=4, vocabulary=256)
TWO = ("0", "1")


def domain_of(prompt: Sequence[int], vocabulary: int) -> set[int]:
    return {d for d in range(DOMAINS) for token in prompt if token in tokens_of(d, vocabulary)}


@pytest.mark.parametrize("vocabulary", [256, 1024, 102400])
def test_domains_share_no_token(vocabulary: int) -> None:
    domains = [tokens_of(domain, vocabulary) for domain in range(DOMAINS)]
    assert domains[0].start > 1 and domains[-1].stop <= vocabulary
    assert all(one.stop <= following.start for one, following in pairwise(domains))


def test_prompts_of_one_domain_come_before_those_of_the_next() -> None:
    prompts = list(islice(prompts_in_turns(1024, turn=3), 3 * (DOMAINS + 1)))
    assert all(len(prompt) == PROMPT_TOKENS for prompt in prompts)
    found = [domain_of(prompt, 1024) for prompt in prompts]
    assert found == [{number // 3 % DOMAINS} for number in range(len(prompts))]
    assert prompts == list(islice(prompts_in_turns(1024, turn=3), len(prompts)))


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_weights(SMALL, file)
    return {name: tensor.float() for name, tensor in load_file(file).items()}


def test_no_two_experts_have_the_same_weights(tensors: dict[str, torch.Tensor]) -> None:
    experts = [weight for name, weight in tensors.items() if ".experts." in name]
    assert len(experts) == SMALL.moe_layers * SMALL.experts * 3
    assert len({weight.numpy().tobytes() for weight in experts}) == len(experts)


def test_no_layer_changes_which_domain_a_token_is_of(tensors: dict[str, torch.Tensor]) -> None:
    writes = [one for name, one in tensors.items() if "o_proj" in name or "down_proj" in name]
    assert len(writes) == (1 + SMALL.moe_layers) * 2 + SMALL.moe_layers * SMALL.experts
    assert not any(one[:DOMAINS].any() for one in writes)
    assert all(one[DOMAINS:].any() for one in writes)


def loads(tensors: dict[str, torch.Tensor], layer: int, domain: int) -> torch.Tensor:
    """Of each expert by the first gate's reading of embeddings: what layers add is left out."""
    hidden = tensors["model.embed_tokens.weight"][list(tokens_of(domain, SMALL.vocabulary))]
    normal = hidden / hidden.square().mean(1, keepdim=True).sqrt()
    logits = normal @ tensors[f"model.layers.{layer}.mlp.gate.weight"].T
    chosen = logits.topk(SMALL.experts_per_token).indices.flatten()
    return chosen.bincount(minlength=SMALL.experts).float()


def test_domains_load_other_experts_and_layers_differ(tensors: dict[str, torch.Tensor]) -> None:
    found = [[loads(tensors, layer, domain) for domain in range(DOMAINS)] for layer in (1, 2)]
    for layer in found:
        for one in layer:
            assert one.max() > 2 * one.mean(), "skewed"
        for one, other in pairwise(layer):
            moved = (one - other).clamp(min=0).sum() / one.sum()
            assert moved > 0.3, "share of the load that goes to other experts"
    assert not torch.equal(found[0][0], found[1][0])


def test_a_completion_stays_in_the_domain_of_its_prompt(tensors: dict[str, torch.Tensor]) -> None:
    embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    for domain in range(DOMAINS):
        tokens = list(tokens_of(domain, SMALL.vocabulary))
        hidden = embedding[tokens]
        normal = hidden / hidden.square().mean(1, keepdim=True).sqrt()
        chances = (normal @ head.T).softmax(1)
        assert chances[:, tokens].sum(1).min() > 0.99


def test_rows_of_a_matrix_larger_than_the_pool_differ(tmp_path: Path) -> None:
    shape = SMALL.model_copy(
        update={"vocabulary": 4200, "hidden_size": 2048, "moe_layers": 1, "experts": 1}
    )
    write_weights(shape, tmp_path / "model.safetensors")
    rows = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].float()
    assert len(rows[:, DOMAINS:].unique(dim=0)) == len(rows) == shape.vocabulary


def setup(**changes: Any) -> Setup:
    switching = Switching(completions=200, turn=16, most_seconds=None)
    made = Setup("vllm", Path("model"), SMALL, TWO, True, 16, 64, switching=switching)
    return made._replace(**changes)


def served(**changes: Any) -> Config:
    return latency_config("latency", setup(**changes), list(ArmName), Path("arms"))


def test_incremental_arms_differ_from_the_plugin_s_others_in_their_policy_alone() -> None:
    arms = {arm.name: arm for arm in served().arms}
    for mode in ("sync", "async"):
        incremental, other = arms[f"{mode}-incremental"], arms[mode]
        assert incremental.eplb == other.eplb == arms[f"stock-{mode}"].eplb
        assert incremental.plugin["planning"] == {"policy": "incremental"}
        assert incremental.plugin.keys() - other.plugin.keys() == {"planning"}
        assert other.eplb is not None
        assert (other.eplb.window_size, other.eplb.step_interval) == (20, 20)


def test_the_setting_transfer_is_the_plugin_s_alone() -> None:
    arms = {arm.name: arm.plugin for arm in served(transfer="peer").arms}
    told = {name for name, plugin in arms.items() if plugin.get("transfer") == "peer"}
    assert told == {"sync", "sync-incremental", "async", "async-incremental"}
    assert not any("transfer" in arm.plugin for arm in served().arms)


def test_weights_are_checked_in_no_arm_that_is_timed() -> None:
    arms = {arm.name: arm.plugin for arm in served(checks=Checks.again).arms}
    checked = {name for name, plugin in arms.items() if plugin.get("check_weights")}
    assert checked == {f"{name.value}-checked" for name in ArmName if name.plugin}
    for name in checked:
        timed = arms[name.removesuffix("-checked")]
        assert {key for key, value in arms[name].items() if timed.get(key) != value} == {
            "check_weights",
            "step_times_dir",
        }


@pytest.mark.parametrize(("at_once", "share"), [(1, 0.1), (3, 0.1), (11, 0.036)])
def test_servers_that_start_together_each_find_their_share_free(at_once: int, share: float) -> None:
    options = served(servers_at_once=at_once).serve.options
    assert options["gpu-memory-utilization"] == share
    cache = options["kv-cache-memory-bytes"]
    assert isinstance(cache, int) and cache == 2**28
    assert options["load-format"] == "auto"


def test_steps_of_one_rearrangement_are_its_time() -> None:
    steps = [(1.0, 0.25, True), (2.0, 0.1, False), (3.0, 0.1, True), (4.0, 0.1, True)]
    steps += [(5.0, 0.1, False)]
    assert seconds_rearranging([StepTime(*one) for one in steps]) == pytest.approx(0.25 + 1.1)
    assert seconds_rearranging([]) == 0


def test_a_rearrangement_s_mean_time_is_that_of_one_rank(tmp_path: Path) -> None:
    for rank in range(2):
        lines = [
            {"time": time, "seconds": 0.5, "rearranging": moving}
            for time, moving in ((5, True), (11, True), (12, False), (13, True), (99, True))
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / f"steps{rank}.jsonl").write_text(text)
    streams = [Stream([2], [11.0, 12.0, 14.0], 3, 10.0, 14.0), Stream([3], [13.0], 1, 12.0, 15.0)]
    times = times_of_turns(streams, tmp_path, began=2)
    assert times.rearrangement_ms == 500
    assert times.between_tokens is not None
    assert (times.between_tokens.count, times.between_tokens.max) == (2, 2000)
    assert times_of_turns(streams, tmp_path, began=0).rearrangement_ms is None


def switching_result(*names: str, checks: Checks = Checks.none, **arm: Any) -> Result:
    """In it ``sync`` took 1.1 times as long as ``off``."""
    found = latency_result(*names, load="switching", checks=checks)
    arms = [one.model_copy(update=arm if one.name != "off" else {}) for one in found.arms]
    return found.model_copy(update={"arms": arms})


def test_arms_are_set_beside_off_by_how_long_completions_took() -> None:
    moved = {"rearrangements": 2, "rearrangements_started": 2, "slots_changed": [3, 4]}
    found = switching_result(
        "off", "stock-sync", "sync", tokens_per_second=200 / 1.1, usual_seconds=0.5, **moved
    )
    view = latency_view(found)
    rows = {row.heading: row.cells for row in view.rows()}
    assert rows["times as long as off"] == ["1.000", "1.100", "1.100"]
    assert rows["slots changed in one, mean"][2] == "3.5"
    assert rows["a rearrangement, median by events"][2] == "500.0"
    told = "all completions, sync against off: 1.100 times as long"
    assert told in list(view.conclusions())
    assert "times as long as off" not in {
        row.heading for row in latency_view(latency_result("off", "sync")).rows()
    }


def test_the_ceiling_is_told_beside_the_others_and_asked_for_no_rearrangement() -> None:
    found = switching_result("off", "balanced", "sync", tokens_per_second=400)
    told = list(latency_view(found).conclusions())
    assert "all completions, balanced against off: 0.500 times as long" in told
    assert sum("tokens go to experts by chance" in line for line in told) == 1
    without = latency_view(switching_result("off", "sync")).conclusions()
    assert not any("balanced" in line for line in without)
    assert found.latency is not None
    rules = latency_rules(found.config, found.latency, found.arms)
    failed = [one.rule for one in rules if one.arm == "balanced" and one.verdict != "passed"]
    assert failed == []


def test_an_arm_with_checks_is_evidence_and_no_measurement() -> None:
    found = switching_result(
        "off", "sync", checks=Checks.again, slots_changed=[1], rearrangements=1
    )
    view = latency_view(found)
    rows = {row.heading: row.cells for row in view.rows()}
    assert [column.name for column in view.columns] == ["off", "sync", "sync-checked"]
    assert rows["times as long as off"][2] == "-"
    command = repeat_command(found)
    assert "--checks again" in command and "sync-checked" not in command


@pytest.mark.parametrize(
    ("checked", "verdict"),
    [
        ({"weight_checks": 8, "checking_ranks": [0, 1]}, "passed"),
        ({"weight_checks": 8, "checking_ranks": [0, 1], "weight_mismatches": 1}, "failed"),
        ({"weight_checks": 4, "checking_ranks": [0]}, "not tested"),
        ({}, "not tested"),
    ],
)
def test_a_checked_arm_passes_with_no_wrong_weight_on_any_rank(
    checked: dict[str, Any], verdict: str
) -> None:
    found = switching_result("off", "sync", checks=Checks.again, **checked)
    assert rules(found, "sync-checked")["weights"] == verdict
    assert "weights" not in rules(found, "sync")


def rules(result: Result, arm: str) -> dict[str, str]:
    assert result.latency is not None
    found = latency_rules(result.config, result.latency, result.arms)
    return {rule.rule: rule.verdict for rule in found if rule.arm == arm}


@pytest.mark.parametrize(("slots", "verdict"), [([1, 0], "passed"), ([], "not tested")])
def test_a_load_that_moves_no_expert_tests_nothing(slots: list[int], verdict: str) -> None:
    found = switching_result("off", "sync", "stock-sync", slots_changed=slots)
    assert rules(found, "sync")["slots_changed"] == verdict
    assert "slots_changed" not in rules(found, "stock-sync")


@pytest.mark.parametrize(
    ("most_seconds", "tokens", "verdict"),
    [(None, [100] * 5, "failed"), (9.0, [100] * 5, "passed"), (9.0, [100, 99], "failed")],
)
def test_completions_that_a_limit_of_time_left_out_are_not_missed(
    most_seconds: float | None, tokens: list[int], verdict: str
) -> None:
    found = switching_result("off")
    assert found.latency is not None
    asked = found.latency.model_copy(update={"completions": 6, "most_seconds": most_seconds})
    (arm,) = found.arms
    assert arm.latency is not None
    times = arm.latency.model_copy(update={"completions": tokens})
    arms: list[ArmResult] = [arm.model_copy(update={"latency": times})]
    (answers, *_) = latency_rules(found.config, asked, arms)
    assert answers.verdict == verdict


def test_a_command_that_repeats_a_run_says_what_was_asked() -> None:
    command = repeat_command(switching_result("off", "sync"))
    assert "--load switching --completions 4 --turn 2" in command
    assert "--interval 20" in command
