# SPDX-License-Identifier: Apache-2.0
"""The rooms of the plugin and of the harness, and what each may import (docs/architecture.md)."""

MAY_IMPORT = {
    "releases": "",
    "settings": "fault_settings observing_settings option_values planning_settings wrong_values",
    "option_values": "",
    "wrong_values": "",
    "fault_settings": "",
    "observing_settings": "option_values",
    "planning_settings": "option_values",
    "processor": "",
    "adapter_files": "",
    "weight_routes": "",
    "overrides": "",
    "placement": "",
    "advice": "releases",
    "combine": "overrides",
    "planning": "placement",
    "observe": "placement",
    "recording": "observe.progress placement",
    "simulation": "placement planning planning_settings recording",
    "transfer": "overrides placement",
    "engine": "adapter_files compatibility observe observing_settings overrides placement planning "
    "planning_settings recording settings transfer weight_routes",
    "faults": "fault_settings overrides settings",
    "loopback": "compatibility faults overrides processor settings",
    "front_end": "adapter_files compatibility fault_settings loopback observe observing_settings "
    "overrides planning settings",
    "compatibility": "overrides releases",
    "activation": "overrides settings",
    "bench": "advice compatibility engine observe overrides placement planning processor recording "
    "releases settings simulation transfer",
    "cli": "advice bench compatibility faults observe overrides placement planning processor "
    "recording releases settings simulation weight_routes",
}
"""Rooms, and modules beside them, with what of the package each may import besides itself."""

MAY_IMPORT_FROM_OUTSIDE = {
    "vllm": {"bench", "cli", "combine", "engine", "faults", "front_end", "loopback"},
    "torch.distributed": {"bench.transfer", "engine", "loopback", "planning.guard"},
}
"""What is tied to a server, with who may import it. Pure rooms can be tested, simulated and
benchmarked without one; the guard asks the group that it is given."""

HARNESS_MAY_IMPORT = {
    "gpus": "",
    "interrupts": "",
    "secrets": "",
    "standard_streams": "",
    "visible": "",
    "errors": "secrets visible",
    "config": "errors secrets",
    "activity": "errors",
    "results": "activity config errors gpus secrets",
    "judging": "activity config errors results",
    "report": "activity config errors judging results secrets visible",
    "serving": "config errors gpus interrupts results secrets visible",
    "load": "config errors preflight results secrets serving",
    "oracle": "config errors results serving",
    "preflight": "activity config errors interrupts secrets serving",
    "commands": "activity config errors interrupts judging load oracle preflight report results "
    "secrets serving",
    "cli": "commands config errors interrupts judging preflight report results secrets serving "
    "standard_streams",
    "latency": "cli errors standard_streams",
    "stress": "cli errors standard_streams",
}
"""The same of the harness: what judges and reports starts no server and asks nothing."""

HARNESS_MAY_IMPORT_FROM_OUTSIDE = {
    "vllm": set[str](),
    "lm_eval": {"load"},
    "torch": {"oracle"},
    "transformers": {"oracle"},
}
"""It talks to servers and never imports vLLM; judging again what was kept takes no time to load."""

SHARED = ("observe.events", "fault_settings", "simulation.drawing")
"""What the harness imports of the package: an event is typed where it is read, too, a fault has one
list of names, and charts of reports and of simulations are drawn alike."""
