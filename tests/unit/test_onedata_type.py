"""What is started for a mount of type onedata: our server, or the vendor's client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import onedata_bench
from onedata_bench import TOKEN
from onedata_stub import SPACE, SPACE_ID, Stub
from roost_node.data.onedata import serve
from roost_node.data.shape import Entry, Refused, Request
from roost_node.data.types import onedata


def _request(tmp_path: Path, *, write: bool = False, **options: Any) -> Request:
    token = tmp_path / "onedata.use"
    token.write_text(json.dumps({"access_token": TOKEN}))
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    entry = Entry(SPACE, "onedata", {"host": "provider.example.org", **options}, token=True)
    return Request(entry, write, tmp_path / "data", "/dev/fd/7", work, token)


def _told(request: Request) -> Mapping[str, Any]:
    server = onedata.server(request)
    told: Mapping[str, Any] = json.loads(Path(server.argv[1]).read_text())
    return told


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[tuple[Stub, dict[str, Any]]]:
    with onedata_bench.running(tmp_path) as (stub, ca):
        yield stub, {"host": stub.domain, "ca": ca.read_text()}


def test_our_server_is_told_everything_but_the_token(tmp_path: Path) -> None:
    server = onedata.server(_request(tmp_path, path="in", ca="-----BEGIN CERTIFICATE-----"))
    program, file = server.argv
    told = json.loads(Path(file).read_text())
    assert (program, server.opens) == ("roost-onedata", False)
    assert TOKEN not in Path(file).read_text()
    assert TOKEN not in str(server.env)
    assert told == {
        "name": SPACE, "host": "provider.example.org", "space": SPACE, "path": "in", "timeout": 30,
        "authorities": str(tmp_path / "work/authorities/ca.pem"), "write": False,
        "token": str(tmp_path / "onedata.use"), "target": "/dev/fd/7",
    }  # fmt: skip


def test_a_mount_without_a_token_is_refused(tmp_path: Path) -> None:
    request = _request(tmp_path)
    bare = Request(request.entry, False, request.directory, request.target, request.work)
    with pytest.raises(Refused, match="`roost data login johns-space`"):
        onedata.server(bare)


def test_the_server_finds_the_space(tmp_path: Path, stub: tuple[Stub, dict[str, Any]]) -> None:
    server, options = stub
    server.space.write("in/f", b"x")
    request = _request(tmp_path, path="in", **options)
    told = _told(request)
    files = serve.mounted(told)
    assert [name for name, _, _ in files.readdir("/", 0)] == [".", "..", "f"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "nowhere"}, "nowhere cannot be read: posix"),
        ({"path": "f"}, "f is a file; give the directory that it is in"),
        ({"space": "hers"}, "the token reaches no space 'hers'"),
        ({"token": "/nonexistent"}, "its token cannot be read"),
    ],
)
def test_what_cannot_be_mounted_is_said_before(
    tmp_path: Path, stub: tuple[Stub, dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    server, options = stub
    server.space.write("f", b"x")
    request = _request(tmp_path, **options)
    told = {**_told(request), **changes}
    with pytest.raises(Refused, match=said):
        serve.mounted(told)


def test_a_token_for_reading_does_not_mount_for_writing(
    tmp_path: Path, stub: tuple[Stub, dict[str, Any]]
) -> None:
    server, options = stub
    server.readonly_tokens.add(TOKEN)
    request = _request(tmp_path, write=True, **options)
    told = _told(request)
    with pytest.raises(Refused, match="reading only"):
        serve.mounted(told)


def test_the_vendors_client_gets_its_token_from_the_environment(
    tmp_path: Path, stub: tuple[Stub, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, options = stub
    monkeypatch.setattr(onedata, "PROGRAM", "oneclient")
    started = onedata.server(_request(tmp_path, **options))
    host, port = server.domain.split(":")
    assert started.opens
    assert started.env["ONECLIENT_ACCESS_TOKEN"] == TOKEN
    assert TOKEN not in " ".join(started.argv)
    assert started.argv == (
        "oneclient", "--foreground", "--host", host, "--port", port, "--space-id", SPACE_ID,
        "--custom-ca-dir", str(tmp_path / "work/authorities"), "-o", "ro", str(tmp_path / "data"),
    )  # fmt: skip
    with pytest.raises(Refused, match="whole spaces"):
        onedata.server(_request(tmp_path, path="in", **options))
