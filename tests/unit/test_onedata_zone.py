"""What a token permits, and the sentences that say why it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import onedata_bench
from onedata_bench import TOKEN
from onedata_stub import SPACE, SPACE_ID, Stub
from roost_node.data.onedata import zone
from roost_node.data.shape import Refused

Both = tuple[Stub, str]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with onedata_bench.running(tmp_path) as (stub, ca):
        yield stub, str(ca)


def test_the_host_may_be_the_onezone(both: Both) -> None:
    stub, ca = both
    until = int(time.time()) + 3600
    stub.tokens[TOKEN] = until
    scope = zone.ask(stub.domain, TOKEN, ca)
    assert (scope.zone, scope.preferred, scope.until) == (stub.domain, "", until)
    assert [space.name for space in scope.spaces] == [SPACE]
    assert zone.space(scope, SPACE) == zone.space(scope, SPACE_ID) == scope.spaces[0]


def test_the_host_may_be_a_provider(both: Both) -> None:
    stub, ca = both
    stub.behave(provider_only=True)
    scope = zone.ask(stub.domain, TOKEN, ca)
    assert (scope.zone, scope.preferred) == (stub.domain, stub.domain)


def test_a_token_that_expired(both: Both) -> None:
    stub, ca = both
    stub.tokens[TOKEN] = 1_700_000_000.0
    with pytest.raises(Refused, match="the token expired on 2023-11-14 at 22:13 UTC"):
        zone.ask(stub.domain, TOKEN, ca)


def test_a_token_that_nobody_knows(both: Both) -> None:
    stub, ca = both
    with pytest.raises(Refused, match="does not know this token"):
        zone.ask(stub.domain, "rubbish", ca)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"id": "tokenRevoked"}, "the token has been revoked"),
        ({"id": "notAnAccessToken"}, "this is not an access token for the REST API and Oneclient"),
        ({"id": "unauthorized"}, "Onedata does not accept the token"),
        (
            {"id": "tokenCaveatUnverified", "details": {"caveat": {"type": "ip"}}},
            "a caveat of the token (ip) forbids it",
        ),
        ({"id": "posix", "details": {"errno": "enoent"}}, ""),
        ({"id": "unauthorized", "details": {"authError": {"id": "tokenRevoked"}}},
         "the token has been revoked"),
        (None, ""),
    ],
)  # fmt: skip
def test_what_onedata_calls_what_is_wrong(error: object, said: str) -> None:
    assert zone.problem(error) == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": "19.02.1"}, r"older than 21.02.1: localhost:\d+ \(19.02.1\)"),
        ({"online": False}, "no provider of the space 'johns-space' is online"),
    ],
)
def test_a_provider_can_be_of_no_use(both: Both, wrong: dict[str, object], said: str) -> None:
    stub, ca = both
    stub.behave(**wrong)
    with pytest.raises(Refused, match=said):
        zone.space(zone.ask(stub.domain, TOKEN, ca), SPACE)


def test_a_space_that_the_token_does_not_reach(both: Both) -> None:
    stub, ca = both
    with pytest.raises(Refused, match="reaches no space 'hers'; it reaches: johns-space"):
        zone.space(zone.ask(stub.domain, TOKEN, ca), "hers")


def test_a_host_that_is_not_believed_or_not_there(both: Both) -> None:
    stub, _ = both
    with pytest.raises(Refused, match="the certificate of localhost"):
        zone.ask(stub.domain, TOKEN)
    with pytest.raises(Refused, match="localhost:1 cannot be reached"):
        zone.ask("localhost:1", TOKEN)
