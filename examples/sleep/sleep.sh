#!/bin/sh
echo "sleeping for 20 seconds on $(hostname) as $(id -un)"
/bin/sleep 20
echo "done"
