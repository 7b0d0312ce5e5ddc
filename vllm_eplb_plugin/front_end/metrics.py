# SPDX-License-Identifier: Apache-2.0
"""Overrides of where an API server decides what stands on /metrics."""

import functools
import importlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.front_end.status_folder import make_status_folder
from vllm_eplb_plugin.observe.metrics.definitions import METRICS
from vllm_eplb_plugin.observe.metrics.host import stages_of
from vllm_eplb_plugin.observe.metrics.kinds import Metric, Told
from vllm_eplb_plugin.observe.status import read_statuses
from vllm_eplb_plugin.observing_settings import MetricsOptions
from vllm_eplb_plugin.overrides.binding import OverrideError, bind
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.overrides.on_import import when_imported
from vllm_eplb_plugin.overrides.override import Override

logger = logging.getLogger("vllm.eplb_plugin")

_MODULE = "vllm.entrypoints.serve.instrumentator.metrics"

_Family = CounterMetricFamily | GaugeMetricFamily


@dataclass(frozen=True)
class StatusCollector(Collector):
    """A collector reads, at each scrape, what the ranks of this host said last.

    So several API servers tell the same, and it is told also while a rank stands still.
    """

    folder: Path
    told: Told

    def collect(self) -> Iterator[_Family]:
        """Make the families."""
        now = time.time()
        stages = stages_of(read_statuses(self.folder), now)
        for metric in filter(self.told.includes, METRICS):
            family = self._family(metric)
            for labels, value in self.told.samples(metric, stages):
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterator[_Family]:
        """Name the families, so that a registry sees whether it has one of another's."""
        return map(self._family, filter(self.told.includes, METRICS))

    def _family(self, metric: Metric) -> _Family:
        family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        return family(metric.name, metric.help, labels=self.told.labels(metric))


@dataclass(frozen=True)
class _Server:
    folder: Path
    options: MetricsOptions
    config: Any
    """vLLM's."""

    def collector(self) -> StatusCollector:
        told = Told(
            # As vLLM calls it in its own metrics.
            self.config.model_config.served_model_name,
            self.options.by_rank,
            self.options.by_layer,
            self.config.parallel_config.pipeline_parallel_size > 1,
            self.config.speculative_config is not None,
        )
        return StatusCollector(self.folder, told)


_server: _Server | None = None
"""Which this process is the front end of, once EPLB is asked for."""
_registries: "weakref.WeakSet[CollectorRegistry]" = weakref.WeakSet()
"""Those that tell of it."""


def tell_metrics(options: MetricsOptions, config: Any) -> None:
    """Let ranks say how they are, and the API server, if this process becomes one, tell it.

    Args:
        options: What is told.
        config: vLLM's configuration of the server.
    """
    global _server
    try:
        _server = _Server(make_status_folder(), options, config)
    except OSError as error:
        logger.warning("Nothing of EPLB will stand on /metrics: no folder can be made: %s", error)
    else:
        when_imported(_MODULE, _bind)


def _bind(module: ModuleType) -> None:
    try:
        bind(overrides_at(installed_support().release, "metrics"))
    except OverrideError as error:
        logger.warning("Nothing of EPLB will stand on /metrics. %s", error)


def _override_registry(
    original: Callable[[], CollectorRegistry],
) -> Callable[[], CollectorRegistry]:
    @functools.wraps(original)
    def get_prometheus_registry() -> CollectorRegistry:
        registry = original()
        if _server is not None and registry not in _registries:
            _register(registry, _server.collector())
        return registry

    return get_prometheus_registry


def _register(registry: CollectorRegistry, collector: StatusCollector) -> None:
    try:
        registry.register(collector)
    except ValueError as error:  # a name that somebody else tells
        logger.warning("Nothing of vllm-eplb-plugin stands on /metrics: %s", error)
    else:
        _registries.add(registry)


def _override_instrumentator(original: type[Any]) -> type[Any]:
    class Instrumentator(original):  # type: ignore[misc]
        def expose(self, app: Any, *args: Any, **kwargs: Any) -> Any:
            if _server is not None and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                # The one that it was given also has what this process counts of requests, which
                # all processes share through files.
                _put_first(app, importlib.import_module(_MODULE).get_prometheus_registry())
            return super().expose(app, *args, **kwargs)

    return Instrumentator


def _put_first(app: Any, registry: CollectorRegistry) -> None:
    """Let a route answer before the one of prometheus_fastapi_instrumentator, and as it does."""
    from starlette.responses import Response
    from starlette.routing import Route

    def metrics(_: object) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.routes.append(Route("/metrics", metrics, include_in_schema=False))


OVERRIDES = (
    Override(
        target=f"{_MODULE}:get_prometheus_registry",
        signature="()",
        kind="hook",
        replace=_override_registry,
        fixes="A server whose EPLB is off, stands still or balances badly looks healthy: /metrics "
        "says nothing of it.",
        delete_when="vLLM tells there how EPLB is, or lets plugins add to it.",
    ),
    Override(
        target=f"{_MODULE}:Instrumentator",
        signature=None,
        kind="replace",
        replace=_override_instrumentator,
        fixes="With several API servers, /metrics is answered from a registry that is made for "
        "each scrape and knows only what processes share through the client's own files.",
        delete_when="The other one can go, or prometheus_fastapi_instrumentator asks the registry "
        "that it is given there, too.",
    ),
)
