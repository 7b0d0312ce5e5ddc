# SPDX-License-Identifier: Apache-2.0
"""What results of schemas 3 and 4 call otherwise."""

from typing import Any


def as_of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A result of an earlier schema with today's names; one of today's is not changed."""
    if "reference" not in values:
        return values
    values = {**values, "oracle": values["reference"]}
    del values["reference"]
    config = values.get("config")
    return {**values, "config": _config(config)} if isinstance(config, dict) else values


def _config(config: dict[str, Any]) -> dict[str, Any]:
    config = {**config}
    oracle = config.pop("reference", None)
    if isinstance(oracle, dict):
        config["oracle"] = {"prompts": oracle.get("transformers_prompts", 0)}
    gate = config.get("gate")
    if isinstance(gate, dict) and "reference_accuracy" in gate:
        gate = {**gate}
        gate["recorded_accuracy"] = gate.pop("reference_accuracy")
        config["gate"] = gate
    return config
