# SPDX-License-Identifier: Apache-2.0
"""From the arms of a run to a verdict. Pure functions."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from eval.ask import Sample
from eval.config import REFERENCE_ARM, Arm, Config, TaskName
from eval.result import ArmResult, ArmRun, ReferenceResult, TaskResult, Verdict


class Judgement(NamedTuple):
    """A verdict and, unless it is ``passed``, why."""

    verdict: Verdict
    reasons: list[str]


def identical_answers(samples: Sequence[Sample], others: Sequence[Sample]) -> Counter[TaskName]:
    """Questions of each task, paired by document and prompt, with the same answer in both."""
    texts = {_question(other): other.text for other in others}
    return Counter(one.task for one in samples if texts.get(_question(one)) == one.text)


def _question(sample: Sample) -> tuple[TaskName, int, str]:
    return sample.task, sample.doc_id, sample.prompt_hash


def arm_results(arms: Sequence[ArmRun], samples: Mapping[str, Sequence[Sample]]) -> list[ArmResult]:
    """Set each arm beside arm ``off``, which must be the first."""
    return [_arm_result(arm, samples) for arm in arms]


def _arm_result(arm: ArmRun, samples: Mapping[str, Sequence[Sample]]) -> ArmResult:
    identical = identical_answers(samples[arm.name], samples[REFERENCE_ARM])
    tasks = [
        TaskResult(**task.model_dump(), identical_to_off=identical[task.name]) for task in arm.tasks
    ]
    return ArmResult.model_validate({**dict(arm), "tasks": tasks})


def judge(
    config: Config,
    arms: Sequence[ArmResult],
    samples: Mapping[str, Sequence[Sample]],
    reference: ReferenceResult | None,
) -> Judgement:
    """The verdict on a run whose arms, as configured and in that order, are all finished."""
    checks: list[tuple[Verdict, Iterator[str]]] = [
        ("invalid", _not_comparable(arms, samples)),
        ("failed", _differences(arms, reference)),
        ("not tested", _missing_evidence(config, arms, reference)),
    ]
    found = [(verdict, list(reasons)) for verdict, reasons in checks]
    verdicts = [verdict for verdict, reasons in found if reasons]
    # The first kind decides, all reasons are told.
    return Judgement(
        verdicts[0] if verdicts else "passed", [one for _, reasons in found for one in reasons]
    )


def _not_comparable(
    arms: Sequence[ArmResult], samples: Mapping[str, Sequence[Sample]]
) -> Iterator[str]:
    first = arms[0]
    for arm in arms[1:]:
        for task, expected in zip(arm.tasks, first.tasks, strict=True):
            if task.questions != expected.questions:
                yield (
                    f"arm {arm.name}, {task.name}: {task.questions} questions, but "
                    f"{expected.questions} in arm {first.name}: the questions changed between "
                    "the arms"
                )
            elif task.task_hash != expected.task_hash or _asked(
                task.name, samples[arm.name]
            ) != _asked(task.name, samples[first.name]):
                yield (
                    f"arm {arm.name}, {task.name}: other prompts than arm {first.name}: the "
                    "questions changed between the arms"
                )


def _asked(task: TaskName, samples: Sequence[Sample]) -> list[tuple[TaskName, int, str]]:
    return [_question(sample) for sample in samples if sample.task == task]


def _differences(arms: Sequence[ArmResult], reference: ReferenceResult | None) -> Iterator[str]:
    for arm in arms:
        for task in arm.tasks:
            different = task.questions - task.identical_to_off
            if different:
                yield (
                    f"arm {arm.name}, {task.name}: {different} of {task.questions} answers "
                    f"differ from arm {REFERENCE_ARM}"
                )
        if arm.weight_mismatches:
            yield (
                f"arm {arm.name}: {arm.weight_mismatches} of {arm.weight_checks} checked slots "
                "hold other weights than the map says"
            )
    if reference and reference.identical < reference.prompts:
        yield (
            f"reference: {reference.prompts - reference.identical} of {reference.prompts} answers "
            f"of arm {REFERENCE_ARM} differ from greedy decoding by transformers in float32"
        )


def _missing_evidence(
    config: Config, arms: Sequence[ArmResult], reference: ReferenceResult | None
) -> Iterator[str]:
    for task, answered in zip(config.tasks, arms[0].tasks, strict=True):
        if task.questions is not None and answered.questions < task.questions:
            yield (
                f"{task.name}: only {answered.questions} questions, "
                f"tasks.{task.name}.questions says {task.questions}"
            )
    for arm, configured in zip(arms, config.arms, strict=True):
        if configured.eplb is not None:
            for reason in _missing_rearrangements(config, arm, configured):
                yield f"arm {arm.name}: {reason}"
    prompts = min(config.reference.transformers_prompts, arms[0].tasks[0].questions)
    if prompts and (reference is None or reference.prompts < prompts):
        yield f"reference: fewer than {prompts} prompts compared"


def _missing_rearrangements(config: Config, arm: ArmResult, configured: Arm) -> Iterator[str]:
    require = config.gate
    if arm.rearrangements < require.rearrangements:
        yield (
            f"{arm.rearrangements} rearrangements finished during the questions, "
            f"gate.rearrangements says {require.rearrangements}"
        )
    if len(arm.slots_changed) < require.moe_layers:
        yield (
            f"events of {len(arm.slots_changed)} MoE layers, "
            f"gate.moe_layers says {require.moe_layers}"
        )
    unchanged = [layer for layer, slots in enumerate(arm.slots_changed) if slots == 0]
    if unchanged:
        yield f"no slot changed in MoE layers {unchanged}"
    plugin = config.plugin_settings(configured) or {}
    if plugin.get("check_weights") is True and arm.weight_checks == 0:
        yield "no weights were checked, although plugin.check_weights is true"
    assert configured.eplb is not None
    if configured.eplb.use_async is not None:
        mode = "async" if configured.eplb.use_async else "sync"
        if arm.modes not in ([], [mode]):
            yield f"rearrangements ran in mode {', '.join(arm.modes)}, eplb.use_async says {mode}"
