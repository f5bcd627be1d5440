"""Join tokens: what they carry, and what is kept of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_node import tokens
from roost_node.errors import BadInput

TOKEN = tokens.new("physics", "execute", "ab" * 32, 3600)


def test_a_token_survives_its_text() -> None:
    assert TOKEN.text.startswith("roost-join.v1.")
    assert tokens.parse(f"\n {TOKEN.text}\n") == TOKEN
    tokens.check(TOKEN, "execute", time.time())


def test_no_two_tokens_are_alike() -> None:
    other = tokens.new("physics", "execute", "ab" * 32, 3600)
    assert TOKEN.id != other.id
    assert TOKEN.secret != other.secret


def test_the_secret_stays_out_of_repr_and_record() -> None:
    record = tokens.dump(TOKEN.record())
    secret_text = TOKEN.text.rpartition(".")[2]
    for shown in (repr(TOKEN), str(TOKEN), record.decode(), repr(TOKEN.record())):
        assert secret_text not in shown
        assert TOKEN.secret.hex() not in shown
        assert repr(TOKEN.secret) not in shown


@pytest.mark.parametrize(
    "text",
    ["", "hello", "roost-join.v1.", "roost-join.v2.a.b", TOKEN.text[:-1], TOKEN.text[:-20],
     TOKEN.text + "A", TOKEN.text.replace(".", ":"), "roost-join.v1.e30.AAAA",
     "roost-join.v1." + "W1" * 5000 + ".AA", TOKEN.text + "ä", TOKEN.text[:20] + TOKEN.text[21:]],
)  # fmt: skip
def test_unreadable(text: str) -> None:
    with pytest.raises(BadInput, match="unreadable"):
        tokens.parse(text)


@given(st.text() | st.text().map(lambda text: f"{tokens.PREFIX}{text}"))
def test_no_text_ends_in_anything_but_a_sentence(text: str) -> None:
    with pytest.raises(BadInput):
        tokens.parse(text)


def test_expired_says_when_and_what_to_do() -> None:
    with pytest.raises(BadInput, match=r"expired at .* roost-node join-token execute"):
        tokens.check(TOKEN, "execute", TOKEN.expires)


def test_for_another_role() -> None:
    with pytest.raises(BadInput, match="for the role execute and this node is submit"):
        tokens.check(TOKEN, "submit", time.time())


@pytest.mark.parametrize("lifetime", [0, -1, 10**9, float("nan"), float("inf")])
def test_lifetimes_that_are_none(lifetime: float) -> None:
    with pytest.raises(BadInput):
        tokens.new("physics", "execute", "ab" * 32, lifetime)


def test_no_token_makes_a_master() -> None:
    with pytest.raises(BadInput, match="submit or execute"):
        tokens.new("physics", "master", "ab" * 32, 60)


def test_a_record_knows_its_token_and_no_other() -> None:
    record = TOKEN.record(2)
    assert record.matches(TOKEN)
    assert not record.matches(tokens.new("physics", "execute", "ab" * 32, 3600))


def test_the_same_request_uses_a_token_once() -> None:
    record = TOKEN.record(2).spent_on("a").spent_on("a").spent_on("b")
    assert record.uses == 0
    assert record.spent_on("a") == record
    assert record.spent_on("c").uses < 0


def test_records_live_in_files_and_leave_a_day_after_their_end(tmp_path: Path) -> None:
    record = TOKEN.record(3).spent_on("a")
    tokens.save(tmp_path, record)
    path = tmp_path / f"{TOKEN.id}.json"
    assert tokens.load(tmp_path, TOKEN.id) == record
    assert tokens.load(tmp_path, "0" * 16) is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(path.read_bytes())) == {
        "id",
        "role",
        "expires",
        "hash",
        "uses",
        "used_by",
        "own",
    }
    tokens.prune(tmp_path, record.expires + 10)
    assert path.exists()
    tokens.prune(tmp_path, record.expires + 86401)
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
