#!/bin/sh
# One worker: unpack the Python that came along, and run it.
export TMPDIR="$PWD"
tar -xzf python.tar.gz && exec python/bin/python3 -I worker.py
