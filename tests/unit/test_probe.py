"""`roost-node probe`: what it makes of the kernel's and HTCondor's words, and of real sockets."""

from __future__ import annotations

import io
import ipaddress
import socket
from collections.abc import Iterator

import pytest

from roost_node import probe
from roost_node.errors import BadInput
from roost_node.interfaces import interfaces
from roost_node.vocab import CONDOR_PORT


@pytest.mark.parametrize(
    ("sinful", "address"),
    [
        ("<10.0.0.2:9618?addrs=10.0.0.2-9618&alias=lab>", ("10.0.0.2", 9618)),
        ("<[fd00::2]:9620?addrs=[fd00--2]-9620>", ("fd00::2", 9620)),
        ("<10.0.0.2:9618>", ("10.0.0.2", 9618)),
        ("", ("", 9618)),
    ],
)
def test_the_address_that_is_told(sinful: str, address: tuple[str, int]) -> None:
    assert probe.where(sinful) == address


@pytest.mark.parametrize(
    ("words", "means"),
    [
        ("READ failed!\nAUTHENTICATE:1003:Failed to authenticate with any method\n"
         "AUTHENTICATE:1004:Failed to authenticate using SSL\n\n",
         "Failed to authenticate using SSL"),
        ('WRITE failed!\nSECMAN:2010:Received "DENIED" from server for user ap-a@lab.internal '
         "using method SSL.\n", "DENIED as ap-a@lab.internal"),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_why_htcondor_refused(words: str, means: str) -> None:
    assert probe.reason(words) == means


@pytest.fixture
def listener() -> Iterator[str]:
    """HTCondor's port is open on an address of this machine that nobody else uses."""
    address = "127.77.0.1"
    with socket.create_server((address, CONDOR_PORT)):
        yield address


def test_who_listens(listener: str) -> None:
    assert probe.listens(CONDOR_PORT)
    assert not probe.listens(1)


def test_a_port_that_is_open_and_one_that_is_not(listener: str) -> None:
    found = probe.connect(listener, CONDOR_PORT)
    assert found["from"].startswith("127.")
    assert 0 < found["ms"] < 3000
    assert probe.connect("127.77.0.9", CONDOR_PORT) == {"error": "refused"}


def test_a_name() -> None:
    assert probe.resolve("127.77.0.1")["addresses"] == ["127.77.0.1"]
    assert probe.resolve("no-such-host.invalid")["error"]


def test_this_machines_addresses_are_addresses_and_none_is_its_own_alone() -> None:
    for each in interfaces():
        assert not ipaddress.ip_address(each.address).is_loopback
        assert each.mtu >= 576


@pytest.mark.parametrize("said", ["{}", "[1]", "nonsense"])
def test_what_is_no_list_of_targets(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    with pytest.raises(BadInput, match="a JSON list of targets"):
        probe.main([])
