# SPDX-License-Identifier: Apache-2.0
"""README's claims, and the numbers in it that come from no file."""

from collections.abc import Iterator

from scripts.figures import commit, latency, switching, transfer
from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import tenths, whole
from scripts.figures.unclaimed import Exempt

PAGE = "README.md"


def claims(kept: Kept) -> Iterator[Claim]:
    """The tables under "What it costs"."""
    yield from moving_weights(kept)
    yield from commit.commit_rows(kept, PAGE)
    yield commit.memory_row(kept, PAGE)
    yield commit.plan_row(kept, PAGE)
    yield latency.shape(kept, PAGE)
    yield from latency.user_rows(kept, PAGE)
    yield from latency.user_sentences(kept, PAGE)


def moving_weights(kept: Kept) -> Iterator[Claim]:
    """The first table, and the line above it."""
    report = kept.read(switching.FILE)
    sync, other = (switching.arms(report, one) for one in (switching.SYNC, switching.ASYNC))
    moved = switching.share_of_slots(report, sync["sync"])
    texts = (
        f"moves {whole(100 * moved)} % of the slots every {switching.INTERVAL} steps",
        row(
            "a sync rearrangement, in which the model stands still",
            *(f"{ms} ms" for ms in switching.rearrangements_ms(sync, switching.SYNC_ARMS)),
        ),
        row(
            "all completions, times as long as without EPLB",
            *switching.ratios(sync, switching.SYNC_ARMS),
        ),
        row(
            "an async rearrangement",
            *(
                f"{whole(switching.rearrangement_ms(other[name]))} ms"
                for name in switching.ASYNC_ARMS
            ),
        ),
    )
    for text in texts:
        yield Claim(PAGE, switching.FILE, text)
    yield Claim(PAGE, transfer.TWO, layer_row(kept))


def layer_row(kept: Kept) -> str:
    """All experts of a layer, from rank to rank."""
    ways = transfer.by_way(kept.read(transfer.TWO), transfer.LITE, transfer.WHOLE)
    gloo, nixl, peers = (transfer.layer_ms(ways[way]) for way in ("gloo", "nixl", "peers"))
    return row(
        f"all experts of one layer ({transfer.megabytes(ways['peers']['nbytes'])} each way)",
        f"{whole(gloo)} ms; with NIXL {tenths(nixl)} ms",
        f"{tenths(peers)} ms, {tenths(1 / ways['peers']['share_of_floor'])} times the least "
        "that the link and the memory allow",
        "",
    )


EXEMPT = (
    Exempt("Python 3.11 to 3.14", "what the lock is for"),
    Exempt("10 GB of memory", "what is enough, not what is taken"),
    Exempt("3.2 GB, or 6.3 GB", "seen when the environment was made; nothing keeps it"),
    Exempt("23 releases of vLLM, 2.7 GB", "vllm_eplb_plugin/releases.py, and what was fetched"),
    Exempt("1319 questions of which 5 % flip", "what docs/statistics.md computes with"),
    Exempt("a loss of 3 points 99 times in 100", "what docs/statistics.md computes"),
    Exempt("vLLM 0.18 itself", "a release"),
    Exempt("below 15 %", "judged from two runs of the same arm, 8.2 s and 7.2 s"),
)
