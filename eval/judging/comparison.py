# SPDX-License-Identifier: Apache-2.0
"""Set the arms of a run beside each other. Pure functions."""

from collections import Counter
from collections.abc import Mapping, Sequence

from eval.config.schema import BASELINE, TaskName
from eval.results.samples import Sample
from eval.results.schema import ArmResult, ArmRun, TaskResult


def identical_texts(samples: Sequence[Sample], others: Sequence[Sample]) -> Counter[TaskName]:
    """Questions of each task, paired by document and prompt, with the same answer in both."""
    texts = {_question(other): other.text for other in others}
    return Counter(one.task for one in samples if texts.get(_question(one)) == one.text)


def _question(sample: Sample) -> tuple[TaskName, int, str]:
    return sample.task, sample.doc_id, sample.prompt_hash


def arm_results(arms: Sequence[ArmRun], samples: Mapping[str, Sequence[Sample]]) -> list[ArmResult]:
    """Set each arm beside arm ``off``, which must be the first."""
    return [_arm_result(arm, samples) for arm in arms]


def _arm_result(arm: ArmRun, samples: Mapping[str, Sequence[Sample]]) -> ArmResult:
    identical = identical_texts(samples[arm.name], samples[BASELINE])
    tasks = [
        TaskResult(**task.model_dump(), identical_to_off=identical[task.name]) for task in arm.tasks
    ]
    return ArmResult.model_validate({**dict(arm), "tasks": tasks})
