# SPDX-License-Identifier: Apache-2.0
"""An option of vLLM means to the harness what it means to vLLM, or it is refused."""

from typing import Any

import pytest

from eval.config.serve_section import Serve
from eval.config.vllm_options import check_options

EPLB = "is to vLLM the beginning of 'enable-eplb'"
HOST = "is to vLLM the beginning of 'host'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("host", "'host' is set by the harness: servers listen on 127.0.0.1 only"),
        ("hos", HOST),
        ("h", "is to vLLM the beginning of"),
        ("enable-epl", EPLB),
        ("enable_epl", EPLB),
        ("enable-", "is no name of an option"),
        ("enable-e", EPLB),
        ("no-enable-epl", EPLB),
        ("disable-epl", EPLB),
        ("disable-eplb", "is set by the harness: use eplb of an arm"),
        ("no-enable-eplb", "is set by the harness: use eplb of an arm"),
        ("no_disable_eplb", "is set by the harness: use eplb of an arm"),
        ("eplb-config.window_size", "is set by the harness: use eplb of an arm"),
        ("eplb-conf.window_size", "is to vLLM the beginning of 'eplb-config'"),
        ("additional_config.eplb_plugin.enabled", "is set by the harness: use plugin"),
        ("additional.eplb_plugin", "is to vLLM the beginning of 'additional-config'"),
        ("config", "'config' is set by the harness: write what is in that file"),
        ("conf", "is to vLLM the beginning of 'config'"),
        ("served-model", "is to vLLM the beginning of 'served-model-name'"),
        ("mode", "is to vLLM the beginning of 'model'"),
        ("uds", "is set by the harness: servers listen on 127.0.0.1, with HTTP"),
        ("ssl-keyfile", "with HTTP"),
        ("ssl", "with HTTP"),
        ("root-path", "is set by the harness"),
        ("headless", "is set by the harness"),
        ("tensor-parallel", "is to vLLM the beginning of 'tensor-parallel-size': write it in full"),
        ("data_parallel", "is to vLLM the beginning of 'data-parallel-size': write it in full"),
        ("data-parallel-size-l", "is to vLLM the beginning of 'data-parallel-size-local'"),
        ("all2all", "is to vLLM the beginning of 'all2all-backend': write it in full"),
        ("dty", "is to vLLM the beginning of 'dtype'"),
        ("-tp", "is no name of an option: write it in full"),
        ("--host", "is no name of an option"),
        ("HOST", "is no name of an option"),
        ("hos=0.0.0.0", "is no name of an option"),
        ("host 0.0.0.0", "is no name of an option"),
        ("seed\n--host", "is no name of an option"),
        ("", "is no name of an option"),
    ],
)
def test_however_it_is_spelt_an_option_of_the_harness_stays_its_own(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError) as error:
        check_options({name: True})

    assert message in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("enable-expert-parallel", "no-enable-expert-parallel", "disable-expert-parallel"),
        *("data-parallel-size", "data_parallel_size_local", "model-impl", "generation-config"),
        *("api-key", "api-server-count", "port-range", "hf-overrides.text_config.hidden_size"),
        *("max-model-len", "compilation-config.pass_config.fuse_x", "allowed-origins.a+"),
    ],
)
def test_other_options_are_vllm_s(name: str) -> None:
    check_options({name: 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enforce-eager": "--enable-eplb"}, "'--enable-eplb', which vLLM would take for an opt"),
        ({"lora-modules": ["a", "--host", "0.0.0.0"]}, "'--host', which vLLM would take"),
        ({"dtype": "-tp"}, "which vLLM would take for an option"),
        ({"data-parallel-size": 2, "data_parallel_size": 4}, "are the same option"),
        ({"hf-overrides": '{"a": 1, "a": 2}'}, "'hf-overrides': the key 'a' stands twice"),
        ({"compilation-config": '{"mode": 0'}, "'compilation-config' is not JSON"),
        ({"data-parallel-size": 0}, "at least 1, not 0"),
        ({"tensor_parallel_size": -2}, "at least 1, not -2"),
        ({"pipeline-parallel-size": True}, "at least 1, not True"),
        ({"pipeline-parallel-size": 2.0}, "at least 1, not 2.0"),
        ({"decode-context-parallel-size": "2"}, "at least 1, not '2'"),
        ({"data-parallel-size-local": -1}, "at least 0, not -1"),
    ],
)
def test_a_value_that_vllm_would_read_otherwise_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        check_options(options)

    assert message in str(error.value)


def test_values_that_only_look_like_options_are_passed_on() -> None:
    check_options({"seed": -1, "x": "-1", "y": "-.5", "chat-template": "{{ a }}", "z": None})


def test_ranks_and_gpus_are_counted_by_all_their_dimensions() -> None:
    serve = Serve(options={"data_parallel_size": 2, "prefill-context-parallel-size": 3})
    assert (serve.ranks, serve.gpus()) == (6, 6)
    serve = Serve(options={"tensor-parallel-size": 2, "pipeline_parallel_size": 2})
    assert (serve.ranks, serve.gpus()) == (2, 4)
    serve = Serve(options={"data-parallel-size": 8, "data-parallel-size-local": 2})
    assert (serve.ranks, serve.gpus()) == (8, 2)
