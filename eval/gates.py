# SPDX-License-Identifier: Apache-2.0
"""From the arms of a run to the results of its rules. Pure functions (docs/gates.md)."""

from eval.result import RuleResult, RuleVerdict

__all__ = ["RuleResult", "RuleVerdict"]
