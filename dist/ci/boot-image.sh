#!/bin/sh
# Builds an enclave image and boots it, as a CI job does. Passes once the enclave has printed a certain line; if it does not within
# a time limit, or ends before, shows what it has printed and fails. Leaves nothing running.
#
#   boot-image.sh IMAGE LINE
#
# IMAGE is what `nitro-cli build-enclave --docker-uri` takes: an image of a registry, an archive, a directory. To be run as root on
# a machine with the package enclaved and a KVM that runs guests. From the environment:
#
#   MEMORY   of the enclave, in MiB [512]; at least four times the image
#   LIMIT    seconds until the line must have come [120]
set -eu

usage="usage: boot-image.sh IMAGE LINE"
image=${1:?$usage}
line=${2:?$usage}
memory=${MEMORY:-512}
limit=${LIMIT:-120}

directory=$(mktemp -d)
name=ci-$$
# Ends by a signal too, so that a job that is cancelled leaves nothing.
trap 'exit 130' INT
trap 'exit 143' TERM HUP
finish() {
    nitro-cli terminate-enclave --enclave-name "$name" >/dev/null 2>&1 || true
    rm -rf "$directory"
}
trap finish EXIT

# Enclaves take their memory from hugepages; a machine that was not prepared has none.
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
missing=$(((memory + 1) / 2 - $(cat "$pages/free_hugepages")))
if [ "$missing" -gt 0 ]; then
    echo $(($(cat "$pages/nr_hugepages") + missing)) >"$pages/nr_hugepages"
fi

# Tells what this machine lacks, if anything; what counts is whether the enclave boots.
nitro-cli doctor || true

nitro-cli build-enclave --docker-uri "$image" --output-file "$directory/image.eif"
nitro-cli run-enclave --eif-path "$directory/image.eif" --memory "$memory" --cpu-count 2 --debug-mode --enclave-name "$name"
# Unlike its console, the log of an enclave can be read when it has ended.
timeout "$limit" nitro-cli logs --enclave-name "$name" --follow >"$directory/console" &
watcher=$!
until grep -q -F -e "$line" "$directory/console"; do
    if ! kill -0 "$watcher" 2>/dev/null && ! grep -q -F -e "$line" "$directory/console"; then
        cat "$directory/console"
        echo "boot-image.sh: the enclave did not print: $line" >&2
        exit 1
    fi
    sleep 1
done
grep -m 1 -F -e "$line" "$directory/console"
