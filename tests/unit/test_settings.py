"""The command line of `docker run IMAGE …`."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost_node.errors import BadInput
from roost_node.settings import Settings, User, parse


def words(text: str) -> Settings:
    return parse(text.split(), hostname="node1.example.org")


def test_each_role_has_its_letter() -> None:
    assert (words("-m").role, words("-m").master) == ("master", "")
    assert (words("-s cm").role, words("-s cm").master) == ("submit", "cm")
    assert (words("-e 10.0.0.7").role, words("-e 10.0.0.7").master) == ("execute", "10.0.0.7")
    assert words("-e [fd00::1]").master == "fd00::1"


def test_a_pool_may_have_two_masters() -> None:
    assert (words("-m").second, words("-m --peer cm2").second) == ("", "cm2")
    node = words("-e cm,CM2")
    assert (node.master, node.second) == ("cm", "cm2")
    node = words("-s 10.0.0.7,cm2")
    assert (node.master, node.second) == ("10.0.0.7", "cm2")


def test_the_node_is_named_by_the_first_label_of_its_host_name() -> None:
    assert words("-m").node == "node1"


def test_the_2016_letters_are_kept(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    node = words(
        f"-s cm -c /etc/x.conf -k /keys -u john -u jane -p {password} -C cm:9618 -P lab -S /token"
    )
    assert node.extra_config == "/etc/x.conf"
    assert node.authorized_keys == "/keys"
    assert node.users == (User("john"), User("jane", password))
    assert (node.ccb_address, node.private_network) == ("cm:9618", "lab")
    assert node.token_file == Path("/token")
    assert words("-e cm --join-token /t").token_file == Path("/t")


@pytest.mark.parametrize(
    ("given", "mebibytes"),
    [("2GiB", 2048), ("512m", 512), ("512", 512), ("1.5g", 1536), ("1T", 1048576)],
)
def test_memory_has_units_and_is_mebibytes_without(given: str, mebibytes: int) -> None:
    assert words(f"-e cm --memory {given}").memory == mebibytes


@pytest.mark.parametrize(("given", "cpus"), [("2", 2), ("0.5", 1), ("2.9", 2)])
def test_cpus_are_whole(given: str, cpus: int) -> None:
    assert words(f"-e cm --cpus {given}").cpus == cpus


def test_how_long_a_job_may_take_to_end() -> None:
    assert words("-e cm").vacate == 6
    assert words("-e cm --vacate 20").vacate == 20


def test_the_lease_of_an_access_points_jobs() -> None:
    assert words("-s cm").lease == 60
    assert words("-s cm --lease 300").lease == 300


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "a node needs a role: -m, or -s MASTER, or -e MASTER"),
        ("-x", "unrecognized arguments: -x"),
        ("-e", "argument -e: expected one argument"),
        ("-m -e cm", "not allowed with argument -m"),
        ("-e 300.1.2.3", "-e '300.1.2.3' is not a valid IP address"),
        ("-e 10.0.0", "-e '10.0.0' is not a valid IP address"),
        ("-s fd00::zz", "-s 'fd00::zz' is neither a host name nor an address"),
        ("-s ma_ster!", "-s 'ma_ster!' is neither a host name nor an address"),
        ("-e cm -u john", "-u makes users of an access point"),
        ("-s cm -u Jo!hn", "-u 'Jo!hn' is not a user's name"),
        ("-s cm -p secret", "-p takes a file that holds the password"),
        ("-e cm --cpus 0", "--cpus '0' is not a number of CPUs"),
        ("-e cm --cpus -1", "--cpus"),
        ("-e cm --cpus many", "--cpus 'many' is not a number of CPUs"),
        ("-e cm --memory lots", "--memory 'lots' is not an amount of memory"),
        ("-s cm --lease 29", "--lease '29' is not a lease; give a number of seconds from 30 to"),
        ("-s cm --lease 5min", "--lease '5min' is not a lease"),
        ("-e cm --lease 60", "--lease is for the jobs of an access point; it goes with -s MASTER"),
        ("-e cm --vacate 0", "--vacate '0' is not a time to end"),
        ("-e cm --public-read", "--public-read is for what answers for the pool"),
        ("-s cm --vacate 9", "--vacate is for the jobs of an execution point"),
        ("-m --health-port 70000", "--health-port '70000' is not a port"),
        ("-e cm --peer cm2", "--peer names a master's peer; it goes with -m"),
        ("-m --peer node1", "--peer 'node1' is this master itself"),
        ("-m --peer=", "--peer '' is neither a host name nor an address"),
        ("-e cm,", "-e '' is neither a host name nor an address"),
        ("-e cm,cm", "-e 'cm,cm' names one master twice"),
        (
            "-e cm,10.0.0.7",
            "-e '10.0.0.7': a pool's second master is known by its node's name alone",
        ),
        ("-e cm,a.b", "-e 'a.b': a pool's second master is known by its node's name alone"),
        ("-e a,b,c", "-e 'b,c' is neither a host name nor an address"),
        ("-m --pool Bad_Name", "--pool 'Bad_Name' is not a pool's name"),
    ],
)
def test_bad_input_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        words(line)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_in_argv_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput) as caught:
        words("-s cm -u john -p hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_host_name_that_cannot_be_a_node_is_refused() -> None:
    with pytest.raises(BadInput, match="--hostname"):
        parse(["-m"], hostname="bad_host")


def test_the_value_of_a_knob_makes_no_line_of_its_own() -> None:
    for flag in ("-C", "-P"):
        with pytest.raises(BadInput, match=f"{flag} .*printable"):
            parse(["-m", flag, "x\nALLOW_WRITE = *"], hostname="n")
    assert parse(["-m", "-C", "cm:9618, other:9618"], hostname="n").ccb_address


def test_a_sentence_about_odd_arguments_is_one_line() -> None:
    with pytest.raises(BadInput) as raised:
        parse(["-m", "--bogus", "a\nb"], hostname="n")
    assert "\n" not in str(raised.value)


def test_what_is_too_long_for_a_file_is_not_one() -> None:
    with pytest.raises(BadInput, match="no such file"):
        parse(["-s", "m", "-u", "john", "-p", "a" * 5000], hostname="n")


def test_a_name_may_differ_from_the_host_name() -> None:
    assert parse(["-m", "--name", "lab-1"], hostname="pod-0").node == "lab-1"
    assert parse(["-m", "--name", "lab-1"], hostname="bad_host").node == "lab-1"
    for name in ("", "a.b", "Lab", "a b", "x" * 64):
        with pytest.raises(BadInput, match=r"--name .* cannot be a node's name"):
            parse(["-m", "--name", name])
