# SPDX-License-Identifier: Apache-2.0
"""Servers of a throughput run: up in groups, and asked in turns, round by round."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from rich.console import Console

from eval.activity.counts import count_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.rank_files import read_rank_files
from eval.activity.vllm_log import count_rearrangements
from eval.commands.answering import told_why
from eval.commands.throughput_times import Busy, measured, with_moves
from eval.config.schema import BASELINE, Arm, Config
from eval.load.traffic import Domain, prompts_of
from eval.load.turns import stream_in_turns
from eval.results.folder import RunFolder
from eval.results.schema import ArmRun
from eval.results.throughput import Measurement, ThroughputWorkload, Traffic
from eval.secrets import SECRETS
from eval.serving.served_arm import ServedArm, serve

_WARM_UP = 0
"""Number of the round that does not count, of a completion a stream at most."""


class ThroughputRun:
    """Groups of servers, asked every traffic."""

    def __init__(
        self,
        config: Config,
        workload: ThroughputWorkload,
        domains: Sequence[Domain],
        folder: RunFolder,
        console: Console,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            config: What is served; names the ``vllm``.
            workload: What is asked.
            domains: Whose prompts are asked.
            folder: Gets a folder for each arm.
            console: For what goes on.
        """
        self.doing = "its start"
        """For a person, when it ends early."""
        self._config = config
        self._workload = workload
        self._domains = domains
        self._folder = folder
        self._console = console
        self._measured: dict[str, list[Measurement]] = defaultdict(list)

    def measure(self, groups: Sequence[Sequence[Arm]]) -> Iterator[ArmRun]:
        """Serve each group and ask its arms; arm ``off`` stays up where it is in several.

        Args:
            groups: Arms that are up together; where ``off`` is in one of several, it is in all.

        Yields:
            Each arm after its group: ``off`` as often as it was in one, with all that was measured.

        Raises:
            EvaluationError: A server did not start or stopped answering.
        """
        with ExitStack() as staying:
            kept: list[ServedArm] = []
            for number, group in enumerate(groups, 1):
                new = [arm for arm in group if arm.name not in [one.arm.name for one in kept]]
                if len(groups) > 1 and len(group) > 1 and not kept and group[0].name == BASELINE:
                    kept, new = self._start(new[:1], staying), new[1:]
                    self._warm_up(kept)
                with ExitStack() as passing:
                    served = self._start(new, passing)
                    self._warm_up(served)
                    self._rounds(number, [*kept, *served])
                    # A thread of each rank writes its events, a second later at most.
                    time.sleep(DELIVERY_SECONDS)
                    yield from map(self._summary, [*kept, *served])

    def _start(self, arms: Sequence[Arm], until: ExitStack) -> list[ServedArm]:
        self.doing = f"the start of {_named(arm.name for arm in arms)}"
        together = [(arm, self._folder.new_arm_folder(arm.name)) for arm in arms]
        executable = self._config.serve.executable or ""
        served = until.enter_context(serve(self._config, together, executable, self._console))
        for one in served:
            self._console.print(f"{one.label}: server ready after {one.ready_after:.1f} s")
        return served

    def _warm_up(self, served: Sequence[ServedArm]) -> None:
        self.doing = f"the warm-up of {_named(one.arm.name for one in served)}"
        for traffic in self._workload.traffics:
            for one in served:
                self._ask(one, traffic, _WARM_UP, 0)

    def _rounds(self, group: int, served: Sequence[ServedArm]) -> None:
        for number in range(1, self._workload.repeats + 1):
            self.doing = f"round {number} of {_named(one.arm.name for one in served)}"
            for place, traffic in enumerate(self._workload.traffics):
                # Whose turn is first changes: a machine that slows down hits all arms alike.
                for one in _rotated(served, number + place):
                    found = self._ask(one, traffic, number, group)
                    self._measured[one.arm.name].append(found)
                    self._console.print(
                        f"{one.label}, round {number}, {traffic.name}: "
                        f"{found.tokens_per_second:.0f} tokens/s in {found.seconds:.1f} s"
                    )

    def _ask(self, one: ServedArm, traffic: Traffic, number: int, group: int) -> Measurement:
        asked, server = self._workload, one.server
        completions = asked.completions
        if number == _WARM_UP:
            completions = min(completions, asked.streams)
        prompts = prompts_of(traffic, self._domains, completions, asked.turn, number)
        log_start = server.log.stat().st_size
        before = Busy(time.process_time(), server.front_end_seconds())
        with told_why(one):
            streams = stream_in_turns(
                server.url,
                server.model_name,
                iter(prompts),
                completions,
                asked.streams,
                traffic.tokens,
                headers=server.headers,
                streamed=traffic.streamed,
                data_parallel_ranks=asked.ranks,
            )
        busy = Busy(time.process_time(), server.front_end_seconds()).since(before)
        began = count_rearrangements(server.log, log_start)
        return measured(traffic, number, group, streams, began, busy)

    def _summary(self, one: ServedArm) -> ArmRun:
        files = read_rank_files(one.events)
        found = [with_moves(part, files) for part in self._measured[one.arm.name]]
        asked_from = found[0].asked_from
        asked_until = max(part.asked_from + part.seconds for part in found)
        seconds = sum(part.seconds for part in found)
        return ArmRun(
            **count_activity(files, asked_from, asked_until).model_dump(),
            name=one.arm.name,
            tasks=[],
            start_seconds=round(one.ready_after, 1),
            asked_from=asked_from,
            asked_until=asked_until,
            logged_rearrangements=sum(part.logged_rearrangements for part in found),
            seconds=seconds,
            tokens_per_second=sum(part.generated_tokens for part in found) / seconds,
            command=SECRETS.hide_in_command(one.command),
            log=str(one.server.log),
            throughput=found,
        )


def _rotated(served: Sequence[ServedArm], by: int) -> list[ServedArm]:
    first = by % len(served)
    return [*served[first:], *served[:first]]


def _named(names: Iterator[str]) -> str:
    return ", ".join(f"arm {name}" for name in names)
