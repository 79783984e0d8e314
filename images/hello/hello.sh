#!/bin/sh
# The example application: one line at once, then one every five seconds.
count=1
while true; do
    printf '[%4d] Hello from the enclave side!\n' "$count"
    count=$((count + 1))
    sleep 5
done
