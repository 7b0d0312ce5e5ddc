# SPDX-License-Identifier: Apache-2.0
"""Runs of ``python -m eval`` whose servers run elsewhere and are only asked."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.builders.elsewhere import deployments, running, url_config
from tests.builders.harness import Harness, small_config


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """Its runs come to their end by themselves."""
    return forked_harness


def rules_of(result: dict[str, Any], arm: str) -> dict[str, str]:
    return {one["rule"]: one["verdict"] for one in result["rules"] if one["arm"] == arm}


def test_a_run_over_url_only_passes_by_the_events_of_its_servers(harness: Harness) -> None:
    # Nothing of a vLLM is needed here.
    harness.executable.unlink()
    with deployments(harness.folder, "off", "sync", "async") as servers:
        config = url_config(servers, events=harness.folder / "events")
        ended = harness.run(config=config)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = harness.result()
    assert (result["verdict"], result["reasons"]) == ("passed", [])
    off, sync, async_ = result["arms"]
    for arm in (sync, async_):
        assert arm["rearrangements"] == 6
        assert arm["elsewhere"]["witness"] == "events"
        assert (arm["start_seconds"], arm["command"], arm["log"]) == (None, [], "")
        assert arm["tokens_per_second"] * arm["seconds"] == pytest.approx(120)
    assert off["elsewhere"]["witness"] == "metrics"
    assert rules_of(result, "async")["ranks_agree"] == "passed"
    assert result["versions"]["vllm"] is None
    assert f"arm async at {servers['async'].url} (vLLM 0.33.0)" in ended.stdout
    report = (harness.folder / "runs/small/report.md").read_text(encoding="utf-8")
    assert "Served elsewhere: arm off at http" in report
    again = harness.evaluate("gate", "runs/small")
    assert again.returncode == 0, again.stdout + again.stderr


def test_metrics_are_evidence_of_what_they_tell_and_of_nothing_else(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        ended = harness.run(config=url_config(servers))

    assert ended.returncode == 3, ended.stdout + ended.stderr
    # Before hours went into asking.
    told = "arm async, events: no folder is named, so rules that need them are not tested"
    assert told in ended.stdout.partition("asking")[0]
    result = harness.result()
    assert rules_of(result, "off")["no_rearrangements"] == "passed"
    found = rules_of(result, "async")
    told = ("rearrangements", "no_stall", "no_failed_rearrangements", "mode")
    assert {found[name] for name in (*told, "no_rejected_placements")} == {"passed"}
    not_told = ("ranks_agree", "slots_changed", "weights", "maps")
    assert {found[name] for name in not_told} == {"not tested"}
    async_ = result["arms"][1]
    assert (async_["rearrangements"], async_["rearrangements_started"]) == (6, 6)
    assert (async_["elsewhere"]["witness"], async_["modes"]) == ("metrics", ["async"])
    [note] = result["notes"]
    assert note.startswith(f"arm async runs elsewhere, at {servers['async'].url}: its EPLB is")
    assert "judged by its /metrics, because it names no folder of events" in note
    assert note.endswith("Not tested for that: ranks_agree, slots_changed, weights, maps")
    again = harness.evaluate("gate", "runs/small")
    assert again.returncode == 3, again.stdout + again.stderr
    assert "24 experts went to another rank" in again.stdout


@pytest.mark.parametrize(
    ("outcome", "rule"),
    [("failed", "no_failed_rearrangements"), ("rejected", "no_rejected_placements")],
)
def test_what_went_wrong_before_the_questions_counts_in_metrics_too(
    outcome: str, rule: str, harness: Harness
) -> None:
    told = {"outcomes": {outcome: 1}}
    with deployments(harness.folder, "off", "async", **{"async": told}) as servers:
        ended = harness.run(config=url_config(servers))

    assert ended.returncode == 1, ended.stdout + ended.stderr
    result = harness.result()
    assert rules_of(result, "async")[rule] == "failed"
    assert any("by its /metrics" in reason for reason in result["reasons"])


def test_a_rearrangement_under_way_is_told_by_its_metrics(harness: Harness) -> None:
    hanging = {"under_way_seconds": 3600}
    with deployments(harness.folder, "off", "async", **{"async": hanging}) as servers:
        config = url_config(servers)
        ended = harness.run(config=config)

    assert ended.returncode == 3
    [rule] = [one for one in harness.result()["rules"] if one["rule"] == "no_stall"]
    assert "one still under way" in rule["saw"]


def test_started_and_running_servers_stand_in_one_run(harness: Harness) -> None:
    with running(harness.folder, "async") as server:
        config = small_config()
        config["arms"][2] |= {"url": server.url, "events": str(harness.folder / "events/async")}
        ended = harness.run(config=config)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [arm["elsewhere"] is None for arm in harness.result()["arms"]] == [True, True, False]
    assert "Served by vLLM 0.33.0" in ended.stdout
    assert f"Served elsewhere: arm async at {server.url}" in ended.stdout


def test_a_server_that_dies_meanwhile_is_told_and_asked_anew_by_the_same_command(
    harness: Harness,
) -> None:
    with deployments(harness.folder, "off", "async", **{"async": {"exit_after": 5}}) as servers:
        config = url_config(servers, events=harness.folder / "events")
        ended = harness.run(config=config)

        assert ended.returncode == 2
        assert "arm async: the server stopped answering: gsm8k, question" in ended.stdout
        assert "nothing answers there 10 s later" in ended.stdout
        assert f"It runs elsewhere, at {servers['async'].url}" in ended.stdout
        assert harness.result()["verdict"] == "could not run"
        assert [arm["name"] for arm in harness.result()["arms"]] == ["off"]
        refused = harness.run(config=config)
        assert refused.returncode == 2
        assert "- arm async: no answer from" in refused.stderr


def test_a_finished_arm_needs_its_server_no_longer(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async", **{"async": {"exit_after": 5}}) as servers:
        config = url_config(servers)
        assert harness.run(config=config).returncode == 2
    dying = servers["async"]
    # Another server on the same port, as where a deployment is started again.
    with running(harness.folder, "async", port=int(dying.url.rpartition(":")[2])):
        ended = harness.run(config=config)

    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "arm off: finished before, not asked again" in ended.stdout
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off", "async"]


@pytest.mark.parametrize("name", ["off", "async"])
def test_a_restart_in_the_middle_is_noticed(name: str, harness: Harness) -> None:
    again = {name: {"started_again_after": 6}}
    with deployments(harness.folder, "off", "async", **again) as servers:
        ended = harness.run(config=url_config(servers))

    assert ended.returncode == 2
    assert f"arm {name}: the server at {servers[name].url} was started again" in ended.stdout
    assert "process_start_time_seconds was" in ended.stdout


def missing(harness: Harness, config: dict[str, Any], *options: str) -> str:
    """What is said before anything is asked."""
    ended = harness.run(*options, config=config)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert not (harness.folder / "runs").exists()
    return ended.stderr


def test_a_url_where_nothing_answers_is_refused(harness: Harness) -> None:
    with running(harness.folder, "off") as off, running(harness.folder, "async") as gone:
        gone.process.send_signal(signal.SIGKILL)
        gone.process.wait()
        said = missing(harness, url_config({"off": off, "async": gone}))

    assert f"- arm async: no answer from {gone.url}/v1/models (ConnectError" in said
    assert "start that server, make it reachable from here, or name another url" in said


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"model": "someone/other"}, "serves someone/other, not someone/some-moe: name"),
        ({"root": "someone/other"}, "has loaded someone/other and calls it someone/some-moe"),
        ({"has_no_models": True}, "url has to end where /v1/models and /metrics are added"),
    ],
)
def test_another_model_than_that_of_the_run_is_refused(
    server: dict[str, Any], said: str, harness: Harness
) -> None:
    with deployments(harness.folder, "off", "async", **{"async": server}) as servers:
        assert said in missing(harness, url_config(servers))


def test_a_model_under_another_name_is_asked_by_it(harness: Harness) -> None:
    named = {"names": ["prod"], "root": "/models/some-moe"}
    with deployments(harness.folder, "off", "async", **{"async": named}) as servers:
        config = url_config(servers)
        assert "serves prod, not someone/some-moe" in missing(harness, config)
        config["arms"][1]["served_model"] = "prod"
        ended = harness.run(config=config)

    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert harness.result()["arms"][1]["elsewhere"]["served_model"] == "prod"


def test_a_key_that_is_missing_or_wrong_is_told_before_anything_is_asked(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async", wants_key="right-key-1234") as servers:
        config = url_config(servers)
        said = missing(harness, config)
        assert said.count("the server wants an API key: put it into an environment variable") == 2
        assert "--api-key-env THE_KEY: there is no environment variable" in missing(
            harness, config, "--api-key-env", "THE_KEY"
        )
        harness.environment["THE_KEY"] = "wrong-key-1234"
        said = missing(harness, config, "--api-key-env", "THE_KEY")
        assert said.count("refuses the key that --api-key-env names") == 2
        harness.environment["THE_KEY"] = "right-key-1234"
        ended = harness.run("--api-key-env", "THE_KEY", config=config)

    assert ended.returncode == 3, ended.stdout + ended.stderr
    kept = [one for one in (harness.folder / "runs").rglob("*") if one.is_file()]
    assert not any(b"right-key-1234" in one.read_bytes() for one in kept)
    assert "--api-key-env NAME" in (harness.folder / "runs/small/report.md").read_text()


def test_a_password_in_a_url_is_kept_nowhere(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        config = url_config(servers)
        for arm in config["arms"]:
            arm["url"] = arm["url"].replace("//", "//somebody:secret-word@")
        ended = harness.run(config=config)
        again = harness.evaluate("gate", "runs/small")

    assert (ended.returncode, again.returncode) == (3, 3), ended.stdout + again.stderr
    kept = [one for one in (harness.folder / "runs").rglob("*") if one.is_file()]
    assert not any(b"secret-word" in one.read_bytes() for one in kept)
    assert "secret-word" not in ended.stdout + again.stdout
    assert "http://(hidden)@127.0.0.1" in ended.stdout


@pytest.mark.parametrize(
    ("name", "server", "said"),
    [
        ("off", {"tells_of_eplb": True}, "tells of EPLB, and the arm has none"),
        ("async", {"silent": True}, "tells nothing of EPLB, and the arm has eplb"),
        ("async", {"mode": "sync"}, "tells of rearrangements in mode sync, and eplb.use_async"),
        ("async", {"state": "off"}, "tells that EPLB is off (none), so nothing would move"),
    ],
)
def test_eplb_that_metrics_contradict_is_refused(
    name: str, server: dict[str, Any], said: str, harness: Harness
) -> None:
    with deployments(harness.folder, "off", "async", **{name: server}) as servers:
        told = missing(harness, url_config(servers))

    assert f"- arm {name}: {servers[name].url}/metrics {said}" in told


def test_the_plugin_s_eplb_is_not_vllm_s_own(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        config = url_config(servers)
        config["arms"][1]["plugin"] = {"enabled": False, "check_weights": False}
        said = missing(harness, config)

    assert "tells of the plugin's EPLB, and the arm has vLLM's own" in said


def test_fewer_ranks_than_metrics_tell_of_are_refused(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async", **{"async": {"ranks": 3}}) as servers:
        said = missing(harness, url_config(servers))

    assert "tells of EP rank 2, and by serve.options there are 2" in said


def test_a_server_that_tells_nothing_proves_nothing(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async", has_no_metrics=True) as servers:
        ended = harness.run(config=url_config(servers))

    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "arm async, metrics: " in ended.stdout
    assert "so nothing will show what EPLB does there" in ended.stdout
    result = harness.result()
    assert rules_of(result, "off")["no_rearrangements"] == "not tested"
    assert rules_of(result, "async")["rearrangements"] == "not tested"
    assert rules_of(result, "async")["identical_answers"] == "passed"
    assert result["arms"][1]["tokens_per_second"] is None


def test_check_looks_at_servers_elsewhere(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        config = url_config(servers, events=harness.folder / "events")
        found = harness.run(config=config, command="check")
        config["arms"][1]["events"] = str(harness.folder / "nowhere")
        lost = harness.run(config=config, command="check")

    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{servers['off'].url} serves someone/some-moe, by vLLM 0.33.0" in found.stdout
    assert "EPLB is on; rearrangements that ended: 1" in found.stdout
    assert "2 ranks, 0.0 MiB" in found.stdout
    assert lost.returncode == 2
    assert "there is no folder" in lost.stdout


def test_a_server_that_was_never_asked_has_names_of_metrics_and_no_values(
    harness: Harness,
) -> None:
    with deployments(harness.folder, "off", "async", **{"async": {"idle": True}}) as servers:
        config = url_config(servers)
        found = harness.run(config=config, command="check")
        ended = harness.run(config=config)

    assert "EPLB is there, and no rank has made a step" in found.stdout
    assert ended.returncode == 3, ended.stdout + ended.stderr
    async_ = harness.result()["arms"][1]
    # The one that began before the first question is told of only after that.
    assert (async_["elsewhere"]["witness"], async_["rearrangements"]) == ("metrics", 7)


def test_what_is_only_for_servers_elsewhere_is_refused_without_them(harness: Harness) -> None:
    harness.environment["THE_KEY"] = "right-key-1234"
    assert "is for arms with a url, and none has one" in missing(
        harness, small_config(), "--api-key-env", "THE_KEY"
    )


def test_controls_and_stress_need_a_server_that_is_started_here(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        config = url_config(servers, plugin={"loopback": True})
        config["controls"] = {"arm": "async"}
        assert "async, which runs elsewhere" in missing(harness, config, "--control", "all")
        ended = harness.run("--arm", "async", config=config, command="stress")

    assert ended.returncode == 2
    assert f"--arm async runs elsewhere, at {servers['async'].url}" in ended.stderr


def folder_of(harness: Harness) -> Path:
    return harness.folder / "runs/small/arms/async"


def test_evidence_that_was_taken_away_leaves_no_verdict(harness: Harness) -> None:
    with deployments(harness.folder, "off", "async") as servers:
        harness.run(config=url_config(servers))
    (folder_of(harness) / "metrics.jsonl").unlink()

    ended = harness.evaluate("gate", "runs/small")
    assert ended.returncode == 2
    assert "metrics.jsonl is missing" in ended.stderr


def test_events_by_another_clock_are_refused(harness: Harness) -> None:
    ahead = {"seconds_ahead": 60}
    with deployments(harness.folder, "off", "async", **{"async": ahead}) as servers:
        said = missing(harness, url_config(servers, events=harness.folder / "events"))
        by_metrics = harness.run(config=url_config(servers))

    # The time of an answer has whole seconds, and was told somewhere on the way.
    assert re.search("the server's clock is (59|60|61) s ahead of this machine's", said)
    assert by_metrics.returncode == 3, by_metrics.stdout + by_metrics.stderr
