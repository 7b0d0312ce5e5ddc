# Sourced by fetch-release and fetch-triton: what tests need besides .venv, fetched once.

cache="${EPLB_RELEASES_DIR:-${XDG_CACHE_HOME:-${HOME:-/dev/null}/.cache}/vllm-eplb-plugin/releases}"
# Without a home to write to, as some users of containers are, it is kept in the checkout.
if [[ -z ${EPLB_RELEASES_DIR:-} ]] && ! { mkdir -p "$cache" && [[ -w $cache ]]; } 2>/dev/null; then
    cache="$PWD/build/releases"
fi

# fetch FOLDER REQUIREMENT [OPTION...]: install REQUIREMENT, nothing that it needs, into FOLDER,
# and run `trim PARTIAL` before it gets its name: a folder that is there is complete.
fetch() {
    mkdir -p "$cache"
    partial=$(mktemp -d "$cache/.fetch.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    if ! uv pip install --quiet --no-cache --no-deps --python .venv --target "$partial" \
        "${@:3}" "$2" >&2; then
        echo "$2 could not be fetched, so nothing was tested with it." \
            "Check the network and run this again." >&2
        exit 1
    fi
    trim "$partial"
    mv "$partial" "$1"
}
