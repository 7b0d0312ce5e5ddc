# SPDX-License-Identifier: Apache-2.0
"""What the page and the Markdown say."""

import itertools
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from eval.config.loading import ALL_ARMS, load_config
from eval.report import origin, page
from eval.report.markdown import render_markdown
from eval.report.page import accuracy_charts, render_page
from eval.report.runs import Run, read_runs
from eval.report.viewing import view_of_runs
from tests.builders.events import told
from tests.builders.runs import LARGE, STARTED, Shape, write_run
from vllm_eplb_plugin.observe.events import RearrangementFailed, RearrangementSkipped

CSS = "".join(
    (Path(page.__file__).parents[2] / file).read_text()
    for file in ("vllm_eplb_plugin/simulation/shared.css", "eval/report/templates/report.css")
)


def made_up(folder: Path, shape: Shape = Shape(), **changes: Any) -> Run:  # noqa: B008
    (run,) = read_runs([write_run(folder / "made-up", shape, **changes)])
    return run


def text_of(html: str) -> str:
    """What is to be read, with single spaces."""
    body = re.sub(r"<(style|title)>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.mark.parametrize("render", [render_page, render_markdown])
def test_verdict_accuracies_pairs_rules_and_controls_are_told(tmp_path: Path, render: Any) -> None:
    run = made_up(tmp_path, Shape(questions=200, lost=30, verdict="failed"))
    text = text_of(render(view_of_runs([run])))

    right = sum(sample.strict_correct for sample in run.arms[0].samples)
    low, high = view_of_runs([run]).accuracies[0].share.interval
    assert re.search("failed", text, re.IGNORECASE)
    assert f"{right / 2:.1f} %" in text
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in text
    # Exact: all of 30 discordant pairs on one side.
    assert "9e-10" in text
    assert "30 lost and 0 won of 200 pairs" in text
    assert re.search(r"weights.not.moved", text)
    assert "0.32.0 (vllm)" in text
    assert "python -m eval run made-up.yaml" in text


def test_pairs_are_those_of_the_same_prompt(tmp_path: Path) -> None:
    run = made_up(tmp_path, Shape(questions=50, lost=4))
    off, _, asynchronous = run.arms
    right = [sample.doc_id for sample in off.samples if sample.strict_correct]

    same, fewer = view_of_runs([run]).pairs

    lost = fewer.answers
    assert (same.arm, same.answers.pairs.lost, same.answers.identical) == ("sync", 0, 50)
    assert (fewer.arm, lost.lost, lost.won, lost.identical) == ("async", right[:4], [], 46)
    assert sum(lost.pairs) == 50
    asynchronous.samples[7].prompt = "another"
    pairs = view_of_runs([run]).pairs
    assert [one.answers.pairs.questions for one in pairs] == [50, 49]


def test_several_runs_stand_beside_each_other_and_the_worst_decides(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad", Shape(lost=9, verdict="failed"))
    runs = read_runs([good, bad])

    report = view_of_runs(runs)
    html, markdown = render_page(report), render_markdown(report)

    assert 'class="verdict failed"' in html
    assert "1 of 2 runs" in html
    assert "bad: 9 lost and 0 won" in text_of(html)
    assert markdown.startswith("## EPLB evaluation good, bad: failed")
    assert "| bad | async | gsm8k |" in markdown


def test_each_arm_is_compared_with_off_of_its_own_run(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / name) for name in ("one", "two")])
    for sample in runs[1].arms[0].samples:
        sample.strict_correct = True

    (chart,) = accuracy_charts(view_of_runs(runs))

    off = {row.of.run: row.dot for row in chart.rows if row.of.arm == "off"}
    assert off["one"] < off["two"]
    assert all(row.off == off[row.of.run] for row in chart.rows)


