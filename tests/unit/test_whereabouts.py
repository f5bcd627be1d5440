"""Where the master is, and what happens when it moves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from roost_node import whereabouts


def test_an_address_is_given_with_the_name_in_the_certificate() -> None:
    assert whereabouts.collector_host("10.0.0.7", "cm1") == "<10.0.0.7:9618?alias=cm1>"
    assert whereabouts.collector_host("fd00::7", "cm1") == "<[fd00::7]:9618?alias=cm1>"


def test_a_literal_address_is_its_own() -> None:
    assert whereabouts.addresses("10.0.0.7") == ["10.0.0.7"]


def test_addresses_that_are_here() -> None:
    assert whereabouts.is_here("127.0.0.1")
    assert not whereabouts.is_here("192.0.2.201")
    assert all(whereabouts.is_here(address) for address in whereabouts.here())
    assert not [address for address in whereabouts.here() if address.startswith("127.")]


def test_a_node_that_was_given_another_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".master_address"
    home = whereabouts.Home(str(path))
    now: list[str] = ["10.0.0.9"]
    monkeypatch.setattr(whereabouts, "here", lambda: now)
    monkeypatch.setattr(whereabouts, "is_here", lambda address: address in now)
    assert not home.moved(), "its daemons have not started yet"
    path.write_text("<10.0.0.2:9618?addrs=10.0.0.2-9618&sock=master>\n$CondorVersion$\n")
    assert not home.moved(), "it may be half done"
    assert home.moved() == "10.0.0.9"
    now = []
    assert not home.moved(), "it is on no network: there is nowhere to go"
    now = ["10.0.0.9"]
    assert not home.moved()
    now = ["10.0.0.2"]
    assert not home.moved()
    now = ["10.0.0.9"]
    assert not home.moved(), "it had come back between"
    assert home.moved()
    home.forget()
    assert not path.exists()
    assert not home.moved()
    path.write_text("<[fd00::2]:9618>\n")
    assert [home.moved(), home.moved()] == ["", "10.0.0.9"]
    path.write_text("<10.0.0.9:9618>\n")
    assert [home.moved(), home.moved()] == ["", ""]


class World:
    """Names and where they lead; addresses where nobody listens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
        self.names = names
        self.silent: set[str] = set()
        monkeypatch.setattr(whereabouts, "addresses", self._addresses)
        monkeypatch.setattr(whereabouts, "reaches", self._reaches)

    def _addresses(self, name: str) -> list[str]:
        if name not in self.names:
            raise socket.gaierror(name)
        return self.names[name].split()

    def _reaches(self, address: str, within: float = 3) -> bool:
        return address not in self.silent


class Seen:
    """A Watch, what it said and what it wrote last."""

    def __init__(self, tmp: Path, masters: list[str], *, own: str = "", **found: str) -> None:
        self.said: list[str] = []
        self._path = tmp / "20-master.conf"
        self.told = tmp / "masters"
        self.watch = whereabouts.Watch(
            masters, {masters[0]: "cm1"}, found, self.said.append,
            own=own, told=str(self.told), path=str(self._path),
        )  # fmt: skip

    def look(self) -> dict[str, str]:
        """What the configuration says after another look; empty as long as it was never written."""
        self.watch.look().join()
        return self.written()

    def written(self) -> dict[str, str]:
        text = self._path.read_text() if self._path.exists() else ""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return dict(line.split(" =", 1) for line in lines)


def test_a_master_that_moved_is_written_down_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, cm="10.0.0.2")
    seen = Seen(tmp_path, ["cm"], cm="10.0.0.2")
    assert seen.look() == {}
    world.names = {}
    assert seen.look() == {}, "a name that does not resolve for a while is no move"
    world.names = {"cm": "10.0.0.9"}
    seen.look()
    assert seen.look() == {"COLLECTOR_HOST": " <10.0.0.9:9618?alias=cm1>"}
    assert seen.said == ["the master has moved to 10.0.0.9"]


def test_one_of_several_addresses_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch, cm="10.0.0.1 10.0.0.2")
    assert Seen(tmp_path, ["cm"], cm="10.0.0.2").look() == {}


