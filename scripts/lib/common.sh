# shellcheck shell=bash
# Functions that the scripts share: paths, messages, finding cargo, free ports, starting and ending processes.
# Source this file. It only defines $root and functions.

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

# value ARGUMENTS…: prints the one behind the first, which is an option. Use it in an assignment of its own, which ends the script without one.
value() {
    [[ -n ${2:-} ]] || die "$1 needs a value behind it"
    printf '%s' "$2"
}

# Puts cargo into PATH. Non-login shells often lack it, and HOME may differ from the home that Rust was installed in.
find_cargo() {
    local home dir
    # The home in the password file, not $HOME.
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
    # The cargo of rustup looks for its toolchains below $HOME.
    if [[ -z ${RUSTUP_HOME:-} && ! -d ${HOME:-}/.rustup && -d $home/.rustup ]]; then
        export RUSTUP_HOME="$home/.rustup"
    fi
    export PATH
}

# Removes settings of the caller's environment, so that they do not reach the servers that a script starts.
forget_settings() {
    local name
    for name in $(compgen -e | grep -E '^(KTRDR_|WORKER_|NATS_)' || true); do
        [[ $name == NATS_SERVER || $name == KTRDR_TEST_* ]] || unset "$name"
    done
}

# Prints the directory that cargo builds into: CARGO_TARGET_DIR, the configured one, or target/.
target_dir() {
    (cd "$root" && cargo metadata --no-deps --format-version 1) |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# free_ports WANTED…: prints one port per line for each wanted port: that port if it is free, otherwise another free one.
free_ports() {
    python3 - "$@" <<'PY'
import random, socket, sys

held = []

def take(port):
    probe = socket.socket()
    # As servers do: otherwise a port whose last connection has just ended counts as taken.
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
    # Connecting finds a listener on all addresses; binding finds one on 127.0.0.1.
    taken = wanted != 0 and listening(wanted)
    port = None if taken or wanted == 0 else take(wanted)
    while port is None:
        # Below the ports of outgoing connections: one of those would take it before the server listens.
        port = take(random.randrange(10000, 32000))
    print(port)
PY
}

# spawn LOG COMMAND…: starts COMMAND in the background in its own process group and sets $spawned to its process id. Ctrl-C
# then reaches only the script, which ends the processes in order. Output goes to the file LOG; - keeps the script's output.
spawn() {
    local log=$1
    shift
    # Job control gives the job its own group. Without it, background commands also ignore SIGINT.
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

# end_group PID [SECONDS]: sends SIGTERM to the process group PID, waits, and kills what is left.
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
