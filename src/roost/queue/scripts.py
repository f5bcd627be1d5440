"""What runs in the access point, in its shell, as the user whose jobs they are."""

from __future__ import annotations

from typing import Final

from roost.queue.jobs import DIRECTORY

# $1 is the submission's directory; for WAIT, the cluster.

MAKE: Final = """
umask 022; cd && mkdir -p roost && root=$(mktemp -d "$PWD/roost/XXXXXXXX") || exit
if tar -xf - -C "$root"; then echo "$root"; else rm -rf -- "$root"; exit 1; fi
"""
ADD: Final = 'umask 022; exec tar -xf - -C "$1"'
# An initialdir must exist before HTCondor names the next one; it does so at each step.
PARSE: Final = """
root=$1; umask 022; cd -- "$2" || exit
until rm -f "$root/.ads"; condor_submit -terse -single-cluster -disable -dump "$root/.ads" "./$3" \
    >"$root/.err" 2>&1; do
  dir=$(sed -n 's/.*ERROR: No such directory: //p' "$root/.err" | head -n 1)
  case $dir in "$root"/*) [ ! -d "$dir" ] && mkdir -p -- "$dir" && continue ;; esac
  cat "$root/.err" >&2; exit 1
done
cat "$root/.ads"; rm -f "$root/.ads" "$root/.err"
"""
# What changes after the marker was made is an output.
SUBMIT: Final = """
root=$1; dir=$2; file=$3; mine=$4; here=$5; shift 5
umask 022; tar -xf - -C "$root" && cd -- "$dir" || exit
for path; do [ -e "$path" ] || { printf 'absent:%s\\n' "$path"; exit 1; }; done
: >"$root/.submitted"
exec condor_submit -terse -single-cluster -append "$mine" -append "$here" "./$file"
"""
DISCARD: Final = 'rm -rf -- "$1"'
# Where the schedd does not answer it may have the jobs; without their files those would be held.
ABANDON: Final = f"""condor_q -totals >/dev/null || exit
condor_rm -constraint "{DIRECTORY} == \\"$1\\""; {DISCARD}"""
OUTPUTS: Final = """
cd -- "$2" && find . -type f -cnewer "$1/.submitted" -print0 |
tar --null --no-recursion --hard-dereference -T - -cf -
"""
# condor_wait returns as soon as the log says that all are done; condor_q says what it does not.
WAIT: Final = """
[ -n "$2" ] && condor_wait -wait "$3" "$2" "$1" >/dev/null 2>&1
exec condor_q -json -attributes "$4" "$1"
"""

#: $1 is a job's priority, $2 and $3 its id: how many idle jobs of whom come before it or not, as
#: lines of `count owner true|false`. Of one user's jobs the order is that of the schedd.
AHEAD: Final = r"""
condor_q -allusers -constraint 'JobStatus == 1' -af Owner \
  "JobPrio > $1 || (JobPrio == $1 && (ClusterId < $2 || (ClusterId == $2 && ProcId < $3)))" |
  sort | uniq -c
"""
