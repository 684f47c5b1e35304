# shellcheck shell=bash
# What the scripts share: where things are, how cargo and nats-server are found, how children are started and ended.
# Source it; it changes into nothing and starts nothing by itself.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# need PROGRAM WHAT-FOR
need() {
    command -v "$1" >/dev/null 2>&1 || die "$1 is needed $2 and was not found in PATH"
}

# Puts cargo into PATH. Non-login shells often lack it, and HOME may be another directory than the one Rust was installed for.
find_cargo() {
    local home dir
    # The entry of the password file, whatever HOME says.
    home=$(eval "printf '%s' ~$(id -un)")
    if ! command -v cargo >/dev/null 2>&1; then
        for dir in "${CARGO_HOME:-}/bin" "${HOME:-}/.cargo/bin" "$home/.cargo/bin" /usr/local/cargo/bin /opt/homebrew/bin; do
            if [[ -x $dir/cargo ]]; then
                PATH="$dir:$PATH"
                break
            fi
        done
    fi
    command -v cargo >/dev/null 2>&1 || die "cargo is needed and was not found: install Rust 1.90 or newer"
    # rustup's cargo looks for its toolchains below HOME.
    if [[ -z ${RUSTUP_HOME:-} && ! -d ${HOME:-}/.rustup && -d $home/.rustup ]]; then
        export RUSTUP_HOME="$home/.rustup"
    fi
    export PATH
}

# Settings in the caller's environment must not reach the servers that a script starts for itself.
forget_settings() {
    local name
    for name in $(compgen -e | grep -E '^(KTRDR_|WORKER_|NATS_)' || true); do
        [[ $name == NATS_SERVER || $name == KTRDR_TEST_* ]] || unset "$name"
    done
}

# Where cargo builds to: CARGO_TARGET_DIR, a configuration file, or target/.
target_dir() {
    (cd "$root" && cargo metadata --no-deps --format-version 1) |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# free_ports WANTED…: for each wanted port that port if nobody listens there, otherwise any free one. All different.
free_ports() {
    python3 - "$@" <<'PY'
import socket, sys

held = []

def take(port):
    probe = socket.socket()
    # As servers do: a port whose last connection has just ended is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        return None
    held.append(probe)
    return probe.getsockname()[1]

def listening(port):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0

for wanted in map(int, sys.argv[1:]):
    # A listener on all addresses is found by connecting, one on 127.0.0.1 by binding.
    taken = wanted != 0 and listening(wanted)
    print((None if taken else take(wanted)) or take(0))
PY
}

# spawn LOG COMMAND…: starts COMMAND in the background in a process group of its own, so that Ctrl-C reaches this script
# alone and the script decides in which order things end. Output goes to LOG (- for this script's own). Sets $spawned.
spawn() {
    local log=$1
    shift
    # Job control gives the job its own group; without it background commands would also ignore SIGINT for ever.
    set -m
    if [[ $log == - ]]; then
        "$@" &
    else
        "$@" >"$log" 2>&1 </dev/null &
    fi
    # shellcheck disable=SC2034  # for the caller
    spawned=$!
    set +m
}

# end_group PID [SECONDS]: asks the group started as PID to stop, waits, and kills what is left.
end_group() {
    local pid=$1 seconds=${2:-5} waited
    kill -TERM -- "-$pid" 2>/dev/null || return 0
    for ((waited = 0; waited < seconds * 20; waited++)); do
        kill -0 -- "-$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
