# SPDX-License-Identifier: Apache-2.0
"""Ask a served model kinds of questions in turns, so that the load of its experts changes.

Word problems are what gsm-tiny was trained on; columns of sums go by other experts. Of gsm-mid,
which also learned them, code and prose:

    python scripts/ask_in_turns.py http://127.0.0.1:8000
    python scripts/ask_in_turns.py http://127.0.0.1:8000 --kinds problems code prose
"""

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.gsm_tiny_problems import problems

_LINES = 6
"""Of a column of sums."""
_PASSAGE = 600
"""Characters of a passage."""
KINDS = ("problems", "sums", "code", "prose")


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


def passages(texts: Sequence[str], seed: int) -> Iterator[str]:
    """Parts of texts without end, each from the beginning of a line; the same for the same seed."""
    choose = random.Random(seed)
    while True:
        text = choose.choice(texts)
        start = choose.randint(0, max(0, len(text) - _PASSAGE))
        if start:
            start = text.find("\n", start - 1, start + _PASSAGE - 1) + 1 or start
        yield text[start : start + _PASSAGE]


def prompts_of(kind: str) -> Iterator[str]:
    """Prompts of one of `KINDS`, without end; code and prose as gsm-mid was not trained on it."""
    if kind == "problems":
        return word_problems(0)
    if kind == "sums":
        return columns_of_sums(0)
    import gsm_mid_texts

    found = gsm_mid_texts.code() if kind == "code" else gsm_mid_texts.prose()
    return passages([text.content for text in found if gsm_mid_texts.is_held_out(text)], 0)


def ask(
    url: str,
    kinds: Mapping[str, Iterator[str]],
    turns: int,
    prompts: int,
    at_once: int,
    tokens: int,
) -> None:
    """Let a server complete prompts of one kind, then of the next, and so on.

    Args:
        url: The server's.
        kinds: Prompts without end, by name.
        turns: Of all kinds together.
        prompts: Of each turn.
        at_once: Requests under way at the same time.
        tokens: Most of a completion.

    Raises:
        httpx.HTTPError: It does not answer, or not with 200.
    """
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
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS[:2], help="default: problems sums"
    )
    parser.add_argument("--turns", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--prompts", type=int, default=200, help="of a turn, default: %(default)s")
    parser.add_argument("--at-once", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    kinds = {kind: prompts_of(kind) for kind in chosen.kinds}
    try:
        ask(chosen.url, kinds, chosen.turns, chosen.prompts, chosen.at_once, chosen.tokens)
    except httpx.HTTPError as error:
        print(f"ask_in_turns: {chosen.url}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
