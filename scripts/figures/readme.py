# SPDX-License-Identifier: Apache-2.0
"""README's claims, and the numbers in it that come from no file."""

from collections.abc import Iterator

from scripts.figures import commit, stress, switching, throughput, transfer
from scripts.figures.claim import Claim, Kept, files
from scripts.figures.rounding import tenths, thousandths, whole
from scripts.figures.unclaimed import Exempt

PAGE = "README.md"


def claims(kept: Kept) -> Iterator[Claim]:
    """What its first screen says, and the count of what was checked."""
    yield from moving(kept)
    yield layer(kept)
    yield experts(kept)
    yield visible(kept)
    seen = stress.counted(kept)
    text = (
        f"{whole(seen.total())} rearrangements, after each of which every slot of a changed layer "
        f"was checked, {whole(seen.on_gpus())} of them on GPUs"
    )
    yield Claim(PAGE, stress.counted_from(), text)


def moving(kept: Kept) -> Iterator[Claim]:
    """The picture's caption, and the sentence on async mode below it."""
    report = kept.read(switching.FILE)
    sync, other = (switching.arms(report, one) for one in (switching.SYNC, switching.ASYNC))
    stock, plugin = (
        whole(switching.rearrangement_ms(sync[name])) for name in switching.SYNC_ARMS[:2]
    )
    takes = [whole(switching.rearrangement_ms(other[name])) for name in switching.ASYNC_ARMS]
    off, *waits = (
        whole(other[name]["latency"]["between_tokens"]["p99"])
        for name in ("off", *switching.ASYNC_ARMS)
    )
    for text in (
        f"stands still for {stock} ms with vLLM's own, for {plugin} ms with the plugin",
        f"sync EPLB every {switching.INTERVAL} steps",
        f"a rearrangement takes {takes[0]} ms with vLLM's own, {takes[1]} ms with the plugin, "
        f"{takes[2]} ms with its incremental plans; 99 of 100 waits between tokens stay below "
        f"{waits[0]}, {waits[1]} and {waits[2]} ms, and below {off} ms without EPLB",
    ):
        yield Claim(PAGE, switching.FILE, text)


def layer(kept: Kept) -> Claim:
    """All experts of a layer, from rank to rank."""
    ways = transfer.by_way(kept.read(transfer.TWO), transfer.LITE, transfer.WHOLE)
    gloo, nixl, peers = (transfer.layer_ms(ways[way]) for way in ("gloo", "nixl", "peers"))
    return Claim(
        PAGE,
        transfer.TWO,
        f"| experts of one layer, {transfer.megabytes(ways['peers']['nbytes'])} each way "
        f"| {whole(gloo)} ms through the host; {tenths(nixl)} ms where NIXL is installed "
        f"| {tenths(peers)} ms,",
    )


def experts(kept: Kept) -> Claim:
    """Those that move, planned in two ways."""
    result = kept.read(throughput.FILE)
    arms = {one["name"]: one["throughput"] for one in result["arms"]}
    begun = {one["name"]: one["rearrangements"] for one in result["arms"]}
    scratch, incremental = throughput.received(arms)
    return Claim(
        PAGE,
        throughput.FILE,
        f"| experts that move, same load, {throughput.as_many(begun)} rearrangements "
        f"| {scratch}, planned by vLLM's policy | {incremental}, planned",
    )


def visible(kept: Kept) -> Claim:
    """A commit of one layer, on a GPU."""
    found = commit.measured(kept.read(commit.COMMIT[0]), commit.DEEPSEEK_V3, "one layer")
    stock, plugin = (found[side]["host_us"]["median"] / 1e3 for side in ("stock", "plugin"))
    return Claim(
        PAGE,
        files(commit.COMMIT[0]),
        f"DeepSeek-V3, on the thread that runs the model | {tenths(stock)} ms "
        f"| {thousandths(plugin)} ms: one map",
    )


EXEMPT = (
    Exempt("Python 3.11 to 3.14", "what the lock is for"),
    Exempt("10 GB of memory", "what is enough, not what is taken"),
    Exempt("3.2 GB, or 6.3 GB", "seen when the environment was made; nothing keeps it"),
    Exempt("23 releases of vLLM, 2.7 GB", "vllm_eplb_plugin/releases.py, and what was fetched"),
    Exempt("1319 questions of which 5 % flip", "what docs/statistics.md computes with"),
    Exempt("a loss of 3 points 99 times in 100", "what docs/statistics.md computes"),
)
