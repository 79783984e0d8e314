#!/bin/sh
# Makes this host ready for demo.sh and puts everything back: hugepages for one enclave, a daemon of its own beside any
# that runs already. Needs root. Arguments: demo.sh, the EIF, and `keep` for a shell afterwards. The programs are in PATH.
set -eu
demo=$1 eif=$2 keep=${3:-}
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
needed=256

[ "$(id -u)" -eq 0 ] || {
    echo "reserving hugepages and running the daemon need root" >&2
    exit 1
}
before=$(cat $pages/nr_hugepages)
run=$(mktemp -d)
daemon=

put_back() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    echo "$before" >$pages/nr_hugepages
    rm -r "$run"
}
trap put_back EXIT
trap 'exit 130' INT TERM HUP

free=$(cat $pages/free_hugepages)
[ "$free" -ge $needed ] || echo $((before + needed - free)) >$pages/nr_hugepages

export ENCLAVED_SOCKET="$run/enclaved.sock"
enclaved --foreground --run-directory "$run" 2>"$run/log" &
daemon=$!
until [ -S "$ENCLAVED_SOCKET" ]; do
    kill -0 "$daemon" 2>/dev/null || {
        cat "$run/log" >&2
        exit 1
    }
    sleep 0.1
done

sh "$demo" "$eif"
[ -z "$keep" ] || "${SHELL:-/bin/sh}"
