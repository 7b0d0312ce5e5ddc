# SPDX-License-Identifier: Apache-2.0
"""Write docs/metrics.md from the definitions of metrics.

    .venv/bin/python scripts/metrics_document.py

The text of a metric is in `vllm_eplb_plugin.observe.metrics.definitions`.
"""

from pathlib import Path
from typing import get_args

from vllm_eplb_plugin.observe.metrics.definitions import METRICS
from vllm_eplb_plugin.observe.metrics.kinds import Metric, OfModel, OfRank
from vllm_eplb_plugin.observe.phases import Phase
from vllm_eplb_plugin.observe.progress import Outcome
from vllm_eplb_plugin.observe.status import Reason

DOCS = Path(__file__).parents[1] / "docs"

_HEAD = """\
<!-- Made by scripts/metrics_document.py from vllm_eplb_plugin/observe/metrics/definitions.py. -->
# Metrics

With `--enable-eplb`, vLLM's own `/metrics` tells how EPLB is, also with several API servers
(`--api-server-count`), each of which tells the same. Nothing has to be set. The
[setting](settings.md) `metrics` adds series by layer and by rank, or, as `null`, takes all away:

```bash
curl -s http://localhost:8000/metrics | grep vllm:eplb_
vllm serve ... --enable-eplb \\
    --additional-config '{"eplb_plugin": {"metrics": {"by_rank": true, "by_layer": true}}}'
```

Every rank writes a small file once a second, on a thread of its own, into a folder that the front
end makes (`EPLB_PLUGIN_STATUS_DIR`, in the temporary folder, for its user only, until the server
ends; one that is killed leaves some kB there); an API server reads those of its host at each
scrape. So figures come also while the thread that runs the model stands still. What a rank said
last stays when it has ended or is stopped: `vllm:eplb_rank_age_seconds` says how old it is.

[Rules for Prometheus](monitoring/alerts.yaml) and a [dashboard](monitoring/grafana.json) to import
into Grafana are in this repository.

## All of them

Every series has `model_name`, as in vLLM's own metrics; with pipeline parallelism also `stage`; of
a model, with a drafter, also `model_index` (0: the model that is served). *Over ranks* is what
stands for all ranks of the host; with `by_rank` each has a series of its own, with `rank`, the EP
rank (first: the lowest of the host). Figures of models come from EP rank 0 of each stage.

"""

_TAIL = """
`outcome` is one of {outcomes} ([what each means](events.md#outcomes)).
`reason` is `none` where EPLB is on, else one of {reasons}; the log has more.
`phase` is one of {phases}.

Names that were proposed for vLLM mean what they did there: `vllm:eplb_rebalancing` and
`vllm:eplb_rebalance_events_total` in vLLM #49956; `vllm:eplb_balancedness_min`, `_p50`, `_p90`
(the 10th percentile) and `_avg`, `vllm:eplb_rearrangements_total` and
`vllm:eplb_rearrangement_seconds` (a gauge) in vLLM #34066.

| question | expression |
|---|---|
{questions}
## Where they are not

- Ranks on other hosts write into a folder there, which this API server cannot read: of them, it
  tells what EP rank 0 knows (stalls, and all of the models). `vllm serve --headless` serves no
  metrics. Where each rank has a server of its own (`--data-parallel-rank`,
  `--data-parallel-external-lb`, `--data-parallel-multi-port-external-lb`), each tells of its rank,
  and that of EP rank 0 of the models.
- Workers that Ray starts do not inherit the folder's name, and tell nothing.
- With `VLLM_USE_RUST_FRONTEND` (vLLM 0.22 and later) and with `--grpc` no Python serves `/metrics`.
  The files are written all the same.
- `PROMETHEUS_MULTIPROC_DIR` is never set: with several API servers vLLM does.
"""

_QUESTIONS = {
    "for which part of the time does EPLB hold the model?": (
        "rate(vllm:eplb_model_thread_seconds_total[5m])"
    ),
    "how long does a rearrangement take?": (
        "sum(rate(vllm:eplb_rearranging_seconds_total[1h])) / "
        "sum(rate(vllm:eplb_rearrangements_total[1h]))"
    ),
    "how many placements were rejected?": (
        'increase(vllm:eplb_rearrangements_total{outcome="rejected"}[1h])'
    ),
    "may any single rank die without the loss of an expert?": "min(vllm:eplb_rank_survivable)",
}


def document() -> str:
    """The page."""
    rows = "".join(map(_row, METRICS))
    head = "| metric | kind | labels | over ranks | meaning |\n|---|---|---|---|---|\n"
    return f"{_HEAD}{head}{rows}" + _TAIL.format(
        outcomes=_among(Outcome),
        reasons=_among(Reason),
        phases=_among(Phase),
        questions="".join(f"| {asked} | `{query}` |\n" for asked, query in _QUESTIONS.items()),
    )


def _row(metric: Metric) -> str:
    over = metric.over_ranks if isinstance(metric, OfRank) else ""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    only = f" Only with `{metric.only_with}`." if metric.only_with else ""
    of = " Of each model." if isinstance(metric, OfModel) else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {over} | {metric.help}{of}{only} |\n"


def _among(kind: object) -> str:
    *most, last = (f"`{value}`" for value in get_args(kind))
    return f"{', '.join(most)} and {last}"


if __name__ == "__main__":
    (DOCS / "metrics.md").write_text(document(), encoding="utf-8")
