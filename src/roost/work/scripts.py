"""What tasks need on the access point: run there in its shell, as the user whose jobs they are."""

from __future__ import annotations

from typing import Final

from roost.queue.jobs import DIRECTORY

#: Says whether the Python named $1 is there; one that nobody has used for a week is removed.
HAS_PYTHON: Final = """
cd && mkdir -p -m 700 .cache/roost && cd .cache/roost || exit
find . -mindepth 1 -maxdepth 1 -name 'python-*' ! -name "python-$1*" -mtime +7 \
  -exec rm -rf -- {} +
touch -c -- "python-$1" && [ -d "python-$1" ] && pwd
"""
DOES_NOT_RUN: Final = 9
#: Takes it from stdin: as an archive for jobs, and unpacked for what runs here. Whether it runs
#: here shows whether it will there.
PUT_PYTHON: Final = f"""
cd && umask 077 && cd .cache/roost && new=$(mktemp -d python-new.XXXXXX) || exit
trap 'rm -rf -- "$new"' EXIT
cat >"$new/python.tar.gz" && tar -xzf "$new/python.tar.gz" -C "$new" || exit
"$new/python/bin/python3" -I -c pass || exit {DOES_NOT_RUN}
mv -T -- "$new" "python-$1" 2>/dev/null || [ -d "python-$1" ] || exit
pwd
"""
MAKE: Final = """
cd && mkdir -p roost && root=$(mktemp -d "$PWD/roost/XXXXXXXX") && cd -- "$root" || exit
: >log; echo "$root"
"""
#: $1 is the directory, $2 a submit file in it.
SUBMIT: Final = """
umask 077; cd -- "$1" && tar -xf - && exec condor_submit -terse -single-cluster "$2"
"""
#: $1 is the directory: jobs that are left go, and then their files.
_DISCARD: Final = f"""
condor_rm -constraint "{DIRECTORY} == \\"$1\\"" >/dev/null 2>&1; rm -rf -- "$1"
"""
#: The log as it grows. It ends when its input does, which is when the program does that asked for
#: the tasks, however that ends; then it leaves nothing behind.
FOLLOW: Final = f"""
tail -n +1 -F -- "$1/log" 2>/dev/null & cat >/dev/null; kill $!
{_DISCARD}"""
#: $2 is the Python, $3 a program that ends when its input does; its last complaint is told.
SCHEDULE: Final = f"""
"$2/python/bin/python3" -I -c "$3" 2>"$1/said" || tail -n 1 "$1/said"
{_DISCARD}"""
RELAY: Final = 'exec /usr/bin/python3 -I -S -c "$1" "$2"'
#: Files that are not there are left out.
FETCH: Final = """
cd -- "$1" && shift && for name; do [ -e "$name" ] && printf '%s\\0' "$name"; done |
tar --null --remove-files -T - -cf -
"""
REMOVE: Final = 'condor_rm "$@" >/dev/null 2>&1; :'
