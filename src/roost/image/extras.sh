#!/bin/sh
# What an image has beside HTCondor, so that jobs can mount data; run once, after install.sh.
# usage: extras.sh RELEASE [NAME…]
set -eu
release=$1
shift
export DEBIAN_FRONTEND=noninteractive

[ $# = 0 ] || case $release in
  forky) apt-get update -qq -o Acquire::Check-Valid-Until=false ;;
  *) apt-get update -qq ;;
esac
for name; do
  case $name in
    rclone | sshfs) apt-get install -qq -y --no-install-recommends "$name" > /tmp/output 2>&1 ||
      { tail -n 20 /tmp/output >&2; exit 1; } ;;
    *) echo "--with '$name' is unknown: it is rclone or sshfs" >&2; exit 2 ;;
  esac
done
# Every FUSE client mounts by way of one of these names: in a job's world roost's own answers. The
# clients' packages bring a set-uid program, which could do nothing in a node.
for name in fusermount3 fusermount; do
  ln -sf /usr/lib/roost/fusermount "/usr/bin/$name"
done
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old \
       /var/lib/dpkg/*-old /tmp/*
find /var/log -type f -delete
