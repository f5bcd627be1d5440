"""Which of several addresses a node tells others, and its own name in /etc/hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost_node import keeper, own_address
from roost_node.interfaces import Interface

ONE = Interface("eth0", "10.0.0.4", 1500)
SIX = Interface("eth0", "fd42::4", 1500)
OTHER = Interface("eth1", "172.30.0.2", 1500)
SECOND = Interface("eth0", "10.0.0.5", 1500)
TWO = [ONE, OTHER]


@pytest.mark.parametrize(
    ("found", "source", "named"),
    [
        ([ONE], "10.0.0.4", ""),
        ([ONE, SIX], "10.0.0.4", ""),  # of one interface HTCondor tells both
        ([ONE, OTHER], "172.30.0.2", "eth1"),
        ([ONE, OTHER, SIX], "10.0.0.4", "eth0"),
        ([ONE, SECOND], "10.0.0.5", "10.0.0.5"),
        ([ONE, SECOND, OTHER], "10.0.0.5", "10.0.0.5"),
        ([ONE, OTHER], "", "eth0"),  # no way to anybody: the first
    ],
)
def test_what_htcondor_is_told(found: list[Interface], source: str, named: str) -> None:
    text = own_address.configuration(found, own_address.choose(found, source))
    assert [line for line in text.splitlines() if not line.startswith("#")] == (
        [f"NETWORK_INTERFACE = {named}"] if named else []
    )


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(own_address, "interfaces", lambda: TWO)
    monkeypatch.setattr(own_address, "_EXTRA", str(tmp_path / "extra"))
    monkeypatch.setattr(own_address, "source", lambda toward: OTHER.address if toward else "")
    return tmp_path / "address.conf"


def test_the_choice_is_said(two: Path) -> None:
    said: list[str] = []
    assert own_address.tell("172.30.0.9", said.append, config=str(two)) == "172.30.0.2"
    assert said == [
        "this node has several addresses (10.0.0.4 (eth0), 172.30.0.2 (eth1)) and tells others "
        "172.30.0.2, from which it reaches the master at 172.30.0.9; NETWORK_INTERFACE in its "
        "configuration chooses another"
    ]
    assert "\nNETWORK_INTERFACE = eth1\n" in two.read_text()
    assert "\nPRIVATE_NETWORK_INTERFACE = 172.30.0.2\n" in two.read_text()


def test_the_user_chooses(two: Path, tmp_path: Path) -> None:
    (tmp_path / "extra").write_text("UPDATE_INTERVAL = 9\nnetwork_interface = 10.0.0.4\n")
    said: list[str] = []
    own_address.tell("172.30.0.9", said.append, config=str(two))
    assert said == [
        "this node has several addresses, and NETWORK_INTERFACE = 10.0.0.4 chooses among them"
    ]
    assert not re.search("^NETWORK_INTERFACE", two.read_text(), re.MULTILINE)


def test_the_way_to_oneself() -> None:
    assert own_address.source("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("role", "seen", "ccb", "words"),
    [
        ("execute", "198.51.100.7", True, "behind NAT, and is called through the master (CCB)"),
        ("submit", "198.51.100.7", False, "executors must reach it, see --forward"),
        ("execute", "10.0.0.4", False, ""),
        ("execute", "", False, ""),  # the master does not say
    ],
)
def test_behind_nat(
    role: str, seen: str, ccb: bool, words: str, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "fetch", lambda _at, path: seen.encode())
    said: list[str] = []
    own_address.follow_nat(role, "192.0.2.1", said.append, config=str(two))
    assert ("CCB_ADDRESS = $(COLLECTOR_HOST)" in two.read_text()) == ccb
    assert len(said) == bool(words)
    assert not words or words in said[0]


def test_an_answer_that_is_no_address_is_none(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "fetch", lambda _at, path: b"x\nALLOW_WRITE = *")
    own_address.follow_nat("execute", "192.0.2.1", pytest.fail, config=str(two))
    assert two.read_text() == ""


@pytest.mark.parametrize("hosts", ["127.0.0.1 localhost\n", "# a lab here\n", "10.0.0.9 lab-2\n"])
def test_an_entry_for_oneself(hosts: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(hosts)
    own_address.know_own_name("lab", "10.0.0.4", pytest.fail, str(path))
    assert path.read_text() == f"{hosts}10.0.0.4\tlab\n"
    own_address.know_own_name("lab", "10.0.0.5", pytest.fail, str(path))
    assert path.read_text() == f"{hosts}10.0.0.4\tlab\n"


def test_what_cannot_be_written_is_advised(tmp_path: Path) -> None:
    said: list[str] = []
    own_address.know_own_name("lab", "10.0.0.4", said.append, str(tmp_path / "no" / "hosts"))
    assert said[0].endswith("give it --add-host lab:10.0.0.4")
