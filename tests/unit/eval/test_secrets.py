# SPDX-License-Identifier: Apache-2.0
"""Secrets are known by name and hidden by value."""

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from eval.config.schema import Config
from eval.secrets import HIDDEN, SHORTEST, Secrets, is_secret_name
from tests.builders.harness import small_config

CANARY = "sk-\"canary'/é\\+<1>"


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "api-key",
        "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "api_key", "apiKey",
        "hf-token", "PGPASSWORD", "GITHUB_TOKEN_2", "DB_PASSWD", "Authorization", "API_KEYS",
        "client-secret", "GOOGLE_CREDENTIALS", "SECRET",
    ],
)  # fmt: skip
def test_a_secret_is_known_by_the_name_of_what_holds_it(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM", "max-num-batched-tokens", "PWD", "SSH_AUTH_SOCK", "max_tokens",
        "eos_token", "tokenizer", "kv-cache-dtype", "PASSWORD_FILE", "HF_TOKEN_PATH", "keyring",
        "VLLM_CPU_KVCACHE_SPACE", "monkey", "ssl-keyfile", "PATH", "", "_",
    ],
)  # fmt: skip
def test_other_names_hold_no_secret(name: str) -> None:
    assert not is_secret_name(name)


def knowing(**settings: object) -> Secrets:
    secrets = Secrets()
    secrets.learn(settings)
    return secrets


@pytest.mark.parametrize(
    "written",
    [
        str, repr, json.dumps, quote, html.escape,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(json.dumps({"environment": value})),
        lambda value: quote(value, safe=""),
    ],
)  # fmt: skip
def test_a_value_is_hidden_however_it_is_written(written: object) -> None:
    assert callable(written)
    hidden = knowing(HF_TOKEN=CANARY).hide(f"before {written(CANARY)} after")

    assert "canary" not in hidden
    assert hidden.startswith("before ") and hidden.endswith(" after")


def test_the_password_of_a_url_is_hidden_and_what_is_sent_for_it() -> None:
    secrets = knowing(
        http_proxy="http://me:pa%2Fss-word@proxy:8080", HF_ENDPOINT="https://tok3n-abc@hub"
    )

    for text in ("http://me:pa%2Fss-word@proxy:8080", "pa/ss-word", "https://tok3n-abc@hub"):
        assert HIDDEN in secrets.hide(text)
    basic = base64.b64encode(b"me:pa/ss-word").decode()
    assert secrets.hide(f"Authorization: Basic {basic}") == f"Authorization: Basic {HIDDEN}"
    # Whoever's it is.
    assert Secrets().hide("at http://you:other@host/x") == f"at http://{HIDDEN}@host/x"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc", "{'Authorization': 'Bearer sk-unknown'}",
        '--set serve.environment.HF_TOKEN=hf_unknown: bad', "password: hunter2",
        "  VLLM_API_KEY: sk-unknown", "{'api_key': ['sk-unknown']}", '"api-key": "sk-unknown"',
    ],
)  # fmt: skip
def test_what_follows_the_name_of_a_secret_is_hidden_though_nobody_knows_it(text: str) -> None:
    hidden = Secrets().hide(text)

    assert HIDDEN in hidden
    assert not any(value in hidden for value in ("abc", "unknown", "hunter2"))


def test_a_short_value_is_hidden_after_a_name_only() -> None:
    secrets = knowing(serve={"options": {"api-key": ["abc", 12]}})

    for text in ("VLLM_API_KEY=abc", "'api_key': ['abc']", '["--api-key", "abc"]', "token 12"):
        assert HIDDEN in secrets.hide(text), text
    assert secrets.hide("abc, 12 apples of abcde") == "abc, 12 apples of abcde"


def test_a_private_key_is_hidden_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nAQEFAASCBKcwggSjAgEAAo\n-----END KEY-----"
    assert knowing(SSH_PRIVATE_KEY=key).hide("MIIEvQIBADANBgkqhkiG9w0\n") == f"{HIDDEN}\n"


def test_what_is_no_secret_stays() -> None:
    text = "eos_token='</s>', max_num_batched_tokens=8192, Basic understanding, git@host, Bearer of"
    assert knowing(HF_TOKEN="").hide(text) == text


def test_settings_lose_secrets_by_name_and_in_every_text() -> None:
    secrets = knowing(VLLM_API_KEY="sk-canary-1")
    settings = {
        "options": {"api-key": ["ab", "cd"], "hf-token": True, "seed": 3, "x": {"password": 7}},
        "environment": {"OTHER": "is sk-canary-1"},
    }
    assert secrets.hide_in(settings) == {
        "options": {
            "api-key": [HIDDEN] * 2,
            "hf-token": True,
            "seed": 3,
            "x": {"password": HIDDEN},
        },
        "environment": {"OTHER": f"is {HIDDEN}"},
    }


def test_a_model_without_secrets_stays_what_it_was() -> None:
    class Small(BaseModel):
        name: str
        numbers: list[int]

    model = Small(name="small", numbers=[1])
    assert knowing(HF_TOKEN="hf_canary").hide_in_model(model) == model


def test_a_command_loses_the_values_of_options_that_hold_secrets() -> None:
    command = ["vllm", "serve", "--api-key", "ab", "cd", "--seed", "3", "--x", '{"password": "a"}']
    assert Secrets().hide_in_command(command) == [
        "vllm", "serve", "--api-key", HIDDEN, HIDDEN, "--seed", "3", "--x",
        f'{{"password": "{HIDDEN}"}}',
    ]  # fmt: skip


def config(key: str, seed: int = 0) -> Config:
    serve = {"options": {"api-key": key, "seed": seed, "data-parallel-size": 2}}
    return Config.model_validate(small_config(serve=serve))


def test_the_digest_of_a_configuration_tells_of_everything_but_secrets() -> None:
    assert config("abc").sha256() == config("another").sha256()
    assert config("abc").sha256() != config("abc", seed=1).sha256()
    kept = Secrets().hide_in_model(config("abc"))
    assert "abc" not in kept.model_dump_json()
    assert kept.sha256() == config("abc").sha256()


@given(st.text(min_size=SHORTEST), st.text(), st.text())
def test_no_value_survives_and_hiding_twice_changes_nothing(
    value: str, before: str, after: str
) -> None:
    secrets = knowing(API_KEY=value)
    hidden = secrets.hide(f"{before}{value}{after}")

    assert value in HIDDEN or value in before + after or value not in hidden.replace(HIDDEN, "\0")
    assert secrets.hide(hidden) == hidden


def test_a_value_in_base64_is_hidden() -> None:
    coded = base64.b64encode(b"sup3rs3cretvalue").decode()

    assert Secrets(["sup3rs3cretvalue"]).hide(f"sent {coded}") == "sent (hidden)"


@pytest.mark.parametrize("name", ["MYTOKEN", "DB_PASS", "DBPASS"])
def test_names_written_together_are_known(name: str) -> None:
    assert is_secret_name(name)
