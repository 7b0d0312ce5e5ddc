# SPDX-License-Identifier: Apache-2.0
"""Minutes and hours under load, by `python -m eval stress`, and how often nothing was wrong."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures import faults
from scripts.figures.accuracy import (
    DEEP_EP,
    FLOAT32_ON_ONE_GPU,
    FOLDER,
    MID_ON_ONE_GPU,
    PAGE,
    TWO_GPUS,
    path,
)
from scripts.figures.claim import Claim, Kept, files
from scripts.figures.exact import EXACT_ON_ONE_GPU
from scripts.figures.exact import RUNS as EXACT
from scripts.figures.rounding import plain, whole

STRESS = f"{FOLDER}/stress/stress.json"
DELAYED = f"{FOLDER}/stress-delayed/stress.json"
HOUR = faults.SOAK
MINUTES = f"{FOLDER}/soak-h200x2/soak.json"
EIGHT_MINUTES = f"{FOLDER}/soak-h200x2/eight-minutes.json"
SOAK_OF_ONE_GPU = f"{FOLDER}/soak-h200x1/soak.json"
RELEASES = f"{FOLDER}/rearrangements.json"

ON_ONE_GPU = (*FLOAT32_ON_ONE_GPU, *MID_ON_ONE_GPU)
"""Those of gsm-tiny in bfloat16 are of older commits, and not counted."""

GROWTHS = {
    "gpu_growth_mib": "GPU memory {} MiB",
    "thread_growth": "threads {}",
    "descriptor_growth": "open files {}",
    "shared_growth_mib": "/dev/shm {}",
}
"""What may grow, by its name in a file."""
SOAKS = {
    HOUR: ("thread_growth", "descriptor_growth", "shared_growth_mib"),
    MINUTES: ("gpu_growth_mib",),
    EIGHT_MINUTES: tuple(GROWTHS),
    SOAK_OF_ONE_GPU: tuple(GROWTHS),
}
"""What the page says of each."""

OF_BEFORE = 264
"""Of the server without reloads, which was not kept."""
OF_FAULTS = 1129
"""While faults struck; what is kept of them does not count rearrangements."""


def claims(kept: Kept) -> Iterator[Claim]:
    """What docs/evidence says."""
    yield Claim(PAGE, STRESS, under_load(kept.read(STRESS)))
    yield Claim(PAGE, DELAYED, under_load(kept.read(DELAYED)))
    for file, growths in SOAKS.items():
        (arm,) = kept.read(file)["arms"]
        yield Claim(PAGE, file, soak(arm))
        yield Claim(PAGE, file, f"| {grew(arm['memory'], growths)} |")
    yield from nothing_wrong(kept)


def under_load(stress: dict[str, Any]) -> str:
    """One sentence of what a run saw."""
    seen = stress["evidence"]
    return (
        f"{whole(stress['seconds'])} s, {seen['rearrangements']} rearrangements, "
        f"{seen['weight_mismatches']} of {seen['weight_checks']} slots and "
        f"{seen['map_mismatches']} of {seen['map_checks']} experts' maps wrong, "
        f"GPU memory +{whole(stress['gpu_growth_mib'])} MiB, "
        f"host memory +{whole(stress['host_growth_mib'])} MiB"
    )


def soak(arm: dict[str, Any]) -> str:
    """The cells of a row behind those of the machine, but for the last."""
    wrong = arm["weight_mismatches"] + arm["map_mismatches"]
    answers = arm["trial"]["same_answers"]
    differ = f"{answers['different']} differ"
    happened = Counter(one["what"] for one in arm["trial"]["happenings"])
    return (
        f"| {plain(whole(arm['rearrangements']))} "
        f"| {whole(arm['weight_checks'])}, {whole(arm['map_checks'])} "
        f"| {f'**{wrong} slots**' if wrong else 0} "
        f"| {answers['asked']}, {f'**{differ}**' if answers['different'] else differ} "
        f"| {happened['rank stopped']}, {happened['reload']}"
    )


def grew(memory: dict[str, Any], growths: tuple[str, ...]) -> str:
    """By how much each of these had grown at the end."""
    return ", ".join(GROWTHS[one].format(whole(memory[one])) for one in growths)


class Counted(NamedTuple):
    """How often nothing was wrong after a rearrangement, by where that was seen."""

    hour: int
    eight_minutes: int
    one_gpu: int
    newest: int
    two_gpus: int
    cpu: int
    releases: int

    def on_gpus(self) -> int:
        """Those on H100 and H200."""
        return self.eight_minutes + self.one_gpu + self.newest + self.two_gpus + OF_BEFORE

    def total(self) -> int:
        """With those of which no file is kept."""
        return sum(self) + OF_BEFORE + OF_FAULTS


def counted(kept: Kept) -> Counted:
    """All of docs/evidence."""
    two = {run.folder: rearrangements(kept.read(path(run))) for run in TWO_GPUS}
    alone = sum(rearrangements(kept.read(path(run))) for run in ON_ONE_GPU)
    exact = {run.file: rearrangements(kept.read(f"{FOLDER}/{run.file}")) for run in EXACT}
    alone += exact.pop(EXACT_ON_ONE_GPU)
    return Counted(
        hour=rearrangements(kept.read(HOUR)),
        eight_minutes=rearrangements(kept.read(EIGHT_MINUTES)),
        one_gpu=rearrangements(kept.read(SOAK_OF_ONE_GPU)) + alone,
        newest=sum(one for name, one in (two | exact).items() if "-0.33.0" in name)
        + rearrangements(kept.read(path(DEEP_EP))),
        two_gpus=sum(one for name, one in two.items() if "-0.26.0" in name),
        cpu=sum(one for name, one in exact.items() if "-cpu-" in name),
        releases=kept.read(RELEASES)["rearrangements"],
    )


def counted_from() -> str:
    """Name the files behind the total."""
    runs = (
        *(path(run) for run in (*TWO_GPUS, DEEP_EP, *ON_ONE_GPU)),
        *(f"{FOLDER}/{run.file}" for run in EXACT),
    )
    return files(HOUR, EIGHT_MINUTES, SOAK_OF_ONE_GPU, RELEASES, faults.FILE, *runs)


def nothing_wrong(kept: Kept) -> Iterator[Claim]:
    """The paragraph that adds them up."""
    seen = counted(kept)
    struck = len(kept.read(faults.FILE)["faults"])
    text = (
        f"{whole(seen.total())} rearrangements, after each of which no weight and no map was",
        f"wrong: {whole(seen.hour)} in the soak of an hour,",
        f"{whole(seen.eight_minutes)} and {OF_BEFORE} on two H200, {whole(seen.one_gpu)} on one",
        "(the soak, the runs in float32, of gsm-mid and of exact there),",
        f"{whole(seen.newest)} in the runs of 0.33.0 on two and of exact,",
        f"{whole(seen.two_gpus)} in those of 0.26.0 on two GPUs,",
        f"{whole(seen.cpu)} in those on a CPU,",
        f"{whole(OF_FAULTS)} in [{struck} faults under load](faults-cpu.json) and",
        f"[{whole(seen.releases)}](rearrangements.json) on two ranks of {releases(kept)} releases",
    )
    yield Claim(PAGE, counted_from(), " ".join(text))


def rearrangements(result: dict[str, Any]) -> int:
    """Of all arms whose events tell of them.

    Raises:
        ValueError: Something was wrong in one: then none of it is among those.
    """
    if any(one["weight_mismatches"] or one["map_mismatches"] for one in result["arms"]):
        raise ValueError(f"{result['name']} found something wrong: leave it out of the total")
    return sum(one["rearrangements"] for one in result["arms"])


def releases(kept: Kept) -> int:
    """Of vLLM, on which rearrangements were counted.

    Raises:
        ValueError: The file does not add up, or something was wrong.
    """
    report = kept.read(RELEASES)
    each = [one["rearrangements"] for one in report["counted"]]
    if report["wrong"] or sum(each) != report["rearrangements"]:
        raise ValueError(f"{RELEASES} does not add up: make it anew")
    return len({one["release"] for one in report["counted"]})
