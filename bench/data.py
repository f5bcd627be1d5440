"""`python -m bench.data`: what a job's mounts cost, against the same clients without roost.

Both sides are containers of one image beside one server: in the first a job runs in a world that
roost's wrapper makes, with a node's rights; in the second, which has SYS_ADMIN, root starts the
same client with the same options. They are measured in turns. Writes bench/DATA.md.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from roost.confine import SECCOMP, confinement
from roost.image.build import build
from roost.image.recipe import ImageSpec

_KINDS: Final = ("rclone", "sshfs")
_SERVER: Final = """\
mkdir -p /srv/many /root/.ssh /run/sshd; chmod 700 /root/.ssh; cd /srv
head -c {size} /dev/urandom > big; cat big > /dev/null
(cd many && seq 10000 | xargs touch)
ssh-keygen -q -A; cp /keys/id.pub /root/.ssh/authorized_keys
rclone serve webdav /srv --addr :8080 &
exec /usr/sbin/sshd -D -e
"""
#: Read the whole file, list the directory; the seconds of each.
_WORK: Final = """\
import json, os, sys, time
began = time.monotonic()
with open(sys.argv[1] + "/big", "rb", buffering=0) as file:
    while file.read(1 << 20): pass
read = time.monotonic()
assert len(os.listdir(sys.argv[1] + "/many")) == 10000
print(json.dumps([read - began, time.monotonic() - read]))
"""
#: As a slot's account, with what HTCondor would tell the wrapper.
_WRAPPED: Final = """\
import json, os, subprocess, sys, time
scratch, wish, *job = sys.argv[1:]
os.makedirs(scratch, exist_ok=True); os.chown(scratch, 30001, 30000)
open(scratch + "/.job.ad", "w").write(f'DataMounts = "{wish}"\\n' if wish else "")
env = {"_CONDOR_SCRATCH_DIR": scratch, "_CONDOR_JOB_AD": scratch + "/.job.ad", "PATH": "/usr/bin"}
began = time.time()
done = subprocess.run(["/usr/lib/roost/job-wrapper", *job], user=30001, group=30000,
                      extra_groups=[], env=env, cwd=scratch, capture_output=True, text=True)
print(done.stdout.strip() or json.dumps(done.stderr)); print(json.dumps(began))
"""
#: The same client by the same options, started by root; then the work.
_ALONE: Final = """\
import json, os, pathlib, subprocess, sys, time
sys.path.insert(0, "/usr/lib/roost")
import importlib
from roost_node.data import kernel
from roost_node.data.shape import Entry, Request
kind, options = sys.argv[1], json.loads(sys.argv[2])
work = pathlib.Path("/tmp/alone"); place = work / "data"
for path in (place, work / "disk"): path.mkdir(parents=True, exist_ok=True)
device = kernel.open_fuse()
request = Request(Entry("x", kind, options), False, place, f"/dev/fd/{device}", work, None,
                  work / "disk")
server = importlib.import_module(f"roost_node.data.types.{kind}").server(request)
if not server.opens: kernel.mount_fuse(device, str(place), flags=kernel.RDONLY)
client = subprocess.Popen(server.argv, pass_fds=[device], env=os.environ | dict(server.env),
                          stderr=subprocess.DEVNULL)
os.close(device)  # whoever holds it keeps the mount alive when its client dies
while not os.path.ismount(place) or not os.listdir(place): time.sleep(0.01)
print(subprocess.run([sys.executable, "-c", sys.argv[3], str(place)], check=True,
                     capture_output=True, text=True).stdout)
