# SPDX-License-Identifier: Apache-2.0
"""Options of ``vllm serve`` in a configuration: how they are spelt, and which are not for it.

vLLM takes ``_`` for ``-``, any beginning of a name that is the beginning of no other, ``no-`` and
``disable-`` before flags, and ``name.key`` for a value inside of JSON. Here names stand in full, so
that what is set is also what is seen.
"""

import re
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from eval.config.yaml_files import refuse_keys_given_twice
from eval.errors import ConfigError

_ONLY_HTTP = "servers listen on 127.0.0.1, with HTTP"

_KEPT = {
    "host": "servers listen on 127.0.0.1 only",
    "port": "use serve.port",
    "model": "use model",
    "model-tag": "use model",
    "served-model-name": "the questions name the model as model does",
    "additional-config": "use plugin",
    "enable-eplb": "use eplb of an arm",
    "eplb-config": "use eplb of an arm",
    "config": "write what is in that file into serve.options",
    "uds": _ONLY_HTTP,
    "grpc": _ONLY_HTTP,
    "headless": "a server without its HTTP cannot be asked",
    "root-path": "the questions go to /v1/completions",
    "ssl-keyfile": _ONLY_HTTP,
    "ssl-certfile": _ONLY_HTTP,
    "ssl-ca-certs": _ONLY_HTTP,
    "ssl-cert-reqs": _ONLY_HTTP,
    "ssl-ciphers": _ONLY_HTTP,
    "enable-ssl-refresh": _ONLY_HTTP,
    "help": "it starts no server",
}
"""Set by the harness, or what it cannot do with; and why."""

SIZES = (
    "data-parallel-size",
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "prefill-context-parallel-size",
    "decode-context-parallel-size",
    "data-parallel-size-local",
)
"""Of parallel dimensions."""

_READ = (*SIZES, "all2all-backend", "dtype", "gpu-memory-utilization")
"""Those by which the harness decides something."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*(?P<inside>(?:\.[\w-]+)+\+?)?")


def check_options(options: Mapping[str, JsonValue]) -> None:
    """Refuse what vLLM would read otherwise than the harness does.

    Raises:
        ValueError: Names the option, the reason and what to write instead.
    """
    spelt: dict[str, str] = {}
    for name, value in options.items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(
                f"{name!r} is no name of an option: write it in full, in small letters and without "
                "dashes before it, such as tensor-parallel-size"
            )
        full = full_name(name)
        _refuse_kept(name, full.partition(".")[0])
        if full in spelt:
            raise ValueError(f"{spelt[full]!r} and {name!r} are the same option: give it once")
        spelt[full] = name
        _check_value(name, value)
    for size in SIZES:
        _check_size(size, options.get(spelt.get(size, size)))


def full_name(name: str) -> str:
    """An option's name as vLLM documents it."""
    head, dot, inside = name.partition(".")
    return f"{head.replace('_', '-')}{dot}{inside}"


def _refuse_kept(name: str, option: str) -> None:
    for kept, reason in _KEPT.items():
        if option in _forms(kept):
            raise ValueError(f"{name!r} is set by the harness: {reason}")
    if option in _READ:
        return
    for known in (*_KEPT, *_READ):
        if any(form.startswith(option) for form in _forms(known)):
            reason = _KEPT.get(known, "write it in full")
            raise ValueError(f"{name!r} is to vLLM the beginning of {known!r}: {reason}")


def _forms(option: str) -> tuple[str, ...]:
    """An option and what turns it off."""
    opposite = re.sub("^enable-", "disable-", option)
    return (option, f"no-{option}", opposite, f"no-{opposite}")


def _check_value(name: str, value: JsonValue) -> None:
    for text in _texts(value):
        if re.match(r"-(?![\d.])", text):
            raise ValueError(
                f"{name!r} has the value {text!r}, which vLLM would take for an option of its own"
            )
        try:
            refuse_keys_given_twice(text, repr(name))
        except ConfigError as error:
            raise ValueError(str(error)) from error


def _texts(value: JsonValue) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _check_size(name: str, value: JsonValue) -> None:
    least = 0 if name == "data-parallel-size-local" else 1
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name!r} must be a whole number of at least {least}, not {value!r}")
