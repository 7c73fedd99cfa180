# What .ci/run and .ci/nightly share: the machine, the steps, the table at the end.
#
# Wanted: Debian 12 (or a machine that has chromium, node, npm and git), bash, and Python 3.11, 3.12,
# 3.13 and 2.7 (Autobahn's) on PATH or under pyenv; as root, so that missing Debian packages can be
# installed. Only package registries are reached for.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

results=$(mktemp)

# record NAME RESULT SECONDS [NOTE]: into a file, because lanes are processes of their own.
record() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-}" >>"$results"; }

# step NAME BOUND COMMAND ...: run the command for at most BOUND seconds and note how it went.
step() {
    local name=$1 bound=$2 began=$SECONDS status
    shift 2
    printf '\n=== %s\n' "$name"
    timeout --kill-after=20 "$bound" "$@"
    status=$?
    case $status in
        0) record "$name" passed $((SECONDS - began)) ;;
        124 | 137) record "$name" failed $((SECONDS - began)) "still running after $bound s" ;;
        *) record "$name" failed $((SECONDS - began)) "status $status" ;;
    esac
}

# skip NAME WHY: what a machine cannot run. It counts as a failure: it was not tested.
skip() {
    printf '\n=== %s: skipped: %s\n' "$1" "$2"
    record "$1" skipped 0 "$2"
}

# session NAME BOUND [ARGUMENT ...]: one nox session, with its environment made afresh.
session() {
    local name=$1 bound=$2
    shift 2
    step "$name" "$bound" "$NOX" --no-color --no-reuse-existing-virtualenvs --session "$name" "$@"
}

# needs NAME COMMAND ...: whether every command is there; if not, NAME is skipped, saying which.
needs() {
    local name=$1 command missing=()
    shift
    for command; do command -v "$command" >/dev/null || missing+=("$command"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    skip "$name" "not on this machine: ${missing[*]}"
    return 1
}

# lanes FUNCTION ...: run them side by side, one for each core, and wait; each line of output says
# whose it is.
lanes() {
    local lane
    for lane; do
        { "$lane" 2>&1 </dev/null | sed -u "s/^/[$lane] /"; } &
    done
    wait
}

debian_packages() {
    local wanted=()
    command -v chromium >/dev/null || wanted+=(chromium)
    command -v git >/dev/null || wanted+=(git)
    command -v npm >/dev/null || wanted+=(nodejs npm)
    command -v ip >/dev/null || wanted+=(iproute2)
    command -v unshare >/dev/null || wanted+=(util-linux)
    command -v redis-server >/dev/null || wanted+=(redis-server)
    command -v valgrind >/dev/null || wanted+=(valgrind)
    [ ${#wanted[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || { echo "no apt-get; please install: ${wanted[*]}"; return 0; }
    printf '\n=== Debian packages: %s\n' "${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    timeout 300 apt-get update -qq &&
        timeout 600 apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null ||
        echo "apt-get failed; the sessions that need ${wanted[*]} will be skipped"
}

# pyenv's shims run only the version that is switched on, so its other versions go on PATH by
# themselves, behind the one in use: `python3` stays what it was.
pythons_on_path() {
    command -v pyenv >/dev/null || return 0
    local current folder others=""
    current=$(dirname "$(pyenv which python3)")
    for folder in "$(pyenv root)"/versions/{2.7,3.11,3.12,3.13}*/bin; do
        if [ -d "$folder" ] && [ "$folder" != "$current" ]; then others+=":$folder"; fi
    done
    PATH="$current$others:$PATH"
}

runner() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "python3 is $(python3 --version); 3.11 or newer is needed"; exit 1; }
    local wanted
    wanted=$(python3 -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["nox"])')
    python3 -m venv --clear .nox/runner &&
        .nox/runner/bin/pip install -q --disable-pip-version-check $wanted || exit 1
    NOX=$PWD/.nox/runner/bin/nox
}

# readme_command WORD: the line of README.md's code blocks that starts with `python3 -m venv` and
# holds WORD. Taken from there, so that what we run is what the README says.
readme_command() {
    local found
    found=$(grep -E "^python3 -m venv .*$1" README.md)
    [ "$(grep -c . <<<"$found")" = 1 ] || { echo "README.md: one command with $1 wanted" >&2; return 1; }
    printf '%s\n' "$found"
}

# readme_tests: the README's test command, to the letter, in a clean clone as its reader has it.
readme_tests() {
    local clone
    clone=$(mktemp -d) && git clone -q . "$clone" && cd "$clone" &&
        bash -c "$(readme_command pytest)"
    local status=$?
    rm -rf "$clone"
    return $status
}

# readme_server: the README's other command: the chat answers GET / and ends well on SIGINT.
readme_server() {
    local clone
    clone=$(mktemp -d) && git clone -q . "$clone" && cd "$clone" &&
        python3 "$OLDPWD/.ci/try_server.py" "$(readme_command server.py)"
    local status=$?
    rm -rf "$clone"
    return $status
}

# finish: the table, one line for machines, and the status: anything but "passed" is a failure.
finish() {
    local name result took note passed=0 failed=0 skipped=0
    printf '\n%-34s %-8s %5s  %s\n' session result sec note
    while IFS=$'\t' read -r name result took note; do
        printf '%-34s %-8s %5s  %s\n' "$name" "$result" "$took" "$note"
        case $result in
            passed) passed=$((passed + 1)) ;;
            skipped) skipped=$((skipped + 1)) ;;
            *) failed=$((failed + 1)) ;;
        esac
    done <"$results"
    rm -f "$results"
    printf '\nsessions in %s s (a skip is a failure: it was not tested), %s skipped:\n' "$SECONDS" "$skipped"
    printf '%s passed, %s failed\n' "$passed" $((failed + skipped))
    [ $((failed + skipped)) -eq 0 ] && [ "$passed" -gt 0 ]
}

export -f readme_command readme_tests readme_server
