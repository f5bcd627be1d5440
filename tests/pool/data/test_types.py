"""Each type of mount against a real server of its kind, as jobs see it; and why jobs are held."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from mount_bench import USER, Bench, bench
from node_bench import Node, docker, eventually
from roost_bench import refused, roost, well, write

pytestmark = pytest.mark.engine

TOGETHER = 50
POOL = """\
  shell: {{type: sshfs, host: ssh, user: root, path: /srv/a, host_key: "{key}", token: null,
    wait: 120, options: {{IdentityFile: /srv/data/keys/id}}}}
  other: {{type: sshfs, host: "ssh:22", user: root, path: /srv/b, host_key: "{key}", token: null,
    wait: 120, options: {{IdentityFile: /srv/data/keys/id}}}}
  stranger: {{type: sshfs, host: ssh, user: root, host_key: "ssh-ed25519 {wrong}", token: null,
    options: {{IdentityFile: /srv/data/keys/id}}}}
  keys: {{type: bind, path: "{keys}", read_only: true}}
  here: {{type: bind, path: "{here}"}}
  sftp: {{type: rclone, backend: sftp, wait: 120, path: /srv/c,
    options: {{host: ssh, user: root, key_file: /srv/data/keys/id,
      disable_hashcheck: "true"}}}}
  stubborn: {{type: rclone, backend: webdav, wait: 120,
    options: {{url: "http://dav:8081", vendor: other}}}}
  bucket: {{type: rclone, backend: s3, path: lab, wait: 120, token: {{}},
    options: {{provider: Other, endpoint: "{s3}"}}}}
  dead: {{type: rclone, backend: webdav, options: {{url: "http://nobody:8080", vendor: other}}}}
data_urls: [http, dav]
"""
WRONG = "AAAAC3NzaC1lZDI1NTE5AAAAIMr2OrGqv1b6NE5TgUJzx1jU2yYzmlWgJ1g8hr0Yw6yP"


@dataclass(frozen=True)
class Place:
    """A pool, its servers, and the directory of this machine that it shows."""

    bench: Bench
    ssh: Node
    here: Path
    s3: str
    """The URL of a server of S3 with a bucket `lab`."""


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Moto's server of S3 on this machine, where containers reach it; its URL. It knows no keys."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outwards:
        outwards.connect(("192.0.2.1", 9))  # sends nothing: it chooses this machine's own address
        address = outwards.getsockname()[0]
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]
    with log.open("w") as said, subprocess.Popen(argv, stdout=said, stderr=said) as server:
        try:
            url = f"http://{address}:{port}"
            eventually(lambda: made(url), 60, what=log.read_text)
            yield url
        finally:
            server.terminate()


def bucket(url: str) -> Any:
    """Amazon's own client of S3, at this server."""
    keys = {"aws_access_key_id": "tests", "aws_secret_access_key": "any"}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


def made(url: str) -> bool:
    """Whether the server answers, and has made the bucket."""
    try:
        bucket(url).create_bucket(Bucket="lab")
    except botocore.exceptions.ConnectionError:
        return False
    return True