kernel.unmount(str(place), kernel.DETACH); client.kill()
"""
#: Stands in for a set-uid fusermount where root may mount.
_FUSERMOUNT: Final = """\
#!/usr/bin/python3
import os, socket, sys
sys.path.insert(0, "/usr/lib/roost")
from roost_node.data import kernel
device = kernel.open_fuse()
kernel.mount_fuse(device, sys.argv[-1], flags=kernel.RDONLY)
socket.send_fds(socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])), [b"0"], [device])
"""


def _docker(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["docker", *argv], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"docker {argv[0]} failed: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _place(image: str, keys: Path, size: int) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Both sides' containers, and the pool's entries."""
    name = f"roost-bench-{secrets.token_hex(3)}"
    sides = (f"{name}-job", f"{name}-alone")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "id"], check=True)
    (keys / "id").chmod(0o644)
    to = confinement("execute", 4, mounts=True)
    rights = ["--cap-drop", "ALL", *(f"--cap-add={each}" for each in to.capabilities),
              "--security-opt", "no-new-privileges",
              "--security-opt", f"seccomp={SECCOMP}"]  # fmt: skip
    shared = ["--network", name, "-v", f"{keys}:/srv/data/keys:ro", "--device", "/dev/fuse",
              "--init", "--entrypoint", "sleep"]  # fmt: skip
    _docker("network", "create", name)
    try:
        _docker("run", "-d", "--name", f"{name}-server", "--network", name, "--network-alias",
                "server", "--init", "-v", f"{keys}:/keys:ro", "--entrypoint", "sh", image, "-c",
                _SERVER.format(size=size))  # fmt: skip
        _docker("run", "-d", "--name", sides[0], *shared, *rights, image, "inf")
        _docker("run", "-d", "--name", sides[1], *shared, "--cap-add", "SYS_ADMIN",
                "--security-opt", "apparmor=unconfined", image, "inf")  # fmt: skip
        ready = "until ls /srv/many/10000 && pgrep -x sshd; do sleep 0.2; done"
        _docker("exec", f"{name}-server", "sh", "-c", f"({ready}) > /dev/null 2>&1")
        key = _docker("exec", f"{name}-server", "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
        entries: dict[str, Any] = {
            "rclone": {"backend": "webdav",
                       "options": {"url": "http://server:8080", "vendor": "other"}},
            "sshfs": {"host": "server", "user": "root", "path": "/srv",
                      "host_key": " ".join(key[:2]),
                      "options": {"IdentityFile": "/srv/data/keys/id"}},
        }  # fmt: skip
        offer = {"entries": {kind: {"type": kind, **words} for kind, words in entries.items()}}
        _docker("exec", "-i", sides[0], "sh", "-c",
                "mkdir -p /run/roost/job; chmod 666 /dev/fuse; cat > /run/roost/data.json;"
                " printf '%s\\n' '#!/bin/sh' 'date +%s.%N' > /tmp/now; chmod 755 /tmp/now",
                stdin=json.dumps(offer))  # fmt: skip
        _docker("exec", "-i", sides[1], "sh", "-c",
                "install -m 600 /srv/data/keys/id /tmp/id; cd /usr/bin;"
                " rm -f fusermount fusermount3; cat > fusermount; chmod 755 fusermount;"
                " cp fusermount fusermount3", stdin=_FUSERMOUNT)  # fmt: skip
        entries["sshfs"]["options"]["IdentityFile"] = "/tmp/id"  # root's own, as ssh wants it
        yield (*sides, entries)
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", *sides, f"{name}-server"], check=False,
                       capture_output=True)  # fmt: skip
        subprocess.run(["docker", "network", "rm", name], check=False, capture_output=True)


def _lines(container: str, program: str, *argv: str) -> list[Any]:
    said = _docker("exec", container, "python3", "-c", program, *argv)
    return [json.loads(line) for line in said.splitlines() if line.strip()]


def measure(image: str, keys: Path, size: int, rounds: int) -> list[str]:
    """The tables, in Markdown."""
    rows = []
    with _place(image, keys, size) as (job, alone, entries):
        for kind in _KINDS:
            both: dict[str, list[list[float]]] = {"job": [], "alone": []}
            for number in range(rounds):
                script = f"#!/usr/bin/python3\n{_WORK}"
                _docker("exec", "-i", job, "sh", "-c", "cat > /tmp/work; chmod 755 /tmp/work",
                        stdin=script)  # fmt: skip
                wish = f"{kind}:data"
                both["job"] += _lines(
                    job, _WRAPPED, f"/tmp/{kind}-{number}", wish, "/tmp/work", "data"
                )[:1]
                both["alone"] += _lines(alone, _ALONE, kind, json.dumps(entries[kind]), _WORK)[:1]
            for index, what in enumerate((f"read {size / 2**20:.0f} MiB", "list 10,000 entries")):
                ours, theirs = (
                    statistics.median(times[index] for times in both[side])
                    for side in ("job", "alone")
                )
                rows.append(
                    f"| {kind} | {what} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f} |"
                )
        starts = []
        for wish in ("", *_KINDS):
            took = []
            for number in range(2 * rounds + 1):
                now, began = _lines(job, _WRAPPED, f"/tmp/start-{wish}-{number}",
                                    wish and f"{wish}:data", "/tmp/now")  # fmt: skip
                took.append(now - began)
            starts.append((wish or "no mount", statistics.median(took)))
    bare = starts[0][1]
    return [
        "| client | work | alone, s | in a job, s | speed in a job ÷ alone (goal ≥ 0.9) |",
        "|---|---|---|---|---|", *rows, "",
        "| job with | from the wrapper to its first line, s | added (goal ≤ 0.5) |",
        "|---|---|---|",
        *(f"| {what} | {took:.2f} | {took - bare:.2f} |" for what, took in starts),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2**30, help="bytes of the file that is read")
    given = parser.parse_args()
    import tempfile

    image = build("docker", ImageSpec("trixie", extras=("rclone", "sshfs"))).tag
    with tempfile.TemporaryDirectory(prefix="roost-") as keys:
        Path(keys).chmod(0o755)
        table = measure(image, Path(keys), given.size, given.rounds)
    load = Path("/proc/loadavg").read_text().split()[2]
    head = [
        "# Figures: mounts", "", (__doc__ or "").partition("\n\n")[2].strip(), "",
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- load: {load} on average in the last 15 minutes, the bench's included",
        f"- medians of {given.rounds} rounds", "",
    ]  # fmt: skip
    Path(__file__).with_name("DATA.md").write_text("\n".join([*head, *table]) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
