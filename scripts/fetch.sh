# Sourced by fetch-release and fetch-triton: what tests need besides .venv, fetched once.

cache="${EPLB_RELEASES_DIR:-$caches/vllm-eplb-plugin/releases}"

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
    # Another process may have been faster, whose folder is complete, too.
    mv --no-target-directory "$partial" "$1" 2>/dev/null || [[ -d $1 ]]
}
