# SPDX-License-Identifier: Apache-2.0
"""How fast arms answered, and how little that says."""

from eval.results.schema import Result


def speed(result: Result) -> str:
    """Sentences: tokens a second of every arm, and what keeps them from being a benchmark.

    Empty for a run that asked no questions, or of fewer than two arms.
    """
    asked = [arm for arm in result.arms if arm.tasks and arm.tokens_per_second]
    if result.kind != "accuracy" or len(asked) < 2:
        return ""
    rates = ", ".join(f"{arm.name} {arm.tokens_per_second:.0f}" for arm in asked)
    modes = {arm.eplb.use_async for arm in result.config.arms if arm.eplb is not None}
    told = ""
    if modes - {True}:
        told = (
            " In sync mode a rearrangement stalls the model as long as it takes, in async mode "
            "it goes on beside the model."
        )
    elif modes:
        told = " In async mode a rearrangement goes on beside the model."
    return (
        f"Tokens a second: {rates}. That is no benchmark: arms were asked one after another, the "
        f"first of them with cold caches; latency and throughput measure.{told}"
    )
