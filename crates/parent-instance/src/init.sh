#!/bin/sh
# Process 1 of a parent instance: makes a Linux host of the machine, runs one command, reports how it ended.
#
# Beside it in /parent: `settings`, shell variables that say what was asked for, and `command`, the command as a script.
# What it reports through the port `status`, and why, is explained at the head of the crate `parent-instance`.

. /parent/settings
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LANG=C.UTF-8
ports=/dev/virtio-ports
daemon_log=/var/log/enclaved.log

# The kernel finds the ports after process 1 has started, so each is waited for. udev would make these names.
open_ports() {
    mkdir -p $ports
    for name in "$@"; do
        while ! device=$(grep -lx "$name" /sys/class/virtio-ports/*/name 2>/dev/null); do usleep 10000; done
        device=${device%/name}
        ln -s "/dev/${device##*/}" "$ports/$name"
    done
}

# A machine that cannot be what was asked for runs no command.
fail() {
    echo "failed $*" >&9
    while :; do sleep 3600; done
}

mount_file_systems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mkdir -p /dev/pts /dev/shm /dev/hugepages
    mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tracefs tracefs /sys/kernel/tracing
    mount -t hugetlbfs hugetlbfs /dev/hugepages
    ln -s /proc/self/fd /dev/fd
    ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout
    ln -s fd/2 /dev/stderr
}

mount_share() {
    mkdir -p /share
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap share /share ||
        fail "the shared directory cannot be mounted"
}

# The kernel has reserved them; it says only in its log if it could not.
check_hugepages() { # size in KiB, pages for each node
    for node in /sys/devices/system/node/node*; do
        pages=$(cat "$node/hugepages/hugepages-${1}kB/nr_hugepages" 2>/dev/null)
        [ "${pages:-0}" -eq "$2" ] || fail "${node##*/} has ${pages:-no} hugepages of $1 KiB, not $2: give it more memory"
    done
}

start_daemon() {
    enclaved --foreground >$daemon_log 2>&1 &
    daemon=$!
    until [ -S /run/enclaved/enclaved.sock ]; do
        kill -0 $daemon 2>/dev/null || fail "the daemon ended at once: $(tail -n 5 $daemon_log | tr '\n' ' ')"
        usleep 10000
    done
}

# Copies a stream of the command to its port and counts the bytes. A pipe lies between them because a program may open
# /dev/stdout again, which a port refuses.
relay() { # name
    trap '' TERM
    tee "$ports/$1" <"/run/parent/$1.pipe" | wc -c >"/run/parent/$1.bytes"
}

run_with_ports() {
    mkfifo /run/parent/stdout.pipe /run/parent/stderr.pipe
    relay stdout &
    out=$!
    relay stderr &
    err=$!
    echo ready >&9
    setsid /parent/command </dev/null >/run/parent/stdout.pipe 2>/run/parent/stderr.pipe 9>&-
    code=$?
    # What the command left running may hold its streams open: it is told to end, the daemon too, and if that does not
    # help the relays end.
    kill -TERM -1
    (sleep 2; killall -q -KILL tee) &
    wait $out $err
}

run_on_terminal() {
    mkdir -p /run/parent
    echo 0 >/run/parent/stdout.bytes
    echo 0 >/run/parent/stderr.bytes
    export TERM
    # Kept open: a terminal forgets its size when nobody has it open.
    exec 8<>/dev/hvc0
    stty rows "$ROWS" cols "$COLUMNS" <&8
    echo ready >&9
    setsid -c /parent/command <&8 >&8 2>&1 8>&- 9>&-
    code=$?
}

mount_file_systems
open_ports $PORTS
exec 9>$ports/status
echo init >&9

mkdir -p /run/parent /tmp /var/log /var/tmp /root
chmod 1777 /tmp /var/tmp
hostname parent
ip link set lo up
[ -z "$SHARE" ] || mount_share
check_hugepages 2048 "$HUGEPAGES_2M"
[ "$HUGEPAGES_1G" -eq 0 ] || check_hugepages 1048576 "$HUGEPAGES_1G"
cd /root
[ -z "$DAEMON" ] || start_daemon

if [ -n "$TERMINAL" ]; then run_on_terminal; else run_with_ports; fi
sync
echo "exit $code $(cat /run/parent/stdout.bytes) $(cat /run/parent/stderr.bytes)" >&9
# The machine is ended from outside, once all output has arrived there.
while :; do sleep 3600; done
