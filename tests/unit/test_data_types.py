"""The types of mounts: what is run for each, and what they know of data that is not written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roost_node.data import credential
from roost_node.data.shape import Entry, Refused, Request
from roost_node.data.types import bind, cvmfs, rclone, sshfs


def request(tmp_path: Path, options: Mapping[str, Any], *, write: bool = False,
            secret: str = "") -> Request:  # fmt: skip
    for name in ("work", "disk"):
        (tmp_path / name).mkdir(exist_ok=True)
    token = tmp_path / "lab.use"
    if secret:
        token.write_text(json.dumps({"access_token": secret}))
    return Request(
        Entry("lab", "x", options), write, tmp_path / "data", "/dev/fd/9", tmp_path / "work",
        token if secret else None, tmp_path / "disk",
    )  # fmt: skip


def test_rclone_has_its_secrets_in_a_file_alone(tmp_path: Path) -> None:
    asked = request(
        tmp_path, {"backend": "s3", "path": "bucket", "options": {"provider": "Minio"}},
        secret="access_key_id = A\nsecret_access_key = hidden\n",
    )  # fmt: skip
    server = rclone.server(asked)
    assert server.opens
    assert not any("hidden" in word for word in (*server.argv, *server.env.values()))
    config = tmp_path / "work" / "rclone.conf"
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.read_text().splitlines() == [
        "[data]", "type = s3", "provider = Minio", "access_key_id = A",
        "secret_access_key = hidden",
    ]  # fmt: skip
    assert "--read-only" in server.argv
    writing = rclone.server(request(tmp_path, {"backend": "s3"}, write=True)).argv
    assert "--read-only" not in writing
    assert writing[writing.index("--vfs-write-back") + 1] == "1s"


def test_a_token_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    for secret in ("only a key", "[other]\na = b"):
        with pytest.raises(Refused, match="key = value"):
            rclone.server(request(tmp_path, {"backend": "s3"}, secret=secret))


def cached(tmp_path: Path, name: str, *, dirty: bool) -> None:
    file = tmp_path / "disk" / "vfsMeta" / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"Dirty": dirty}))


def test_rclone_knows_what_is_not_uploaded(tmp_path: Path) -> None:
    asked = request(tmp_path, {"backend": "s3"}, write=True)
    assert rclone.unwritten(asked) == ""
    cached(tmp_path, "a/done", dirty=False)
    assert rclone.unwritten(asked) == ""
    cached(tmp_path, "a/b", dirty=True)
    assert rclone.unwritten(asked) == "a/b is not uploaded"
    log = tmp_path / "work" / "log"
    line = "ERROR : b: vfs cache: failed to upload try #{}, will retry in 8s: to remote: 404\n"
    log.write_text(line.format(1))
    assert rclone.unwritten(asked) == "a/b is not uploaded"  # it is tried again
    log.write_text(line.format(1) + line.format(4))
    with pytest.raises(Refused, match=r"^a/b is not uploaded: 404$"):
        rclone.unwritten(asked)
    cached(tmp_path, "a/c", dirty=True)  # this one may still be under way
    assert "is not uploaded" in rclone.unwritten(asked)


SSH = {"host": "h", "user": "me", "path": "/srv", "host_key": "ssh-ed25519 AAAA", "options": {}}


def test_sshfs_believes_one_key_and_shows_one(tmp_path: Path) -> None:
    server = sshfs.server(request(tmp_path, SSH, secret="KEY"))
    assert server.argv[:4] == ("sshfs", "-f", "me@h:/srv", "/dev/fd/9")
    assert not server.opens
    options = server.argv[-1].split(",")
    assert {"ro", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"} <= set(options)
    assert "KEY" not in server.argv[-1]
    assert (tmp_path / "work" / "known_hosts").read_text() == "h ssh-ed25519 AAAA\n"
    key = tmp_path / "work" / "key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("KEY\n", 0o600)


@pytest.mark.parametrize(("host", "known"), [("h:22", "h "), ("h:2222", "[h]:2222 ")])
def test_a_port_is_part_of_the_hosts_name(tmp_path: Path, host: str, known: str) -> None:
    server = sshfs.server(request(tmp_path, SSH | {"host": host}, write=True))
    assert (tmp_path / "work" / "known_hosts").read_text().startswith(known)
    assert f"port={host[2:]}" in server.argv[-1].split(",")
    assert "ro" not in server.argv[-1].split(",")


def test_cvmfs_is_told_by_a_file(tmp_path: Path) -> None:
    options = {"repository": "cms.cern.ch", "server": "http://s/@fqrn@", "key": "/k.pub",
               "proxy": "DIRECT"}  # fmt: skip
    server = cvmfs.server(request(tmp_path, options))
    assert server.argv[-2:] == ("cms.cern.ch", "/dev/fd/9")
    assert "CVMFS_SERVER_URL='http://s/@fqrn@'\n" in (tmp_path / "work/cvmfs.conf").read_text()


def test_a_directory_that_the_node_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="this node has no /srv/data/lab"):
        bind.server(request(tmp_path, {"path": "/srv"}))


def test_a_credential_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "x.use"
    broken.write_text("{}")
    with pytest.raises(Refused, match="roost data login"):
        credential.read(broken)
