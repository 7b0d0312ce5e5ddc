# SPDX-License-Identifier: Apache-2.0
"""What a server answers to a question, and where a question goes."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from eval.load.batches import Asked, Batches
from eval.load.question_client import Completions, RequestError
from eval.results.samples import Tokens
from tests.builders.http_server import Request, answering, response


class Instance(NamedTuple):
    """Of lm-eval's, what is used."""

    doc_id: int
    args: tuple[str, dict[str, object]]


def instances(count: int) -> list[Instance]:
    settings: dict[str, object] = {"until": ["\n\n"], "max_gen_toks": 8}
    return [Instance(number, ("prompt" * (number + 1), settings)) for number in range(count)]


def ask(
    url: str, concurrency: int = 1, headers: dict[str, str] | None = None, count: int = 3
) -> list[str]:
    client = Completions("mine", url, headers or {}, concurrency, timeout=5, seed=1)
    return client.generate_until(instances(count), disable_tqdm=True)


def completion(*choices: object, **more: object) -> bytes:
    return response(json.dumps({"choices": choices, **more}).encode())


def echo(request: Request) -> bytes:
    return completion({"text": str(len(json.loads(request.body)["prompt"]))})


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_answers_are_in_the_order_of_the_questions(concurrency: int) -> None:
    with answering(echo) as server:
        assert ask(server.url, concurrency, count=5) == ["6", "12", "18", "24", "30"]

    sent = [json.loads(request.body) for request in server.requests]
    assert sent[0] == {
        "prompt": sent[0]["prompt"], "model": "mine", "max_tokens": 8, "temperature": 0,
        "stop": ["\n\n"], "seed": 1,
    }  # fmt: skip
    if concurrency == 1:
        # As lm-eval does: what needs most memory comes first.
        assert [len(one["prompt"]) for one in sent] == [30, 24, 18, 12, 6]


def test_batches_are_asked_one_after_another_until_there_is_enough() -> None:
    seen: list[Asked] = []

    def enough(asked: Asked) -> bool:
        seen.append(asked)
        return len(asked.texts) == 4

    with answering(echo) as server:
        client = Completions("mine", server.url, {}, 1, 5, seed=1, batches=Batches(2, enough))
        texts = client.generate_until(instances(7), disable_tqdm=True)

    assert texts == ["6", "12", "18", "24", "", "", ""]
    sent = [len(json.loads(request.body)["prompt"]) for request in server.requests]
    assert sent == [12, 6, 24, 18]
    assert [one.texts for one in seen] == [["6", "12"], ["6", "12", "18", "24"]]
    assert seen[0].started < seen[0].finished < seen[1].finished
    assert client.asked == seen[1]


def test_nobody_is_asked_whether_the_last_batch_was_enough() -> None:
    def never(asked: Asked) -> bool:
        assert len(asked.texts) < 3
        return False

    with answering(echo) as server:
        client = Completions("mine", server.url, {}, 1, 5, seed=1, batches=Batches(2, never))
        assert client.generate_until(instances(3), disable_tqdm=True) == ["6", "12", "18"]


def with_logprobs(**of_tokens: object) -> bytes:
    return completion({"text": "ab", "logprobs": {"top_logprobs": [None, None], **of_tokens}})


def test_tokens_are_kept_with_all_the_bits_of_their_probabilities() -> None:
    logprobs = [-0.1234567873716354, -9999.0]
    sent = with_logprobs(tokens=["token_id:7", "token_id:0"], token_logprobs=logprobs)
    with answering(sent) as server:
        client = Completions("mine", server.url, {}, 1, timeout=5, seed=1, logprobs=True)
        assert client.generate_until(instances(2), disable_tqdm=True) == ["ab", "ab"]

    asked = json.loads(server.requests[0].body)
    assert (asked["logprobs"], asked["return_tokens_as_token_ids"]) == (0, True)
    assert client.tokens == {n: Tokens(ids=[7, 0], logprobs=logprobs) for n in (0, 1)}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (completion({"text": "ab"}), "no logprobs, and tasks.logprobs asks for them"),
        (with_logprobs(tokens=["a"], token_logprobs=[-1.0]), "invalid literal for int()"),
        (with_logprobs(tokens=["token_id:7"], token_logprobs=[]), "1 tokens and 0 probabilities"),
        (with_logprobs(tokens=["token_id:7"], token_logprobs=[None]), "token_logprobs.0: "),
    ],
)
def test_an_answer_without_its_tokens_is_none(answer: bytes, said: str) -> None:
    with answering(answer) as server, pytest.raises(RequestError) as raised:
        client = Completions("mine", server.url, {}, 1, timeout=5, seed=1, logprobs=True)
        client.generate_until(instances(1), disable_tqdm=True)
    assert said in str(raised.value)


