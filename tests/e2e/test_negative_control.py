# SPDX-License-Identifier: Apache-2.0
"""A check that cannot fail proves nothing; that all is right is `scripts/eval-cpu`'s to show."""

from pathlib import Path

from tests.e2e.conftest import Evaluation

STOCK = {"enabled": False, "check_weights": False}


def test_maps_without_weights_cost_accuracy_and_the_weight_check_says_so(tmp_path: Path) -> None:
    """And vLLM's own EPLB, with the plugin turned off, answers as without EPLB."""
    stock = {"name": "stock", "plugin": STOCK, "eplb": {"use_async": True, "step_interval": 10}}
    broken = {
        "name": "broken",
        "plugin": {"fault": "weights_not_moved"},
        "eplb": {"use_async": False, "window_size": 10, "step_interval": 10},
    }
    arms = [{"name": "off"}, stock, broken]
    evaluation = Evaluation(tmp_path, arms=arms)
    assert evaluation.exit_code == 1, evaluation.output
    assert evaluation.result["verdict"] == "failed"
    off, stock_task, broken_task = map(evaluation.task, ("off", "stock", "broken"))
    assert off["accuracy"] >= 0.55
    assert stock_task["identical_to_off"] == 48
    assert broken_task["accuracy"] <= off["accuracy"] - 0.2
    assert broken_task["identical_to_off"] <= 36
    log = Path(tmp_path, evaluation.arm("stock")["log"]).read_text()
    assert "vllm-eplb-plugin is turned off by its settings" in log
    assert "Rearranging experts (async mode)" in log
    assert evaluation.arm("broken")["weight_mismatches"] > 0
    log = Path(tmp_path, evaluation.arm("broken")["log"]).read_text()
    assert "EPLB weight check failed: layer" in log
