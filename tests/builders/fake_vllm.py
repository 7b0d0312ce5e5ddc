# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``vllm``: speaks its HTTP, writes the plugin's events, fails when told to.

``FAKE_VLLM`` in the environment is a JSON object of behaviours; one for a single arm stands
below its kind, ``off``, ``sync`` or ``async``, or below its fault.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import Any

LAYERS = 4
REQUESTS_PER_REARRANGEMENT = 2


def parse(arguments: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            after = arguments[index + 1 : index + 2]
            values[argument[2:]] = after[0] if after and not after[0].startswith("--") else ""
    return values


def names_in(arguments: list[str]) -> list[str]:
    """The names of the model that is served."""
    if "--served-model-name" not in arguments:
        return [arguments[2]]
    start = arguments.index("--served-model-name") + 1
    return list(takewhile(lambda one: not one.startswith("--"), arguments[start:]))


def kind_of_arm(options: dict[str, str]) -> str:
    if "enable-eplb" not in options:
        return "off"
    return "async" if json.loads(options["eplb-config"])["use_async"] else "sync"


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True
    # Of the standard library's five, the rest of many requests at once would be reset.
    request_queue_size = 128

    def __init__(self, options: dict[str, str], behaviour: dict[str, Any], mode: str) -> None:
        super().__init__(("127.0.0.1", int(options["port"])), Handler)
        self.behaviour = behaviour
        self.mode = mode
        self.names = names_in(sys.argv)
        plugin = json.loads(options["additional-config"])["eplb_plugin"]
        self.events = Path(plugin["events_dir"]) if "events_dir" in plugin else None
        if not plugin.get("enabled", True):
            self.events = None
        ignored = behaviour.get("ignores_planning", False)
        self.stays = plugin.get("planning", {}).get("rearrange") == "never"
        self.policy = "vllm" if ignored else plugin.get("planning", {}).get("policy", "vllm")
        self.bytes_of_a_rank = 512 if self.policy == "vllm" else 64
        self.lock = threading.Lock()
        self.requests = 0
        self.rearrangements = 0
        self.started = time.time()
        self.tells = plugin.get("enabled", True) and plugin.get("metrics", {}) is not None

    def answer(self, prompt: str) -> str:
        """The sum that the last question asks for, or a wrong one where told so."""
        sums = re.findall(r"What is (\d+) plus (\d+)\?", prompt)
        if not sums:
            return f" I can only add, not answer {len(prompt)} characters: {prompt[-60:]}"
        total = sum(int(number) for number in sums[-1])
        if total % 5 == 0 or total in self.behaviour.get("wrong_sums", []):
            total += 1000 if total % 5 == 0 else 2000
        return f" I add them up.\n#### {total}"

    def count_request(self) -> int:
        with self.lock:
            self.requests += 1
            if self.requests % REQUESTS_PER_REARRANGEMENT == 0:
                self.rearrange()
            return self.requests

    def rearrange(self) -> None:
        if (
            self.mode == "off"
            or self.stays
            or self.rearrangements >= self.behaviour.get("rearrangements", 1000)
        ):
            return
        self.rearrangements += 1
        print(f"INFO [eplb_state.py:786] Rearranging experts ({self.mode} mode) ...", flush=True)
        if self.events is None:
            return
        mode = self.behaviour.get("mode", self.mode)
        common = {"rearrangement": self.rearrangements, "step": self.requests, "mode": mode}
        slots_changed = self.behaviour.get("slots_changed", [1] * LAYERS)
        for rank in range(2):
            self.write(rank, "rearrangement_started", **common)
            self.write(rank, "rearrangement_planned", **common, **self.plan(slots_changed))
            for layer, slots in enumerate(slots_changed):
                self.write(rank, "layer_committed", **common, layer=layer, slots_changed=slots)
                mismatched = self.behaviour.get("mismatched_slots", []) if rank else []
                self.write(
                    rank, "weights_checked", layer=layer, slots=10, mismatched_slots=mismatched
                )
                self.write(rank, "maps_checked", layer=layer, experts=8, mismatched_experts=[])
            self.write(
                rank,
                "rearrangement_finished",
                **common,
                balancedness_before=0.5,
                balancedness_expected=0.75,
                slots_changed=slots_changed,
                bytes_sent=2 * self.bytes_of_a_rank,
                seconds=0.01,
            )

    def metrics(self) -> Iterator[str]:
        """Lines of /metrics; a restart is told of where it is asked for."""
        if "metrics" in self.behaviour:
            yield self.behaviour["metrics"]
            return
        again = self.requests > self.behaviour.get("started_again_after", 1_000_000)
        yield f"process_start_time_seconds {self.started + 60 * again}"
        for engine in range(2):
            yield f'vllm:generation_tokens_total{{engine="{engine}"}} {self.requests * 5.0}'
        tells = self.tells and not self.behaviour.get("silent", False)
        if tells and (self.mode != "off" or self.behaviour.get("tells_of_eplb")):
            yield from self.metrics_of_eplb()

    def metrics_of_eplb(self) -> Iterator[str]:
        """As the plugin's (docs/metrics.md), as far as the harness reads them."""
        yield "# TYPE vllm:eplb_state gauge"
        if self.requests == 0 and self.behaviour.get("idle"):
            return
        state = self.behaviour.get("state", "on")
        mode = self.behaviour.get("mode", self.mode)
        yield f'vllm:eplb_state{{model_name="m",state="{state}",reason="none"}} 1'
        for rank in range(self.behaviour.get("ranks", 2)):
            yield f'vllm:eplb_rank_age_seconds{{model_name="m",rank="{rank}"}} 0.5'
        age = self.behaviour.get("under_way_seconds", 0)
        yield f'vllm:eplb_rearrangement_age_seconds{{model_name="m"}} {age}'
        yield f'vllm:eplb_rebalance_events_total{{model_name="m"}} {self.rearrangements}'
        ended = {"finished": self.rearrangements, **self.behaviour.get("outcomes", {})}
        for outcome, number in ended.items():
            labels = f'model_name="m",outcome="{outcome}",mode="{mode}"'
            yield f"vllm:eplb_rearrangements_total{{{labels}}} {number}"
        seconds = 0.01 * self.rearrangements
        yield f'vllm:eplb_rearranging_seconds_total{{model_name="m"}} {seconds}'
        yield f'vllm:eplb_moved_experts_total{{model_name="m"}} {4 * self.rearrangements}'

    def plan(self, slots_changed: list[int]) -> dict[str, Any]:
        """What it says of its moves; the policy is that of the settings."""
        return {
            "layers_changed": sum(map(bool, slots_changed)),
            "seconds": 0.005,
            "policy": self.policy,
            "steps": [],
            "trigger": "interval",
            "planning_seconds": 0.001,
            "experts_received": [min(1, slots) for slots in slots_changed],
            "bytes_received": [self.bytes_of_a_rank] * 2,
            "bytes_from_other_nodes": [0, 0],
            "balancedness_before": 0.5,
            "balancedness_expected": 0.75,
            "layers_held_back": 0,
            "bytes_held_back": 0,
        }

    def write(self, rank: int, event: str, **fields: Any) -> None:
        assert self.events is not None
        self.events.mkdir(parents=True, exist_ok=True)
        head = {"schema": 2, "event": event, "time": time.time(), "rank": rank}
        head |= {"global_rank": rank, "stage": 0, "model": "fake", "model_index": 0}
        with (self.events / f"rank{rank}.jsonl").open("a") as file:
            file.write(json.dumps(head | fields) + "\n")


def usage_of(request: dict[str, Any]) -> dict[str, int]:
    """A token of the prompt is one of its ids, or a character."""
    return {"prompt_tokens": len(request["prompt"]), "completion_tokens": request["max_tokens"]}


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply("")
        elif self.path == "/v1/models" and not self.server.behaviour.get("has_no_models"):
            if self.authorized():
                root = self.server.behaviour.get("root", sys.argv[2])
                models = [{"id": name, "root": root} for name in self.server.names]
                self.reply(json.dumps({"data": models}))
        elif self.path == "/version":
            self.reply('{"version": "0.33.0"}')
        elif self.path == "/metrics":
            if self.server.behaviour.get("has_no_metrics"):
                self.reply("not found", status=404)
                return
            self.reply("\n".join(self.server.metrics()))
        else:
            self.reply("not found", status=404)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.server.behaviour
        if not self.authorized():
            return
        if request["model"] not in self.server.names:
            self.reply('{"error": {"message": "The model does not exist."}}', status=404)
            return
        number = self.server.count_request()
        if number > behaviour.get("hang_after", 1_000_000):
            time.sleep(600)
        if number > behaviour.get("exit_after", 1_000_000):
            print("RuntimeError: the engine core died", flush=True)
            os._exit(3)
        time.sleep(behaviour.get("seconds_per_request", 0))
        if number > behaviour.get("answers_after", 0) and "answers" in behaviour:
            self.reply(**behaviour["answers"])
            return
        if request.get("stream"):
            self.stream(request)
            return
        asked = request["prompt"]
        text = self.server.answer(asked if isinstance(asked, str) else "token ids")
        choice = {"index": 0, "text": text}
        if request.get("logprobs") is not None:
            choice["logprobs"] = self.logprobs(text, request["return_tokens_as_token_ids"])
        self.reply(json.dumps({"choices": [choice], "usage": usage_of(request)}))

    def logprobs(self, text: str, as_ids: bool) -> dict[str, Any]:
        """One token a character; a rounded one is a little less likely."""
        rounded = self.server.behaviour.get("rounded", 0.0)
        tokens = [f"token_id:{ord(one)}" if as_ids else one for one in text]
        return {"tokens": tokens, "token_logprobs": [-ord(one) / 512 - rounded for one in text]}

    def stream(self, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        chunks: list[dict[str, Any]] = [{"choices": [{"text": "a"}]}] * request["max_tokens"]
        for chunk in [*chunks, {"choices": [], "usage": usage_of(request)}]:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def authorized(self) -> bool:
        """As vLLM's: with a key, each of its requests has to have it."""
        key = self.server.behaviour.get("wants_key", os.environ.get("VLLM_API_KEY"))
        sent = self.headers["Authorization"]
        if self.server.behaviour.get("tells_all"):
            print(f"request with {dict(self.headers)}", flush=True)
        if key and sent != f"Bearer {key}":
            self.reply('{"error": "Unauthorized"}', status=401)
        return not key or sent == f"Bearer {key}"

    def reply(
        self, body: str, status: int = 200, headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """Answer with ``body``, so many times; ``headers`` instead of what would be right."""
        data = body.encode() * times
        kind = "application/json" if body[:1] == "{" else "text/plain"
        self.send_response(status)
        right = {"Content-Type": kind, "Content-Length": str(len(data))}
        for name, value in {**right, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """What its answers have as their date."""
        ahead = self.server.behaviour.get("seconds_ahead", 0)
        return super().date_time_string(time.time() + ahead)

    def log_message(self, *arguments: Any) -> None:
        pass


def why_to_die(die: str | list[str] | None) -> str | None:
    """Always the same, or of each process in turn; those after the last one live."""
    if not isinstance(die, list):
        return die
    with Path("deaths").open("a+", encoding="utf-8") as deaths:
        deaths.seek(0)
        number = len(deaths.readlines())
        deaths.write("one\n")
    return die[number] if number < len(die) else None


def main() -> None:
    options = parse(sys.argv[3:])
    mode = kind_of_arm(options)
    behaviour = json.loads(os.environ.get("FAKE_VLLM", "{}"))
    settings = json.loads(options.get("additional-config", "{}")).get("eplb_plugin", {})
    for kind in (mode, settings.get("fault")):
        behaviour = {**behaviour, **behaviour.get(kind, {})}
    if behaviour.get("tells_all"):
        print(f"non-default args: {options}\nargv: {sys.argv}\nenvironment: {dict(os.environ)}")
        print(json.dumps(dict(os.environ)), flush=True)
    if last_log := behaviour.get("die_with"):
        print(last_log)
        sys.exit(7)
    if last_words := why_to_die(behaviour.get("die")):
        for line in range(40):
            print(f"line {line}: {last_words}")
        sys.exit(7)
    # A worker in the same group, as vLLM has: it must not outlive the server.
    worker = subprocess.Popen(["sleep", behaviour.get("worker_seconds", "600")])
    print(f"worker {worker.pid}", flush=True)
    print(f"INFO [api_server.py:1] process {os.getpid()} starts", flush=True)
    time.sleep(behaviour.get("seconds_to_start", 0))
    server = FakeServer(options, behaviour, mode)
    server.rearrange()
    server.serve_forever()


if __name__ == "__main__":
    main()
