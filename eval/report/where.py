# SPDX-License-Identifier: Apache-2.0
"""By what, and on what, a model was served: what decides whether a report is about one's own."""

from eval.results.schema import Result
from eval.results.surroundings import Machine


def served(result: Result) -> str:
    """A sentence: release, plugin, dtype, EP ranks, and where they ran."""
    config, versions = result.config, result.versions
    release = f"vLLM {versions.vllm}" if versions.vllm else "a vLLM beside which no release is kept"
    plugin = versions.vllm_eplb_plugin
    commit = f" ({result.plugin_commit})" if result.plugin_commit else ""
    beside = f" with vllm-eplb-plugin {plugin}{commit}" if plugin else ""
    dtype = config.serve.option("dtype")
    numbers = str(dtype) if dtype not in (None, "auto") else "the model's own dtype"
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
