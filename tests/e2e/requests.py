# SPDX-License-Identifier: Apache-2.0
"""Questions to a served gsm-tiny."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.conftest import MODEL, ROOT

QUESTIONS = ROOT / "eval" / "load" / "tasks" / "gsm_tiny" / "test.jsonl"


def answers(url: str) -> list[str]:
    """To the same questions, sixteen at a time."""
    questions = [json.loads(line)["question"] for line in QUESTIONS.open()][:24]
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda question: answer(url, question), questions))


def answer(url: str, question: str) -> str:
    status, said = post(
        url,
        "v1/completions",
        model=str(MODEL),
        prompt=f"Question: {question}\nAnswer:",
        temperature=0,
        max_tokens=48,
    )
    assert status == 200, said
    text: str = json.loads(said)["choices"][0]["text"]
    return text


def post(url: str, path: str, **message: Any) -> tuple[int, str]:
    request = urllib.request.Request(
        f"{url}/{path}",
        json.dumps(message).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
