# Sourced by the other scripts: where things are, and where packages come from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TOOLS=build/tools
readonly UV_VERSION=0.13.9

# As pip does: trust what the machine trusts, so that a proxy's own certificate works.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"

# What is fetched is kept below the user's cache, or in the checkout where there is no home to
# write to, as for some users of containers.
caches="${XDG_CACHE_HOME:-${HOME:-/dev/null}/.cache}"
if ! { mkdir -p "$caches" && [[ -w $caches ]]; } 2>/dev/null; then
    caches="$PWD/build/cache"
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$caches/uv}"
fi
readonly caches

# Names of Python in the order in which they are tried.
readonly PYTHONS=(python3.11 python3.12 python3.13 python3.14 python3)

fetch_uv() {
    local python
    for python in ${PYTHON:+"$PYTHON"} "${PYTHONS[@]}"; do
        "$python" -m pip --version >/dev/null 2>&1 || continue
        # -qq: a warning about the settings of somebody's pip is nothing that a user can act on here.
        "$python" -m pip install -qq --root-user-action ignore --disable-pip-version-check \
            --target "$TOOLS" "uv==$UV_VERSION" && return
    done
    UV_ON_PATH=$(type -P uv) && return
    echo "Neither a Python with pip nor uv is on PATH, one of which gets the packages." >&2
    echo "Install one, as Debian's: sudo apt-get install python3-pip" >&2
    exit 2
}

uv() {
    [[ -x $TOOLS/bin/uv || -n ${UV_ON_PATH:-} ]] || fetch_uv
    local uv=$TOOLS/bin/uv
    [[ -x $uv ]] || uv=$UV_ON_PATH
    "$uv" "$@"
}
