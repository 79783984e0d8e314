#!/bin/sh
# The demonstration: one enclave from its start to its end, then another that is given a secret once it has proved what it
# is. Each command is shown before it runs; nothing here cannot be typed. It expects the daemon to run, nitro-cli and
# attest-client in PATH, 512 MiB of free 2 MiB hugepages, and hello.eif and attest.eif as its arguments.
set -eu
hello=$1 attest=$2
run=$(dirname "${ENCLAVED_SOCKET:-/run/enclaved/enclaved.sock}")
root=$(mktemp)
trap 'rm -f "$root"' EXIT

step() {
    echo
    echo "# $1"
    shift
    echo "\$ $*"
}

# The value of a key in JSON as nitro-cli prints it.
value_of() {
    sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"
}

step "Start an enclave of two CPUs and 512 MiB that may be watched" \
    "nitro-cli run-enclave --eif-path $hello --memory 512 --cpu-count 2 --debug-mode"
answer=$(nitro-cli run-enclave --eif-path "$hello" --memory 512 --cpu-count 2 --debug-mode)
echo "$answer"
id=$(echo "$answer" | value_of EnclaveID)

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

step "Start an enclave that nobody may watch" \
    "nitro-cli run-enclave --eif-path $attest --memory 512 --cpu-count 2"
answer=$(nitro-cli run-enclave --eif-path "$attest" --memory 512 --cpu-count 2)
echo "$answer"
id=$(echo "$answer" | value_of EnclaveID)

step "What enclaves of this image measure, and the root that vouches for those of this machine" \
    "nitro-cli describe-eif --eif-path $attest | grep PCR0; nitro-cli attestation-root >$root"
nitro-cli describe-eif --eif-path "$attest" | grep PCR0
pcr0=$(nitro-cli describe-eif --eif-path "$attest" | value_of PCR0)
nitro-cli attestation-root >"$root"

# By its CID, where the kernel carries its vsock; else by Unix sockets in its directory.
if [ -e "$run/$id/vsock.sock" ]; then
    at="--enclave-dir $run/$id"
else
    at="--enclave-cid $(echo "$answer" | sed -n 's/.*"EnclaveCID": \([0-9]*\).*/\1/p')"
fi

step "It proves what it is, and is given a secret that nobody else can read" \
    "echo tell-nobody | attest-client $at --root $root --pcr0 $pcr0 --secret-file -"
echo tell-nobody | attest-client $at --root "$root" --pcr0 "$pcr0" --secret-file -

step "It is not given what is for enclaves of another image" \
    "echo tell-nobody | attest-client $at --root $root --pcr0 <PCR0 of $hello> --secret-file -"
pcr0=$(nitro-cli describe-eif --eif-path "$hello" | value_of PCR0)
refused=0
echo tell-nobody | attest-client $at --root "$root" --pcr0 "$pcr0" --secret-file - || refused=$?
[ "$refused" = 1 ]

step "End it" "nitro-cli terminate-enclave --enclave-id $id"
nitro-cli terminate-enclave --enclave-id "$id"