def test_an_only_master_is_never_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch, cm="10.0.0.2").silent = {"10.0.0.2"}
    assert Seen(tmp_path, ["cm"], cm="10.0.0.2").look() == {}


def test_of_two_masters_the_one_that_is_gone_is_left_out_and_comes_back_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, cm="10.0.0.2", cm2="10.0.0.3")
    seen = Seen(tmp_path, ["cm", "cm2"], cm="10.0.0.2", cm2="10.0.0.3")
    assert seen.look() == {}
    world.silent = {"10.0.0.2"}
    assert seen.look()["COLLECTOR_HOST"] == " <10.0.0.3:9618?alias=cm2>"
    world.silent, world.names = set(), {"cm2": "10.0.0.3"}
    seen.look()
    world.names["cm"] = "10.0.0.9"
    back = seen.look()
    assert back["COLLECTOR_HOST"] == " <10.0.0.3:9618?alias=cm2>, <10.0.0.9:9618?alias=cm1>"
    assert back["HAD_USE_PRIMARY"] == " True"
    assert seen.said == ["masters: cm does not answer", "masters: cm is at 10.0.0.9"]


def test_while_none_of_two_answers_both_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, cm="10.0.0.2", cm2="10.0.0.3")
    world.silent = {"10.0.0.2", "10.0.0.3"}
    assert Seen(tmp_path, ["cm", "cm2"], cm="10.0.0.2", cm2="10.0.0.3").look() == {}


def test_a_master_lists_itself_first_and_its_peer_for_the_election_even_when_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, cm2="10.0.0.3")
    seen = Seen(tmp_path, ["cm2", "cm"], own="cm2", cm2="10.0.0.3")
    assert seen.look() == {}
    world.names["cm"] = "10.0.0.2"
    both = seen.look()
    assert both["COLLECTOR_HOST"] == " <10.0.0.3:9618?alias=cm1>, <10.0.0.2:9618?alias=cm>"
    assert both["HAD_LIST"] == both["REPLICATION_LIST"] == " 10.0.0.2:9618, 10.0.0.3:9618"
    assert both["HAD.COLLECTOR_HOST"] == " <10.0.0.3:9618?alias=cm1>"
    seen.watch.settle("10.0.0.8")
    both = seen.look()
    assert both["COLLECTOR_HOST"].startswith(" <10.0.0.8:9618?alias=cm1>")
    assert both["HAD_LIST"] == " 10.0.0.2:9618, 10.0.0.8:9618"
    del world.names["cm"]
    alone = seen.look()
    assert alone == both | {"COLLECTOR_HOST": " <10.0.0.8:9618?alias=cm1>"}


def test_a_node_may_be_told_of_other_masters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World(monkeypatch, cm="10.0.0.2", cm2="10.0.0.3")
    seen = Seen(tmp_path, ["cm"], cm="10.0.0.2")
    seen.told.write_text("cm,cm2\n")
    assert seen.look()["COLLECTOR_HOST"].endswith(", <10.0.0.3:9618?alias=cm2>")
    seen.told.write_text("cm\n")
    assert seen.look() == {"COLLECTOR_HOST": " <10.0.0.2:9618?alias=cm1>"}


def test_a_node_that_stops_leaves_out_masters_that_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, cm="10.0.0.2", cm2="10.0.0.3")
    only = Seen(tmp_path, ["cm"], cm="10.0.0.2")
    two = Seen(tmp_path, ["cm", "cm2"], cm="10.0.0.2", cm2="10.0.0.3")
    assert only.watch.leave() == two.watch.leave() == []
    world.silent = {"10.0.0.2"}
    assert two.watch.leave() == ["cm"]
    assert two.written()["COLLECTOR_HOST"] == " <10.0.0.3:9618?alias=cm2>"
    assert only.watch.leave() == ["cm"]
    assert only.written() == {"COLLECTOR_HOST": " "}


def test_a_port_is_reached_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(whereabouts, "CONDOR_PORT", server.getsockname()[1])
        assert whereabouts.reaches("127.0.0.1")
    assert not whereabouts.reaches("127.0.0.1")
