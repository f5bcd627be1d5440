"""The stub of Onedata answers as Onedata's own client expects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from onedatafilerestclient import OnedataFileRESTClient, OnedataRESTError
from onedatafilerestclient.errors import (
    NoAvailableProviderForSpaceError,
    ReadonlyTokenError,
    SpaceNotFoundError,
)

import onedata_bench
from onedata_bench import TOKEN
from onedata_stub import PROVIDER_ID, SPACE, SPACE_ID, Stub

Both = tuple[Stub, OnedataFileRESTClient]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with onedata_bench.running(tmp_path) as (stub, ca):
        yield stub, onedata_bench.client(stub, ca)


def test_the_token_leads_to_the_space(both: Both) -> None:
    _, client = both
    assert client.list_spaces() == [SPACE]
    assert client.get_space_id(SPACE) == SPACE_ID
    scope = client.get_token_scope()
    assert set(scope["dataAccessScope"]["providers"]) == {PROVIDER_ID}


def test_files_are_made_read_changed_and_removed(both: Both) -> None:
    stub, client = both
    made = client.create_file(SPACE, "a/b/c.txt", create_parents=True, mode=0o640)
    client.put_file_content(SPACE, b"hello", file_path="a/b/c.txt")
    client.put_file_content(SPACE, b"LO there", offset=3, file_id=made)
    assert client.get_file_content(SPACE, file_path="a/b/c.txt") == b"helLO there"
    assert client.get_file_content(SPACE, file_id=made, offset=3, size=2) == b"LO"
    assert b"".join(client.iter_file_content(SPACE, file_id=made)) == b"helLO there"
    found = client.get_attributes(SPACE, file_id=made)
    assert (found["type"], found["size"], found["posixPermissions"]) == ("REG", 11, "640")
    client.move(SPACE, "a/b/c.txt", SPACE, "a/d.txt")
    assert client.get_file_id(SPACE, file_path="a/d.txt") == made
    client.set_attributes(SPACE, {"mode": "0600"}, file_id=made)
    assert stub.space.find("a/d.txt").mode == "0600"
    client.remove(SPACE, file_path="a")
    assert not stub.space.root.children


def test_listings_come_in_pages(both: Both) -> None:
    stub, client = both
    for number in range(2500):
        stub.space.create(f"many/f{number}", parents=True)
    names: list[str] = []
    following: str | None = None
    for _ in range(3):
        page = client.list_children(SPACE, file_path="many", continuation_token=following)
        names += [child["name"] for child in page["children"]]
        following = page["nextPageToken"]
    assert page["isLast"] and len(set(names)) == 2500
    with pytest.raises(OnedataRESTError, match="badValueNotInRange"):
        client.list_children(SPACE, limit=1001)


def test_an_older_provider_has_older_names(both: Both) -> None:
    stub, client = both
    stub.space.write("f", b"123")
    with stub.misbehaving(version="21.02.3"):
        found = client.get_attributes(SPACE, file_path="f", attributes=["fileId", "size"])
        assert found["size"] == 3
        assert client.list_children(SPACE)["children"] == [{"name": "f", "type": "REG"}]


def test_errors_are_onedatas(both: Both, tmp_path: Path) -> None:
    stub, client = both
    with pytest.raises(OnedataRESTError) as missing:
        client.get_file_id(SPACE, file_path="nothing")
    assert (missing.value.http_code, missing.value.category) == (400, "posix")
    assert missing.value.details == {"errno": "enoent"}
    with pytest.raises(SpaceNotFoundError):
        client.get_file_id("another-space", file_path="f")
    stub.readonly_tokens.add(TOKEN)
    other = onedata_bench.client(stub, tmp_path / "ca.pem")
    with pytest.raises(ReadonlyTokenError):
        other.create_file(SPACE, "f")


def test_a_token_that_expired_is_refused_by_both_services(both: Both, tmp_path: Path) -> None:
    stub, client = both
    stub.space.write("f", b"123")
    client.get_file_id(SPACE, file_path="f")
    stub.tokens[TOKEN] = time.time() - 10
    with pytest.raises(OnedataRESTError) as provider:
        client.get_file_id(f"{SPACE}@{SPACE_ID}", file_path="f")
    assert (provider.value.http_code, provider.value.category) == (401, "unauthorized")
    with pytest.raises(OnedataRESTError) as onezone:
        onedata_bench.client(stub, tmp_path / "ca.pem").list_spaces()
    assert (onezone.value.http_code, onezone.value.category) == (400, "badValueToken")


def test_it_resets_and_hangs_when_asked(both: Both, tmp_path: Path) -> None:
    stub, client = both
    stub.space.write("f", bytes(1 << 20))
    file = client.get_file_id(SPACE, file_path="f")
    with stub.misbehaving(resets=1), pytest.raises(requests.RequestException):
        b"".join(client.iter_file_content(SPACE, file_id=file))
    impatient = onedata_bench.client(stub, tmp_path / "ca.pem", timeout=0.1)
    with stub.misbehaving(hang=True), pytest.raises(requests.RequestException):
        b"".join(impatient.iter_file_content(SPACE, file_id=file))
    assert len(client.get_file_content(SPACE, file_id=file)) == 1 << 20


@pytest.mark.parametrize("wrong", [{"version": "19.02.1"}, {"online": False}])
def test_a_provider_can_be_of_no_use(both: Both, wrong: dict[str, object]) -> None:
    stub, client = both
    stub.behave(**wrong)
    with pytest.raises(NoAvailableProviderForSpaceError):
        client.get_file_id(SPACE, file_path="f")
