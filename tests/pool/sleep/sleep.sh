#!/bin/sh
echo "sleeping on $(hostname) as $(id -un)"
/bin/sleep 5
echo done
