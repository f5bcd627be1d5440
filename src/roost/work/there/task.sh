#!/bin/sh
# One task: unpack the Python that came along, and run it. The result is there whatever happens.
: > "$1.result"
tar -xzf python.tar.gz && exec python/bin/python3 -I task.py "$1.task" "$1.result"
