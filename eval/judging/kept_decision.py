# SPDX-License-Identifier: Apache-2.0
"""Why an arm was asked no more, as it was kept, must follow from the answers."""

from collections.abc import Sequence

from eval.config.schema import Config
from eval.errors import GateError
from eval.judging.answer_rules import Comparison
from eval.judging.arms import ArmToJudge, is_repeat
from eval.judging.enough_rules import decide
from eval.judging.verdict import alpha_of_one_comparison
from eval.results.folder import RunFolder


def require_decisions(folder: RunFolder, config: Config, arms: Sequence[ArmToJudge]) -> None:
    """Decide again, by the answers and the gate that the run had.

    Args:
        folder: Of the run.
        config: Of the run, without the tasks that were left out.
        arms: All of the run, ``off`` first.

    Raises:
        GateError: What was decided is not what follows; names the file.
    """
    off, alpha = arms[0], alpha_of_one_comparison(config)
    for arm in arms:
        configured = next(one for one in config.arms if one.name == arm.name)
        tasks = zip(config.tasks_of(configured), arm.run.tasks, strict=True)
        for task, run in tasks:
            decided = None
            if task.until_decided and not is_repeat(arm, off):
                answers = Comparison(task, off, arm).answers()
                decided = decide(answers, config.gate, alpha)
            if run.decision != decided:
                raise GateError(
                    f"{folder.arm_folder(arm.name) / 'arm.json'}: the decision of {run.name} is "
                    f"kept as {run.decision!r}, but {decided!r} follows from the answers and the "
                    "gate: a file was changed. Evaluate again with --fresh"
                )