def test_what_did_not_pass_comes_first(tmp_path: Path) -> None:
    text = text_of(render_page(view_of_runs([made_up(tmp_path, Shape(lost=9, verdict="failed"))])))

    assert text.index("9 lost and 0 won") < text.index("Accuracy")
    rules = text[text.index("Rules") :]
    assert rules.index("Arm async") < rules.index("9 lost and 0 won") < rules.index("Arm sync")


def test_the_questions_are_those_of_the_arms_and_not_of_a_control(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    (task,) = run.result.arms[0].tasks
    short = task.model_copy(update={"questions": 7})
    run.result.arms.append(
        run.result.arms[1].model_copy(update={"name": "control-x", "tasks": [short]})
    )

    assert "40 questions of gsm8k, asked in arms off, sync and async." in render_markdown(
        view_of_runs([run])
    )


def test_text_from_a_run_is_escaped(tmp_path: Path) -> None:
    run = made_up(tmp_path, Shape(verdict="failed"), reasons=["<script>|\nx"])

    assert "<script>" not in render_page(view_of_runs([run]))
    assert "- \\<script>\\|\n\n  ```text\n  x\n  ```" in render_markdown(view_of_runs([run]))


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    html = render_page(view_of_runs([made_up(tmp_path)]))

    assert (
        re.findall(r"https?://|<script|<img|@import|url\(|(?:src|href)=\"(?!#|data:)", html) == []
    )
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in html


@pytest.mark.parametrize("render", [render_page, render_markdown])
def test_no_folder_of_the_machine_is_told(tmp_path: Path, render: Any) -> None:
    log = (
        "see runs/made-up/arms/off/server.log\n"
        'File "/home/someone/eplb/.venv/lib/python3.11/site-packages/vllm/a.py", line 3\n'
        "/home/someone/eplb/runs/made-up/x, /data/models/some-moe and 127.0.0.1:80/v1/models"
    )
    run = made_up(tmp_path, Shape(verdict="could not run"), reasons=[log])
    text = render(view_of_runs([run]))

    assert not re.findall(r"/(?:home|data|tmp|root)/", text)
    assert "runs/made-up/arms/off/server.log" in text
    assert "runs/made-up/x" in text
    assert "site-packages/vllm/a.py" in text
    assert "127.0.0.1:80/v1/models" in text


def test_the_told_configuration_is_that_of_the_run(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    command, text = origin.repeat_command(run.result)
    assert text is not None and command == "python -m eval run made-up.yaml"
    (tmp_path / "made-up.yaml").write_text(text)

    assert load_config(tmp_path / "made-up.yaml") == run.result.config


def test_a_configuration_of_this_repository_is_named(tmp_path: Path) -> None:
    configured = load_config(Path("eval/config/presets/cpu.yaml"), ["name=tuesday"])
    result = made_up(tmp_path).result.model_copy(update={"config": configured})

    assert origin.repeat_command(result) == (
        "python -m eval run eval/config/presets/cpu.yaml --name tuesday",
        None,
    )


def test_a_run_of_all_arms_is_repeated_as_one(tmp_path: Path) -> None:
    configured = load_config(Path("eval/config/presets/cpu.yaml"), arms=ALL_ARMS)
    result = made_up(tmp_path).result.model_copy(update={"config": configured})

    command, text = origin.repeat_command(result)

    assert command == "python -m eval run eval/config/presets/cpu.yaml --arms all"
    assert text is None


def test_controls_are_repeated_by_their_option(tmp_path: Path) -> None:
    configured = load_config(Path("eval/config/presets/cpu.yaml"))
    control = configured.arms[1].model_copy(update={"name": "control-no_rearrangement"})
    arms = [*configured.arms, control]
    result = made_up(tmp_path).result.model_copy(
        update={"config": configured.model_copy(update={"arms": arms})}
    )

    command, text = origin.repeat_command(result)

    assert command == "python -m eval run eval/config/presets/cpu.yaml --control no_rearrangement"
    assert text is None


def test_without_placements_the_page_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-up")
    for file in folder.glob("arms/*/events/rank0.jsonl"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if '"placement"' not in line))

    text = text_of(render_page(view_of_runs(read_runs([folder]))))

    assert "12 rearrangements. Balancedness before" in text
    assert "Placements and loads are not shown" in text


def test_what_did_not_finish_is_told_and_marked(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-up")
    skipped = RearrangementSkipped("some-moe", 0, 13, 130, "sync", 0.1, "nothing to gain")
    failed = RearrangementFailed("some-moe", 0, 14, 140, "async", 0.1, "RuntimeError: gone", 1)
    with (folder / "arms" / "sync" / "events" / "rank0.jsonl").open("a") as file:
        file.write(told(STARTED + 2, skipped) * 2)
    (folder / "arms" / "async" / "events" / "rank0.jsonl").write_text(told(STARTED + 2, failed))

    html = render_page(view_of_runs(read_runs([folder])))

    text = text_of(html)
    assert "2 skipped: nothing to gain" in text
    assert html.count('class="mark other"') == 1
    assert "1 failed: RuntimeError: gone No rearrangement finished." in text


def test_models_of_one_name_and_stages_have_a_section_each(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-up")
    events = folder / "arms" / "async" / "events"
    text = (events / "rank0.jsonl").read_text()
    second = text.replace('"stage": 0', '"stage": 1').replace(
        '"global_rank": 0', '"global_rank": 2'
    )
    drafter = second.replace('"model_index": 0', '"model_index": 1')
    (events / "rank2.jsonl").write_text(second + drafter)

    shown = text_of(render_page(view_of_runs(read_runs([folder]))))

    for label in ("some-moe, stage 0", "some-moe, stage 1", "some-moe (drafter), stage 1"):
        assert f"async, {label} Balancedness" in shown


def test_a_run_without_a_finished_arm_has_a_page(tmp_path: Path) -> None:
    run = made_up(tmp_path, Shape(verdict="could not run"), arms=[], rules=[], controls=[])

    text = text_of(render_page(view_of_runs([run])))

    assert "Could not run" in text
    assert "arms that were not finished: off, sync, async" in text


def test_each_layer_is_drawn_before_and_after(tmp_path: Path) -> None:
    html = render_page(view_of_runs([made_up(tmp_path, Shape(layers=9))]))

    # Two arms; the first placement is the same everywhere, so it stands in the page once.
    assert len(re.findall(r'<use href="#before0"/>', html)) == 18
    assert html.count('<g id="before') == 1
    assert html.count("5 more layers") == 2


def test_a_large_run_makes_a_page_below_2_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "large", replace(LARGE, rearrangements=200))
    runs = read_runs([folder])
    # 200 rearrangements stand for 1,000: only lines with a point for each grow with them.
    for arm in runs[0].arms:
        for timeline in arm.timelines:
            timeline.rearrangements *= 5

    assert len(render_page(view_of_runs(runs)).encode()) < 2_000_000
    assert len(render_page(view_of_runs(runs * 4)).encode()) < 2_000_000
    monkeypatch.setattr(page, "DRAWING_BYTES", 100_000)
    assert "Not drawn" in render_page(view_of_runs(runs))


def variables(theme: str) -> dict[str, str]:
    light, dark = CSS.split("@media (prefers-color-scheme: dark)", 1)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    if theme == "dark":
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark.partition("* {")[0]))
    return found


def contrast(one: str, other: str) -> float:
    """Of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_charts_have_contrast(theme: str) -> None:
    colours = variables(theme)
    for text in ("text", "muted"):
        for ground in ("page", "card"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for ground in ("good", "bad", "warn"):
        assert contrast(colours["on-verdict"], colours[ground]) >= 4.5, ground
    for ink in ("c0", "c1", "c2", "c3", "c4"):
        assert contrast(colours[ink], colours["page"]) >= 3, ink
    shades = [colours[name] for name in ("cell", "r1", "r2", "r3")]
    assert all(contrast(one, other) >= 1.5 for one, other in itertools.pairwise(shades))
