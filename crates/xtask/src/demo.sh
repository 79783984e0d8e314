#!/bin/sh
# The demonstration: one enclave from its start to its end. Each command is shown before it runs; nothing here cannot be
# typed. It expects the daemon to run, nitro-cli in PATH, 512 MiB of free 2 MiB hugepages, and the EIF as its argument.
set -eu
eif=$1

step() {
    echo
    echo "# $1"
    shift
    echo "\$ $*"
}

step "Start an enclave of two CPUs and 512 MiB that may be watched" \
    "nitro-cli run-enclave --eif-path $eif --memory 512 --cpu-count 2 --debug-mode"
answer=$(nitro-cli run-enclave --eif-path "$eif" --memory 512 --cpu-count 2 --debug-mode)
echo "$answer"
id=$(echo "$answer" | sed -n 's/.*"EnclaveID": "\([^"]*\)".*/\1/p')

step "It runs, and this is what was measured of it" "nitro-cli describe-enclaves"
nitro-cli describe-enclaves

step "Its console, the application's lines" "nitro-cli console --enclave-id $id | grep -m 3 Hello"
timeout 120 nitro-cli console --enclave-id "$id" | grep -m 3 Hello || {
    echo "the application has not said hello three times within two minutes" >&2
    exit 1
}

step "End it" "nitro-cli terminate-enclave --enclave-id $id"
nitro-cli terminate-enclave --enclave-id "$id"

step "Nothing is left, and its memory is free again" "nitro-cli describe-enclaves; grep HugePages_ /proc/meminfo"
left=$(nitro-cli describe-enclaves)
echo "$left"
grep HugePages_ /proc/meminfo
[ "$left" = "[]" ]
