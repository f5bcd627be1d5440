"""Users' tokens on an access point: what HTCondor is told, and what is stored."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest

from roost_node.data import credmon, tokens, tokens_cli
from roost_node.data.entries import Offer
from roost_node.data.shape import Entry
from roost_node.data.tokens import Stored
from roost_node.errors import BadInput

OFFER = Offer(
    {
        "johns-space": Entry("johns-space", "onedata", {"host": "onezone"}, token=True),
        "lab": Entry("lab", "sshfs", token=True),
        "software": Entry("software", "bind"),
    },
    ("https", "onedata"),
)


def test_a_pool_without_tokens_keeps_none() -> None:
    plain = Offer({"software": OFFER.entries["software"]}, ("https",))
    assert tokens.names(plain) == ()
    assert tokens.configuration(plain) == ""
    assert tokens.names(OFFER) == ("johns-space", "lab", "onedata")


def test_a_job_is_given_the_tokens_of_what_it_mounts() -> None:
    said = tokens.configuration(OFFER)
    assert 'stringListMember("johns-space", RoostMounts ?: "")' in said
    assert 'stringListMember("onedata_url", RoostMounts ?: "")' in said
    assert '",johns_space"' in said
    assert 'stringListMember("software"' not in said
    assert "SendCredential" not in said, "that is Kerberos's"
    assert 'regexp("onedata://johns-space/", ' in said
    assert 'replaceAll("onedata://(johns-space|lab|software)/", ' in said


def test_a_submission_needs_tokens_that_are_good() -> None:
    now = time.time()
    stored = [
        Stored("ann", "lab"), Stored("john", "johns_space", now + 60),
        Stored("john", "lab", now - 60), Stored("john", "onedata"),
    ]  # fmt: skip
    said = tokens.requirement(stored, now)
    assert tokens.knows(said, "ann", "lab")
    assert tokens.knows(said, "john", "johns-space")
    assert tokens.knows(said, "john", "onedata")
    assert not tokens.knows(said, "john", "lab"), "it has expired"
    assert not tokens.knows(said, "ann", "johns-space")
    assert not tokens.knows(said, "eve", "lab")
    assert not tokens.knows("", "john", "lab")


def test_the_monitor_hands_on_what_is_stored_and_nothing_else(tmp_path: Path) -> None:
    user = tmp_path / "john"
    user.mkdir()
    top, use = user / "lab.top", user / "lab.use"
    top.write_text("one")
    credmon.hand_on(tmp_path)
    assert use.read_text() == "one"
    assert stat.S_IMODE(use.stat().st_mode) == 0o600
    top.write_text("two")
    credmon.hand_on(tmp_path)
    assert use.read_text() == "two"
    top.unlink()
    credmon.hand_on(tmp_path)
    assert list(user.iterdir()) == []


def test_what_is_stored_is_found_with_its_end_and_without_its_secret(tmp_path: Path) -> None:
    user = tmp_path / "john"
    user.mkdir()
    (user / "johns_space.top").write_text(
        json.dumps({"access_token": "secret", "expires_at": 1_700_000_000})
    )
    (user / "lab.top").write_text("not json, by somebody's own condor_store_cred")
    found = tokens.found(tmp_path)
    assert found == [Stored("john", "johns_space", 1_700_000_000.0), Stored("john", "lab")]
    assert "secret" not in repr(found)
    rows = {str(row["name"]): row for row in tokens.listed(OFFER, found, "john")}
    assert rows["johns-space"] == {
        "name": "johns-space", "type": "onedata", "token": True, "stored": True,
        "expires": 1_700_000_000.0,
    }  # fmt: skip
    assert (rows["software"]["token"], rows["software"]["stored"]) == (False, False)
    assert (rows["onedata"]["type"], rows["onedata"]["stored"]) == ("onedata", False)


@pytest.mark.parametrize(
    ("name", "said"),
    [("johns-spase", "did you mean johns-space"), ("software", "needs no token"),
     ("zzz", "with a token: johns-space, lab, onedata")],
)  # fmt: skip
def test_names_that_need_no_token(name: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tokens_cli._named(OFFER, name)


@pytest.mark.parametrize(
    ("token", "said"), [(b" \n", "empty"), (b"\xff\xfe", "not text"), (b"x" * 70_000, "64 KiB")]
)
def test_what_is_no_token(token: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tokens_cli._login(OFFER, "lab", "john", token)


def test_a_provider_that_is_away_is_no_reason_to_refuse() -> None:
    offer = Offer({"s": Entry("s", "onedata", {"host": "localhost:1"}, token=True)})
    expires, unchecked = tokens_cli._judged(offer, "s", "t")
    assert expires is None
    assert unchecked.startswith("localhost:1 cannot be reached")
