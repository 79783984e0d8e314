#!/bin/sh
# Runs the session's command and reports how it ended. init.sh sources this; where systemd is process 1, the unit
# parent-session.service runs it as a program instead, which has to set up what init.sh has already.

if [ $$ -ne 1 ]; then
    . /parent/settings
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LANG=C.UTF-8
    ports=/dev/virtio-ports
    exec 9>$ports/status
fi
mkdir -p /run/parent

# Copies a stream of the command to its port and counts the bytes. A pipe lies between them because a program may open
# /dev/stdout again, which a port refuses.
relay() { # name
    trap '' TERM
    tee "$ports/$1" <"/run/parent/$1.pipe" | wc -c >"/run/parent/$1.bytes"
}

# Tells what the command left running to end: everything that runs, or with systemd, whose services are not the
# command's, what is in the unit's control group.
end_the_rest() {
    if [ $$ -eq 1 ]; then
        kill -TERM -1
    else
        # They may end by themselves meanwhile.
        kill -TERM $(grep -vx $$ "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/cgroup.procs") 2>/dev/null
    fi
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
    end_the_rest
    (sleep 2; killall -q -KILL tee) &
    wait $out $err
}

run_on_terminal() {
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

if [ -n "$TERMINAL" ]; then run_on_terminal; else run_with_ports; fi
sync
echo "exit $code $(cat /run/parent/stdout.bytes) $(cat /run/parent/stderr.bytes)" >&9
# The machine is ended from outside, once all output has arrived there.
while :; do sleep 3600; done
