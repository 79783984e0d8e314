#!/bin/sh
# /init of a parent instance: the kernel starts it on the root file system it has unpacked the initramfs into.
#
# pivot_root(2) refuses to leave that file system, and sandboxes use pivot_root. So the same files are mounted once more,
# above it, and everything else runs there, as it would on a machine with a disk.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /above
mount -o bind / /above
cd /above
mount -o move . /
exec chroot . /parent/init.sh
