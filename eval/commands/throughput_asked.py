# SPDX-License-Identifier: Apache-2.0
"""What the options of ``python -m eval throughput`` say that is to be asked, and of which model."""

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

from eval.commands.impossible import require_even_slots
from eval.errors import ConfigError
from eval.load.domains import PROMPT_TOKENS
from eval.load.traffic import Domain, read_texts, text_domain, token_domains
from eval.results.latency import ModelShape
from eval.results.throughput import KindName, Traffic, TrafficLoad

TOKENS_AFTER_LONG_PROMPTS = 8
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
"""What models call them in their configuration."""


class KindChoice(str, Enum):
    """Of ``--traffic``."""

    decode = "decode"
    prefill = "prefill"


class TrafficLoadChoice(str, Enum):
    """Of ``--load``."""

    skewed = "skewed"
    drifting = "drifting"
    switching = "switching"


def traffics_of(
    kinds: Sequence[KindChoice], loads: Sequence[TrafficLoadChoice], prompt_tokens: int, tokens: int
) -> list[Traffic]:
    """Every kind with every load.

    Args:
        kinds: Of traffic, each once.
        loads: In which domains follow each other, each once.
        prompt_tokens: Of long prompts.
        tokens: Generated after short ones.
    """
    lengths: dict[KindName, tuple[int, int]] = {
        "decode": (PROMPT_TOKENS, tokens),
        "prefill": (prompt_tokens, TOKENS_AFTER_LONG_PROMPTS),
    }
    return [
        _traffic(kind.value, load.value, *lengths[kind.value])
        for kind in dict.fromkeys(kinds)
        for load in dict.fromkeys(loads)
    ]


def _traffic(kind: KindName, load: TrafficLoad, prompt_tokens: int, tokens: int) -> Traffic:
    return Traffic(
        name=f"{kind}-{load}", kind=kind, load=load, prompt_tokens=prompt_tokens, tokens=tokens
    )


def random_domains(shape: ModelShape, traffics: Sequence[Traffic]) -> dict[str, Domain]:
    """Those of a random model, by their names.

    Raises:
        ConfigError: A prompt and what follows it are longer than the model takes.
    """
    longest = max(one.prompt_tokens + one.tokens for one in traffics)
    if longest > shape.max_positions:
        raise ConfigError(
            f"prompts with their completions have up to {longest} tokens, and the model takes "
            f"{shape.max_positions}: lower --prompt-tokens or --tokens"
        )
    found = token_domains(shape.vocabulary)
    return {f"domain {number}": domain for number, domain in enumerate(found, 1)}


def domains_of_texts(prompts: Sequence[str]) -> dict[str, Domain]:
    """Those of ``--prompts NAME=FILE``, by their names.

    Raises:
        ConfigError: There is none, one has no name or one is named twice, or a file has none.
    """
    if not prompts:
        raise ConfigError("--model: what it is to be asked is needed: add --prompts NAME=FILE")
    files: dict[str, Path] = {}
    for one in prompts:
        name, equals, file = one.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"--prompts {one}: give NAME=FILE, the name of a domain and its file")
        if name in files:
            raise ConfigError(f"--prompts {one}: there is another {name}. Give each a name")
        files[name] = Path(file)
    return {name: text_domain(read_texts(file)) for name, file in files.items()}


def require_model(folder: Path, redundant: int, ranks: int) -> None:
    """Refuse a folder that no server could start with.

    Raises:
        ConfigError: It is no model's, or ranks cannot share its experts.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model {folder} is no folder of a model: {error}") from error
    experts = next((config[name] for name in _EXPERTS if name in config), None)
    if not isinstance(experts, int):
        raise ConfigError(f"--model {folder}: {file} tells of no routed experts")
    require_even_slots(experts, redundant, ranks)


def refuse_beside_a_model(given: Mapping[str, object]) -> None:
    """Refuse what only a random model has.

    Args:
        given: Options by their names with underscores; None: not given.

    Raises:
        ConfigError: One is given.
    """
    for name, value in given.items():
        if value is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} belongs to a random model, and --model names another")


def refuse_without_a_model(prompts: Sequence[str] | None) -> None:
    """Refuse texts for a random model, which knows no words.

    Raises:
        ConfigError: There are some.
    """
    if prompts:
        raise ConfigError(
            f"--prompts {prompts[0]}: a random model has domains of its own. Add --model, or "
            "leave it out"
        )
