#!/bin/sh
# The first process of a test host: gives it folders and a name of its own, then becomes its sshd.
#
#   boot.sh CHASSIS NAME SSHD
#
# It is started in namespaces of its own (net, mount, pid, uts), so nothing here is seen outside,
# and all of it is gone when its last process is. CHASSIS is the host's folder on the real machine;
# its disk/ holds what the host keeps while it is switched off.
set -eu
chassis=$1
name=$2
sshd=$3

# What follows is taken from /mnt, because the chassis itself may lie in a folder that is about to
# be covered.
mount --bind "$chassis" /mnt
for folder in opt home root tmp var/lib var/log var/tmp; do
    mount --bind "/mnt/disk/$folder" "/$folder"
done

# A fresh /run also hides the real machine's systemd and docker sockets.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd /run/lock
mount -t proc proc /proc
echo "$name" > /proc/sys/kernel/hostname

for file in hosts hostname machine-id shadow; do
    if [ -f "/etc/$file" ]; then
        mount --bind "/mnt/etc/$file" "/etc/$file"
    fi
done

# Root of a host is root of the real machine; what is not the host's own it can only read.
mount -o remount,bind,ro /

cd /
exec "$sshd" -D -e -f /mnt/etc/sshd_config
