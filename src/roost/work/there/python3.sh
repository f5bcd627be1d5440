#!/bin/sh
# Starts the Python that came along, with the libraries that came with it.
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/../lib:$here/../lib64"
exec "$here"/python3.[0-9]* "$@"
