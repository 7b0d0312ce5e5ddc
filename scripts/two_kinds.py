# SPDX-License-Identifier: Apache-2.0
"""Ask a served gsm-tiny two kinds of questions in turns, so that the load of its experts changes.

Word problems are what it was trained on; columns of sums go by other experts.

    python scripts/two_kinds.py http://127.0.0.1:8000
"""

import argparse
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.gsm_tiny_problems import problems

_LINES = 6
"""Of a column of sums."""


def word_problems(seed: int) -> Iterator[str]:
    """Prompts without end, each with one solved problem; the same for the same seed."""
    asked = problems("held_out", seed)
    for solved, problem in zip(asked, asked, strict=False):
        yield (
            f"Question: {solved.question}\nAnswer: {solved.answer}\n\n"
            f"Question: {problem.question}\nAnswer:"
        )


def columns_of_sums(seed: int) -> Iterator[str]:
    """Prompts without end, lines as in gsm-tiny's answers; the same for the same seed."""
    choose = random.Random(seed)
    while True:
        numbers = (choose.choices(range(10, 1000), k=2) for _ in range(_LINES))
        yield "".join(f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}\n" for a, b in numbers)


def ask(url: str, turns: int, prompts: int, at_once: int, tokens: int) -> None:
    """Let a server complete prompts of one kind, then of the other, and so on.

    Args:
        url: The server's.
        turns: How often a kind follows the other.
        prompts: Of each turn.
        at_once: Requests under way at the same time.
        tokens: Most of a completion.

    Raises:
        httpx.HTTPError: It does not answer, or not with 200.
    """
    kinds = {"word problems": word_problems(0), "columns of sums": columns_of_sums(0)}
    # vLLM closes a connection that has been idle for as long as this client would keep it.
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        httpx.Client(base_url=url, timeout=600, trust_env=False, limits=limits) as client,
        ThreadPoolExecutor(at_once) as pool,
    ):
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]

        def complete(prompt: str) -> None:
            message = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
            client.post("/v1/completions", json=message).raise_for_status()

        for turn in range(turns):
            kind, source = list(kinds.items())[turn % len(kinds)]
            for _ in pool.map(complete, islice(source, prompts)):
                pass
            print(f"turn {turn + 1} of {turns}: {prompts} {kind}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Ask; 2 when the server cannot be asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--turns", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--prompts", type=int, default=200, help="of a turn, default: %(default)s")
    parser.add_argument("--at-once", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    try:
        ask(chosen.url, chosen.turns, chosen.prompts, chosen.at_once, chosen.tokens)
    except httpx.HTTPError as error:
        print(f"two_kinds: {chosen.url}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
