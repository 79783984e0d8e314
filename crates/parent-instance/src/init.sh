#!/bin/sh
# Process 1 of a parent instance: makes a Linux host of the machine, then runs one command and reports how it ended. Or,
# if that was asked for, it becomes systemd, which makes the rest of the host and runs the command as a unit.
#
# Beside it in /parent: `settings`, shell variables that say what was asked for, `command`, the command as a script, and
# `session.sh`, which runs it.
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

mount_kernel_file_systems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
}

# systemd mounts these itself.
mount_other_file_systems() {
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

mount_kernel_file_systems
open_ports $PORTS
exec 9>$ports/status
echo init >&9

[ -n "$SYSTEMD" ] || mount_other_file_systems
mkdir -p /tmp /var/log /var/tmp /root
chmod 1777 /tmp /var/tmp
hostname parent
ip link set lo up
[ -z "$SHARE" ] || mount_share
check_hugepages 2048 "$HUGEPAGES_2M"
[ "$HUGEPAGES_1G" -eq 0 ] || check_hugepages 1048576 "$HUGEPAGES_1G"
cd /root
[ -z "$SYSTEMD" ] || exec /lib/systemd/systemd 9>&-
[ -z "$DAEMON" ] || start_daemon

# shellcheck source=session.sh
. /parent/session.sh
