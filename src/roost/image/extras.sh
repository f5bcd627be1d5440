#!/bin/sh
# What an image has beside HTCondor, so that jobs can mount data; run once, after install.sh.
# usage: extras.sh RELEASE [NAME…]
set -eu
release=$1
shift
export DEBIAN_FRONTEND=noninteractive

quietly() { "$@" > /tmp/output 2>&1 || { tail -n 20 /tmp/output >&2; exit 1; }; }
install() { quietly apt-get install -qq -y --no-install-recommends "$@"; }

[ $# = 0 ] || case $release in
  forky) apt-get update -qq -o Acquire::Check-Valid-Until=false ;;
  *) apt-get update -qq ;;
esac
for name; do
  case $name in
    rclone | sshfs) install "$name" ;;
    onedata)
      # roost brought the wheels, their hashes checked: see onedata/requirements.txt.
      install libfuse3-4 python3-requests python3-packaging
      for wheel in /tmp/onedata/*.whl; do
        python3 -m zipfile -e "$wheel" /usr/lib/roost/onedata
      done
      python3 -m compileall -q /usr/lib/roost/onedata
      cat > /usr/bin/roost-onedata <<'END'
#!/usr/bin/python3 -I
"""Serves a space of Onedata to a job: see roost_node/data/onedata/serve.py."""
import sys

sys.path[:0] = ["/usr/lib/roost", "/usr/lib/roost/onedata"]

from roost_node.data.onedata.serve import main

sys.exit(main(sys.argv[1:]))
END
      # Every startd asks each plugin what it is for: a shell answers that at once.
      cat > /usr/lib/roost/onedata-plugin <<'END'
#!/bin/sh
# HTCondor's file-transfer plugin for onedata:// URLs: see roost_node/data/onedata/plugin.py.
[ "$1" = -classad ] || exec /usr/bin/roost-onedata "$@"
cat << AD
PluginVersion = "1.0"
PluginType = "FileTransfer"
MultipleFileSupport = true
ProtocolVersion = 2
SupportedMethods = "onedata"
AD
END
      chmod 755 /usr/bin/roost-onedata /usr/lib/roost/onedata-plugin ;;
    oneclient)
      # As the vendor's documentation says, from its conda channel: it has no package for Debian.
      # Not tested: the channel cannot be reached where roost is.
      install curl bzip2 fuse3
      curl -fsSL https://micro.mamba.pm/api/micromamba/linux-64/latest | tar -xj -C /tmp bin/micromamba
      quietly /tmp/bin/micromamba create -y -r /tmp/mamba -p /opt/oneclient -c conda-forge -c onedata oneclient
      ln -s /opt/oneclient/bin/oneclient /usr/bin/oneclient
      quietly apt-get purge -qq -y --auto-remove curl bzip2 ;;
    *) echo "--with '$name' is unknown: it is rclone, sshfs, onedata or oneclient" >&2; exit 2 ;;
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
