# SPDX-License-Identifier: Apache-2.0
"""The same few questions again and again, answered greedily: whatever moves, answers stay."""

import asyncio
from collections.abc import Mapping

import httpx
from pydantic import BaseModel, ValidationError

from eval.load.completions import CompletionError, new_client
from eval.results.trial import SameAnswers

QUESTIONS = (
    "Tom has 3 apples and buys 4 more. How many apples does Tom have now?",
    "A farmer has 12 baskets. Each basket holds 5 eggs. How many eggs are there?",
    "Mia reads 20 pages on Monday and twice as many on Tuesday. How many pages in all?",
    "There are 48 chairs in 6 rows. How many chairs are in each row?",
    "Sam had 90 dollars and spent a third of them. How many dollars are left?",
    "A train has 7 wagons with 32 seats each. 100 seats are taken. How many are free?",
)
_TOKENS = 48


class _Choice(BaseModel):
    text: str


class _Completion(BaseModel):
    choices: list[_Choice]


class SameQuestions:
    """Asks them, and compares each answer with the first."""

    def __init__(self, url: str, model: str, headers: Mapping[str, str] | None) -> None:
        """Of one server."""
        self._url, self._model, self._headers = url, model, headers
        self._first: list[str] = []
        self.found = SameAnswers()

    def before(self) -> None:
        """Ask each for the first time, one after another.

        Raises:
            CompletionError: One was not answered.
        """

        async def ask_all() -> None:
            async with new_client(self._url, self._headers, timeout=120) as client:
                self._first = [await self._ask(client, one) for one in QUESTIONS]

        asyncio.run(ask_all())

    async def keep_comparing(self, seconds: float) -> None:
        """Ask one after another, one every so many seconds, until it is cancelled.

        Raises:
            CompletionError: One was not answered.
        """
        async with new_client(self._url, self._headers, timeout=None) as client:
            while True:
                for number in range(len(QUESTIONS)):
                    await self.compare(client, number)
                    await asyncio.sleep(seconds)

    async def compare(self, client: httpx.AsyncClient, number: int) -> None:
        """Ask one of them again.

        Raises:
            CompletionError: It was not answered.
        """
        answer = await self._ask(client, QUESTIONS[number])
        self.found.asked += 1
        if answer != self._first[number]:
            self.found.different += 1
            if self.found.example is None:
                self.found.example = f"{QUESTIONS[number]} {self._first[number]!r} -> {answer!r}"

    async def _ask(self, client: httpx.AsyncClient, question: str) -> str:
        request = {
            "model": self._model,
            "prompt": f"Question: {question}\nAnswer:",
            "max_tokens": _TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        try:
            response = await client.post("/v1/completions", json=request)
            response.raise_for_status()
            return _Completion.model_validate_json(response.content).choices[0].text
        except (httpx.HTTPError, ValidationError, IndexError) as error:
            raise CompletionError(
                f"a question was not answered: {type(error).__name__} {error}"
            ) from error
