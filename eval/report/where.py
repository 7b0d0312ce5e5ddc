# SPDX-License-Identifier: Apache-2.0
"""By what, and on what, a model was served: what decides whether a report is about one's own."""

from collections.abc import Iterator

from eval.results.schema import Result
from eval.results.surroundings import Machine
from eval.secrets import SECRETS


def served(result: Result) -> str:
    """Release, plugin, dtype, EP ranks, and where they ran; arms that ran elsewhere apart."""
    here = [_served_here(result)] if result.config.starts_servers else []
    return " ".join([*here, *_served_elsewhere(result)])


def _served_elsewhere(result: Result) -> Iterator[str]:
    """What answered at the urls, and how it was started, as the configuration says."""
    kept = {arm.name: arm.elsewhere for arm in result.arms}
    arms = []
    for arm in result.config.arms:
        if arm.url is not None:
            seen = kept.get(arm.name)
            release = f" (vLLM {seen.release})" if seen and seen.release else ""
            arms.append(f"arm {arm.name} at {SECRETS.hide(arm.url)}{release}")
    if arms:
        ranks, numbers = result.config.serve.ranks, _numbers(result)
        yield (
            f"Served elsewhere: {', '.join(arms)}; in {numbers} on {ranks} EP ranks, as the "
            "configuration says."
        )


def _numbers(result: Result) -> str:
    dtype = result.config.serve.option("dtype")
    return str(dtype) if dtype not in (None, "auto") else "the model's own dtype"


def _served_here(result: Result) -> str:
    config, versions = result.config, result.versions
    release = f"vLLM {versions.vllm}" if versions.vllm else "a vLLM beside which no release is kept"
    plugin = versions.vllm_eplb_plugin
    commit = f" ({result.plugin_commit})" if result.plugin_commit else ""
    beside = f" with vllm-eplb-plugin {plugin}{commit}" if plugin else ""
    numbers = _numbers(result)
    loopback = (config.plugin or {}).get("loopback") is True
    where = _where(result.machine, loopback, config.serve.gpus())
    return f"Served by {release}{beside} in {numbers}: {config.serve.ranks} EP ranks {where}."


def _where(machine: Machine, loopback: bool, gpus: int) -> str:
    if loopback and not machine.accelerators:
        return f"in loopback on a CPU ({machine.processor}), whose times say nothing of GPUs"
    if not machine.accelerators:
        return f"on {machine.processor}, where the harness sees no GPU"
    names = ", ".join(dict.fromkeys(machine.accelerators))
    if loopback:
        return f"in loopback on one GPU ({names}), whose times say nothing of several"
    return f"on {gpus} GPUs ({names})"
