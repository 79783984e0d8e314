#!/bin/sh
# Makes this host ready for demo.sh and puts everything back: hugepages for one enclave, a daemon of its own beside any
# that runs already. Needs root. Arguments: demo.sh, its two EIFs, and `keep` for a shell afterwards. The programs are in
# PATH.
# Exit status 75 means that the hugepages could not be had and that nothing was begun.
set -eu
demo=$1 hello=$2 attest=$3 keep=${4:-}
pages=${HUGEPAGES:-/sys/kernel/mm/hugepages/hugepages-2048kB}
needed=256

too_few() {
    echo "$1, but the enclave needs $needed hugepages of 2 MiB: it runs in a parent instance" >&2
    exit 75
}
[ -w "$pages/nr_hugepages" ] || too_few "no hugepages can be reserved in $pages"
before=$(cat "$pages/nr_hugepages")
run=$(mktemp -d)
daemon=

put_back() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    echo "$before" >"$pages/nr_hugepages"
    rm -r "$run"
}
trap put_back EXIT
trap 'exit 130' INT TERM HUP

# Free and not promised to anybody.
available() {
    echo $(($(cat "$pages/free_hugepages") - $(cat "$pages/resv_hugepages")))
}
missing=$((needed - $(available)))
# The kernel reserves as many as it can and does not call fewer an error.
[ "$missing" -le 0 ] || echo $((before + missing)) >"$pages/nr_hugepages" || true
[ "$(available)" -ge "$needed" ] || too_few "this host's memory has room for $(available) hugepages"

export ENCLAVED_SOCKET="$run/enclaved.sock"
enclaved --foreground --run-directory "$run" --state-directory "$run/state" 2>"$run/log" &
daemon=$!
until [ -S "$ENCLAVED_SOCKET" ]; do
    kill -0 "$daemon" 2>/dev/null || {
        cat "$run/log" >&2
        exit 1
    }
    sleep 0.1
done

sh "$demo" "$hello" "$attest"
[ -z "$keep" ] || "${SHELL:-/bin/sh}"
