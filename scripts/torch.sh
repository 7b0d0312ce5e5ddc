# Sourced by scripts/setup: where PyTorch comes from.

# folders_of_pip: where pip looks besides its index, of which uv knows nothing: by the environment,
# else by its configuration, in which what is for installing comes first. No pip, no folders.
folders_of_pip() {
    local python configured section
    [[ -z ${PIP_FIND_LINKS:-} ]] || { echo "$PIP_FIND_LINKS" && return; }
    for python in ${PYTHON:+"$PYTHON"} "${PYTHONS[@]}"; do
        # "get" would leave out all files but one. A value is written as in Python's code.
        configured=$("$python" -m pip config list 2>/dev/null) || continue
        for section in install global; do
            sed -n "s/^$section\.find-links=//p" <<< "$configured" | sed "s/\\\\n/ /g; s/[\"']//g" |
                grep . && return
        done
        return 0
    done
}

# Its CPU build is not among a package index's ordinary wheels: it is in a folder that pip looks in,
# or where uv knows that PyTorch keeps it.
choose_torch() { # ENVIRONMENT VERSION; sets torch_source and torch_version
    local folder folders=() try=(uv pip install --quiet --dry-run --no-deps --python "$1")
    for folder in $(folders_of_pip); do
        # As pip does, and no shell in the middle of a variable.
        [[ $folder != "~/"* ]] || folder=$HOME/${folder#"~/"}
        folders+=(--find-links "$folder")
    done
    torch_version=$2+cpu
    torch_source=("${folders[@]}")
    if [[ -n ${folders[*]} ]] &&
        "${try[@]}" --no-index "${folders[@]}" "torch==$torch_version" 2>/dev/null; then
        return
    fi
    # What is there stays, also where it cannot be had again.
    torch_source=()
    "${try[@]}" --offline --no-index "torch==$torch_version" 2>/dev/null && return
    torch_source=(--torch-backend cpu)
    "${try[@]}" "${torch_source[@]}" "torch==$torch_version" 2>/dev/null && return
    torch_version=$2
    torch_source=()
    echo "The CPU build of PyTorch $2 for this Python is neither in a folder that pip looks in" \
        "(PIP_FIND_LINKS, or find-links in its configuration) nor to be had from PyTorch: taking" \
        "the CUDA build, which works on a CPU, too, but does not load without CUDA's libraries," \
        "several GB." >&2
}
