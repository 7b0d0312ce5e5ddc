# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that make latency and throughput runs again."""

from collections.abc import Iterator

from eval.results.latency import ModelShape
from eval.results.schema import Result
from eval.results.throughput import ThroughputWorkload


def shape_name(shape: ModelShape) -> str:
    """Of ``--shape``; its layers and experts may be others."""
    if shape.architecture == "qwen3_moe":
        return "qwen3-30b"
    return "deepseek-v2-lite" if shape.hidden_size > 64 else "wide"


def of_plugin_and_eplb(result: Result) -> Iterator[str]:
    """What arms have of it alike."""
    backend = result.config.serve.option("all2all-backend")
    if backend is not None:
        yield from ("--all2all-backend", str(backend))
    intervals = {arm.eplb.step_interval for arm in result.config.arms if arm.eplb}
    if len(intervals) == 1:
        yield from ("--interval", str(*intervals))
    transfers = {arm.plugin.get("transfer") for arm in result.config.arms} - {None}
    if transfers:
        yield from ("--transfer", str(*transfers))


def throughput_words(result: Result, asked: ThroughputWorkload) -> Iterator[str]:
    """What was asked, and of which model; files of prompts are not known by their names."""
    for arm in result.arms:
        yield from ("--arm", arm.name)
    for kind in dict.fromkeys(one.kind for one in asked.traffics):
        yield from ("--traffic", kind)
    for load in dict.fromkeys(one.load for one in asked.traffics):
        yield from ("--load", load)
    yield from _of_model(result, asked)
    for one in asked.traffics:
        option, length = {
            "decode": ("--tokens", one.tokens),
            "prefill": ("--prompt-tokens", one.prompt_tokens),
        }[one.kind]
        if one.load == asked.traffics[0].load:
            yield from (option, str(length))
    yield from ("--completions", str(asked.completions), "--streams", str(asked.streams))
    yield from ("--turn", str(asked.turn), "--repeats", str(asked.repeats))
    yield from ("--gpus", str(asked.gpus), "--ranks", str(asked.ranks))
    yield from ("--servers-at-once", str(asked.servers_at_once))
    yield from ["--graphs"] * (result.config.serve.option("compilation-config") is not None)
    yield from of_plugin_and_eplb(result)
    yield from ("--most-loss", f"{100 * asked.most_loss:g}")


def _of_model(result: Result, asked: ThroughputWorkload) -> Iterator[str]:
    shape = asked.shape
    redundant = next((arm.eplb.num_redundant_experts for arm in result.config.arms if arm.eplb), 0)
    if shape is None:
        yield from ("--model", result.config.model)
        for name in asked.domains:
            yield from ("--prompts", f"{name}=FILE")
        yield from ("--redundant", str(redundant))
        return
    yield from ("--shape", shape_name(shape), "--moe-layers", str(shape.moe_layers))
    yield from ("--experts", str(shape.experts), "--redundant", str(shape.redundant))
    yield from ("--skew", f"{asked.skew:g}")
