# Sourced by scripts/setup: where PyTorch comes from.

# Its CPU build is not among a package index's ordinary wheels: it is in a folder that pip looks in
# (PIP_FIND_LINKS), or where uv knows that PyTorch keeps it.
choose_torch() { # ENVIRONMENT VERSION; sets torch_source and torch_version
    local folder folders=() try=(uv pip install --quiet --dry-run --no-deps --python "$1")
    for folder in ${PIP_FIND_LINKS:-}; do
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
    echo "The CPU build of PyTorch $2 for this Python is neither in PIP_FIND_LINKS nor to be had" \
        "from PyTorch: taking the CUDA build, which works on a CPU, too, but does not load" \
        "without CUDA's libraries, several GB." >&2
}
