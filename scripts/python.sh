# Sourced by the scripts that make an environment: which Python it gets.

# identify PYTHON: print its version and the path of the Python behind a shim or an environment;
# fail if it is none that the locked wheels are built for.
identify() {
    "$1" - 2>/dev/null <<'END'
import os, sys, sysconfig
if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print("%d.%d.%d" % sys.version_info[:3], base)
END
}

# fits IDENTITY LOWEST HIGHEST: whether its version is one of 3.LOWEST to 3.HIGHEST.
fits() {
    [[ $1 =~ ^3\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= $2 && BASH_REMATCH[1] <= $3))
}

# find_python LOWEST HIGHEST: the identity of PYTHON, else of the first on PATH that fits, else of
# one that uv brings.
find_python() {
    local python identity said wanted="Python 3.$1 to 3.$2"
    if [[ -n ${PYTHON:-} ]]; then
        identity=$(identify "$PYTHON") || identity=
        fits "$identity" "$1" "$2" && echo "$identity" && return
        said=$({ "$PYTHON" --version; } 2>&1 | head -1)
        echo "PYTHON is '$PYTHON' (${said##*: line *: }): $wanted is needed, as CPython." >&2
        echo "Set PYTHON to the path of one, or leave it unset to use what is on PATH." >&2
        return 2
    fi
    for python in "${PYTHONS[@]}"; do
        identity=$(identify "$python") && fits "$identity" "$1" "$2" && echo "$identity" && return
    done
    echo "No $wanted is on PATH: uv brings Python 3.$1." >&2
    if uv python install --quiet --no-bin "3.$1" >&2 &&
        identity=$(identify "$(uv python find --quiet --managed-python "3.$1")"); then
        echo "$identity" && return
    fi
    echo "uv could not bring one, which it gets from github.com. Install one of $wanted," >&2
    echo "as your distribution's python3.$1 or python3.$2, or set PYTHON to the path of one." >&2
    return 2
}

# choose_python ENVIRONMENT LOCK: set present to the identity of the Python that the environment has,
# and identity to that of the one it gets: what PYTHON says, else what it has if its lock is for it.
choose_python() {
    [[ $(head -1 "$2") =~ ^'# Python 3.'([0-9]+)' to 3.'([0-9]+)$ ]]
    local pythons=("${BASH_REMATCH[@]:1}")
    present=$(identify "$1/bin/python") || present=
    if [[ -n ${PYTHON:-} ]] || ! fits "$present" "${pythons[@]}"; then
        identity=$(find_python "${pythons[@]}")
    else
        identity=$present
    fi
}

# make_environment ENVIRONMENT: as choose_python has chosen; what another Python has made goes.
make_environment() {
    local had=${present:+"Python ${present%% *} (${present#* })"}
    if [[ -e $1 && $present != "$identity" ]]; then
        echo "$1 is made anew: it has ${had:-no Python that works}."
        rm -rf "$1"
    fi
    echo "Setting up $1 with Python ${identity%% *} (${identity#* }) ..."
    [[ -x $1/bin/python ]] || uv venv --quiet --python "${identity#* }" "$1"
}