@pytest.fixture(scope="module")
def place(image_data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A pool with one executor that has room for all."""
    directory = tmp_path_factory.mktemp("types")
    keys, here = directory / "keys", directory / "here"
    for made in (keys, here):
        made.mkdir()
        made.chmod(0o777)
    ssh = Node(f"ssh-{directory.parent.name}-{directory.name}")
    # Its keys are made in it: what both sides know of each other is real.
    docker("run", "-d", "--name", ssh.name, "--init", "-v", f"{keys}:/keys", "--entrypoint", "sh",
           image_data, "-c",
           "mkdir -p /srv/a /srv/b /srv/c /root/.ssh /run/sshd && chmod 700 /root/.ssh"
           " && ssh-keygen -A"
           " && ssh-keygen -q -t ed25519 -N '' -f /keys/id && chmod 644 /keys/id"
           " && cp /keys/id.pub /root/.ssh/authorized_keys"
           " && exec /usr/sbin/sshd -D -e -o MaxStartups=300 -o MaxSessions=300")  # fmt: skip
    try:
        key = eventually(
            lambda: ssh.tried("cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null")[1], 60
        )
        eventually((keys / "id.pub").exists, 60)
        (here / "there").write_text("of this machine\n")
        groups = "[{name: execute, count: 1, cpus: 64, memory: 10GiB}]"
        with s3_server(directory / "s3.log") as s3, bench(
            directory, image_data,
            POOL.format(key=" ".join(key.split()[:2]), wrong=WRONG, keys=keys, here=here, s3=s3),
            groups=groups,
        ) as pool:  # fmt: skip
            docker("network", "connect", "--alias", "ssh", f"net-{pool.name}", ssh.name)
            pool.dav.sh("mkdir -p /srv/dav/sub && echo remote > /srv/dav/sub/file"
                        " && (rclone serve webdav /srv/dav --addr :8081 --read-only &)"
                        " && (rclone serve http /srv/dav --addr :8082 &)")  # fmt: skip
            ssh.sh("cd /srv; echo by ssh > a/file; echo more > b/file; echo by sftp > c/file")
            yield Place(pool, ssh, here, s3)
            docker("network", "disconnect", "--force", f"net-{pool.name}", ssh.name)
    finally:
        docker("rm", "-f", "-v", ssh.name, may_fail=True)


def ran(place: Place, name: str, script: str, mounts: str, more: str = "") -> str:
    """The output of a job that ends with 0."""
    pool = place.bench
    (ad,) = pool.ended(pool.start(name, script, mounts, more)).values()
    assert (ad["JobStatus"], ad.get("ExitCode")) == (4, 0), (
        ad.get("HoldReason"), pool.output(name), pool.output(name, kind="err")
    )  # fmt: skip
    return pool.output(name)


def held(place: Place, name: str, script: str, mounts: str, more: str = "") -> str:
    """Why such a job is held."""
    (ad,) = place.bench.ended(place.bench.start(name, script, mounts, more)).values()
    assert ad["JobStatus"] == 5, ad
    return str(ad["HoldReason"])


def test_every_type_is_read(place: Place) -> None:
    mounts = (f"{place.bench.entry}:a, shell:b, sftp:c, here, dav://dav:8080/sub:d, "
              "http://dav:8082/:sub/e")  # fmt: skip
    said = ran(place, "read", "cat a/sub/file b/file c/file here/there d/file sub/e/sub/file\n"
               "for d in a b c here d sub/e; do touch $d/new 2>/dev/null && echo wrote $d; done\n"
               "true", mounts)  # fmt: skip
    assert said == "remote\nby ssh\nby sftp\nof this machine\nremote\nremote\n"


def test_what_is_written_is_there_when_the_job_is_done(place: Place) -> None:
    pool = place.bench
    script = ("for d in a b c here; do head -c 3000000 /dev/zero > $d/big && mkdir $d/made"
              " && mv $d/big $d/made/it && echo line > $d/made/line && echo more >> $d/made/line"
              " || exit 1; done")  # fmt: skip
    ran(place, "write", script, f"{pool.entry}:a:rw, shell:b:rw, sftp:c:rw, here:here:rw")
    check = "wc -c < made/it; cat made/line"
    expected = "3000000\nline\nmore\n"
    assert pool.dav.sh(f"cd /srv/dav; {check}") == expected
    assert place.ssh.sh(f"cd /srv/a; {check}") == expected
    assert place.ssh.sh(f"cd /srv/c; {check}") == expected
    assert (place.here / "made" / "line").read_text() == "line\nmore\n"


def test_a_bucket_with_each_users_own_keys(place: Place, tmp_path: Path) -> None:
    """Without keys a job is not taken; with them it reads and writes."""
    pool = place.bench
    write(tmp_path / "job.sh", "#!/bin/sh\n", 0o755)
    job = write(tmp_path / "job.sub", 'executable = job.sh\n+DataMounts = "bucket"\nqueue\n')
    said = refused(roost("submit", "--name", pool.name, job), 1)
    assert "run `roost data login NAME`, for each NAME of bucket" in said
    keys = write(tmp_path / "keys", "access_key_id = lab\nsecret_access_key = not-a-word\n", 0o600)
    well("data", "login", "bucket", "--file", keys, "--name", pool.name)
    s3 = bucket(place.s3)
    s3.put_object(Bucket="lab", Key="sub/in", Body=b"of the bucket\n")
    script = "cat data/sub/in && echo by a job > data/sub/out && ls data/sub"
    assert ran(place, "s3", script, "bucket:data:rw") == "of the bucket\nin\nout\n"
    assert s3.get_object(Bucket="lab", Key="sub/out")["Body"].read() == b"by a job\n"


def test_a_job_without_mounts_is_started_by_htcondor_itself(place: Place) -> None:
    assert ran(place, "bare", "cat /proc/$PPID/comm", "") == "condor_starter\n"


SEED = """\
mkdir mnt
export RCLONE_WEBDAV_URL=http://dav:8080 RCLONE_WEBDAV_VENDOR=other
rclone mount :webdav:/sub mnt --config /dev/null &
for i in $(seq 300); do [ -e mnt/file ] && break; sleep 0.1; done
cat mnt/file
{end}
"""


@pytest.mark.parametrize("end", ["fusermount -u mnt; ls mnt; wait", "true # no fusermount"])
def test_a_script_that_mounts_by_itself(place: Place, end: str) -> None:
    said = ran(place, "seed", SEED.format(end=end), "")
    assert said == "remote\n"
    executor = place.bench.node("execute-1")
    assert "rclone" not in executor.sh("ps axo comm")
    assert executor.sh("ls /var/lib/condor/execute") == ""


def test_a_mount_that_cannot_be_made_holds_the_job_before_it_runs(place: Place) -> None:
    said = held(place, "dead", "touch ran", "dead:data", "transfer_output_files = ran")
    assert said.startswith("dead cannot be mounted: ")
    assert "nobody" in said
    (row,) = json.loads(roost("q", "--json", "--name", place.bench.name).stdout)[:1]
    assert row["state"] == "held"


def test_a_server_with_another_key_is_not_believed(place: Place) -> None:
    assert held(place, "wrong", "true", "stranger:data").startswith("stranger cannot be mounted: ")


def test_a_directory_that_has_something_in_it_is_not_covered(place: Place) -> None:
    place.bench.submit.sh("mkdir -p data && echo mine > data/mine", user=USER)
    said = held(place, "covers", "true", "here:data", "transfer_input_files = data")
    assert said == "here cannot be mounted: data exists in the sandbox and is not empty"


def test_what_cannot_be_written_holds_the_job_with_the_reason(place: Place) -> None:
    said = held(place, "stubborn", "echo x > data/x", "stubborn:data:rw")
    assert said.startswith("what the job wrote to stubborn may not be there: x is not uploaded: ")


def test_a_name_that_the_pool_has_not_is_refused_at_once(place: Place, tmp_path: Path) -> None:
    write(tmp_path / "job.sh", "#!/bin/sh\n", 0o755)
    file = write(tmp_path / "job.sub", 'executable = job.sh\n+DataMounts = "labb:x"\nqueue\n')
    said = refused(roost("submit", "--name", place.bench.name, file), 1)
    assert (
        "DataMounts asks for labb:x, which this pool has not; it has: bucket, dead, here, keys"
        in said
    )


def test_many_jobs_with_two_mounts_each_at_once(place: Place) -> None:
    """Each waits until all are there: they see each other through what they mounted."""
    pool = place.bench
    script = ("touch a/here.$1 || exit 1\n"
              f"for i in $(seq 200); do [ $(ls a | grep -c here) = {TOGETHER} ] && break;"
              " sleep 3; done\ncat b/file && ls a | grep -c here")  # fmt: skip
    cases = [str(number) for number in range(TOGETHER)]
    cluster = pool.start("many", script, "shell:a:rw, other:b", "request_memory = 128", cases)
    ads = pool.ended(cluster, TOGETHER, 400)
    assert {ad.get("ExitCode") for ad in ads.values()} == {0}, pool.output("many", kind="err")
    said = pool.submit.sh("cat many.*.out", user=USER)
    assert said == f"more\n{TOGETHER}\n" * TOGETHER
    executor = pool.node("execute-1")
    eventually(lambda: executor.sh("ls /var/lib/condor/execute") == "", 60, executor)
    assert "sshfs" not in executor.sh("ps axo comm")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts in another's namespace")
def test_a_mount_that_htcondor_sees_loses_its_data(place: Place) -> None:
    """The control: what the kill matrix asserts would fail if jobs' mounts were not their own.

    Somebody mounts in HTCondor's own namespace; the node may not undo it, and says that it is sick.
    """
    pool, executor = place.bench, place.bench.node("execute-1")
    place.ssh.sh("mkdir -p /srv/control && echo precious > /srv/control/sentinel")
    once = "periodic_remove = NumJobStarts > 1"
    cluster = pool.start("control", "mkdir data; sleep 300", "", once)
    sandbox = "/var/lib/condor/execute"
    where = eventually(
        lambda: executor.sh(f"ls -d {sandbox}/dir_*/data 2>/dev/null || true").strip(), 90
    )
    executor.sh("install -m 600 /srv/data/keys/id /run/id")
    pid = str(executor.inspect()["State"]["Pid"])
    inside = ["nsenter", "-t", pid, "-m", "-n"]
    options = ("ssh_command=ssh -F /dev/null,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,"
               "IdentityFile=/run/id,allow_other")  # fmt: skip
    argv = [*inside, "sshfs", "-f", "root@ssh:/srv/control", where, "-o", options]
    server = subprocess.Popen(argv)
    try:
        starter = executor.pid("condor_starter")
        eventually(lambda: _said(executor, "where HTCondor would remove"), 60)
        executor.sh(f"kill -9 {starter}")
        pool.submit.sh(f"condor_rm {cluster}")
        eventually(lambda: place.ssh.tried("test -e /srv/control/sentinel")[0] != 0, 90, executor)
    finally:
        server.kill()
        server.wait()
        # Gone already where its directory is.
        subprocess.run([*inside, "umount", "--lazy", where], capture_output=True, check=False)


def _said(node: Node, words: str) -> bool:
    return any(words in line for line in node.said())