def test_an_empty_answer_is_kept_as_it_is() -> None:
    with answering(completion({"text": ""})) as server:
        assert ask(server.url) == ["", "", ""]


@pytest.mark.parametrize(
    ("answer", "happened", "said"),
    [
        (response(b""), "cannot be read", "and nothing else"),
        (response(b"Hello"), "cannot be read", "Hello"),
        (response(b"{}"), "cannot be read", "choices: Field required"),
        (response(b"[]"), "cannot be read", "object"),
        (response(b"null"), "cannot be read", "object"),
        (response(b'{"choices": null}'), "cannot be read", "choices: "),
        (completion(), "cannot be read", "choices: List should have at least 1 item"),
        (completion({"text": "a"}, {"text": "b"}), "cannot be read", "at most 1 item"),
        (completion({"text": None}), "cannot be read", "choices.0.text: "),
        (completion({"text": 3}), "cannot be read", "choices.0.text: "),
        (completion({"message": {}}), "cannot be read", "choices.0.text: Field required"),
        (response(rb'{"choices": [{"text": "\ud800"}]}'), "cannot be read", "hex escape"),
        (response(b'{"choices": [{"text": "\xff"}]}'), "cannot be read", "unicode"),
        (response(b'{"choices": [{"text": "a', content_length="99"), "stopped", "RemoteProtocol"),
        (response(b'{"choices": [{"text": "a"}]}', content_length="9"), "cannot be read", "EOF"),
        (response(b"a" * (2**24 + 1)), "cannot be read", "more than 16 MiB"),
        (completion({"text": "a", "finish_reason": "abort"}), "stopped", "'abort'"),
        (response(b'{"error": {"message": "x"}}'), "cannot be read", '{"error": {"message": "x"}}'),
        (response(b"busy", "429 Too Many Requests"), "refused", "429 Too Many Requests: busy"),
        (response(b"", "503 Service Unavailable"), "failed", "503 Service Unavailable"),
        (response(b"x" * 999, "500 Internal Server Error"), "failed", "xxx..."),
        (response(b"", "299 Odd"), "refused", "status 299"),
        (response(b"", "401 Unauthorized"), "wants an API key", "401"),
        (response(b"", "404 Not Found"), "another one may answer", "404"),
        (b"no HTTP at all\r\n\r\n", "stopped answering", "RemoteProtocolError"),
        (b"", "stopped answering", "RemoteProtocolError"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told_with_its_question(
    answer: bytes, happened: str, said: str
) -> None:
    for concurrency in (1, 3):
        with answering(answer) as server, pytest.raises(RequestError) as raised:
            ask(server.url, concurrency)
        assert happened in raised.value.happened
        assert str(raised.value).startswith("question ")
        assert said in str(raised.value)
        assert len(str(raised.value)) < 500


@pytest.fixture
def tempted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """With keys and passwords of others in the environment."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_proxy_sees_a_question(
    variable: str, concurrency: int, tempted: pytest.MonkeyPatch
) -> None:
    with answering(echo) as proxy, answering(echo) as server:
        tempted.setenv(variable, proxy.url)
        ask(server.url, concurrency)

    assert proxy.requests == []
    assert len(server.requests) == 3


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer ours"}])
def test_only_the_server_s_own_key_is_sent(
    headers: dict[str, str], tempted: pytest.MonkeyPatch
) -> None:
    with answering(echo) as server:
        ask(server.url, 2, headers)

    assert {request.headers.get("Authorization") for request in server.requests} == {
        headers.get("Authorization")
    }


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed(status: str) -> None:
    with answering(echo) as elsewhere:
        moved = response(b"", status, Location=f"{elsewhere.url}/v1/completions")
        with answering(moved) as server, pytest.raises(RequestError, match=status[:3]):
            ask(server.url)

    assert elsewhere.requests == []
