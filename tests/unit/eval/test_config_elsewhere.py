# SPDX-License-Identifier: Apache-2.0
"""What a configuration may say of servers that run elsewhere."""

from typing import Any

import pytest
from pydantic import ValidationError

from eval.config.elsewhere import same_server
from eval.config.schema import Config
from tests.builders.harness import small_config

URL = "http://10.0.0.1:8000"


def config(*changes: dict[str, Any], **others: Any) -> Config:
    """`small_config` with changes of its arms, in their order."""
    values = small_config(**others)
    for arm, changed in zip(values["arms"], changes, strict=False):
        arm |= changed
    return Config.model_validate(values)


def refused(*changes: dict[str, Any], **others: Any) -> str:
    with pytest.raises(ValidationError) as error:
        config(*changes, **others)
    return str(error.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("10.0.0.1:8000", "must be the address of a server"),
        ("ftp://10.0.0.1", "must be the address of a server"),
        ("http://10.0.0*:8000", "must be the address of a server"),
        ("http://", "must be the address of a server"),
        ("http://10.0.0.1:99999", "must be the address of a server"),
        ("http://10.0.0.1:8000/ a", "must be the address of a server"),
        (f"{URL}?a=b", "must end before ? and #"),
        (f"{URL}/v1/", "must end before /v1"),
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str, said: str) -> None:
    assert said in refused({"url": url})


def test_a_slash_at_the_end_changes_nothing() -> None:
    assert config({"url": f"{URL}/"}).sha256() == config({"url": URL}).sha256()


def test_another_url_is_another_evaluation() -> None:
    digests = {config({"url": url}).sha256() for url in (URL, "http://10.0.0.2:8000")}
    assert len({*digests, config().sha256()}) == 3


def test_what_cannot_be_applied_to_a_server_elsewhere_is_refused() -> None:
    assert "arm off: environment (A) cannot reach a server that runs elsewhere" in refused(
        {"url": URL, "environment": {"A": "1"}}
    )
    assert "arm off: plugin.fault is put into a server when the harness starts it" in refused(
        {"url": URL, "plugin": {"fault": "stale_maps"}}
    )


@pytest.mark.parametrize("key", ["served_model", "events"])
def test_what_is_of_a_server_elsewhere_needs_its_url(key: str) -> None:
    assert f"arm off: {key} is of a server that runs elsewhere: give its url" in refused({key: "x"})


def test_one_server_is_not_two() -> None:
    said = refused({"url": URL}, {"url": "http://somebody:word@10.0.0.1:8000/"})
    assert "arms off and sync have one url, and eplb or plugin of them differ" in said
    arms = [{"name": "off", "url": URL}, {"name": "again", "url": URL}]
    assert not config(arms=arms).starts_servers


def test_two_servers_do_not_write_into_one_folder() -> None:
    said = refused({}, {"url": URL, "events": "e"}, {"url": "http://10.0.0.2", "events": "e"})
    assert "arms sync and async have one folder of events, e" in said


@pytest.mark.parametrize("key", ["executable", "port", "gpu_memory_gib"])
def test_where_nothing_is_started_nothing_says_how(key: str) -> None:
    value = {"executable": "vllm", "port": 8000, "gpu_memory_gib": 1.0}[key]
    options = {"data-parallel-size": 2}
    urls = [{"url": f"http://10.0.0.{number}"} for number in range(3)]
    assert f"serve.{key} is of servers that the harness starts" in refused(
        *urls, serve={key: value, "options": options}
    )
    assert config(*urls[:2], serve={key: value, "options": options}).starts_servers


def test_addresses_are_one_server_s_by_host_port_and_path() -> None:
    assert same_server("http://a", "http://a:80")
    assert same_server(config({"url": "http://[::1]:80"}).arms[0].url or "", "http://[::1]")
    assert same_server("http://u:p@a:80", "http://a:80")
    assert not same_server("http://a", "https://a")
    assert not same_server("http://a/x", "http://a/y")
