"""PoolSpec: what it accepts, what it refuses, and what it computes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from roost.data import Bind, Rclone, Sshfs
from roost.errors import BadInput
from roost.spec import (
    IMAGES,
    MAX_EXECUTORS,
    MAX_IDENTITY,
    RESERVED_USERS,
    Execute,
    HTCondor,
    Master,
    Network,
    PoolSpec,
    Submit,
    parse_duration,
    parse_size,
)
from roost_node.vocab import identity


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (7, 7),
        ("7", 7),
        ("1k", 1000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("512MiB", 512 * 2**20),
        ("2g", 2 * 10**9),
        (" 1.5 GiB ", 3 * 2**29),
        ("1Ti", 2**40),
        ("0.1TB", 10**11),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "2XB", "-1GiB", "1e9", "1,5GiB", "1_000", "٣GiB", "9" * 400, 1.5, True, None, [1]],
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="not a size; write it as 512MiB or 2GiB"):
        parse_size(text)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
def test_a_size_is_a_number_or_a_value_error(value: object) -> None:
    try:
        assert isinstance(parse_size(value), int)
    except ValueError as error:
        assert "not a size" in str(error)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (7, 7),
        ("7", 7),
        ("60s", 60),
        ("45 sec", 45),
        ("5min", 300),
        (" 5m ", 300),
        ("2h", 7200),
        ("1d", 86400),
    ],
)
def test_durations(text: str | int, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1.5h",
        "-1s",
        "1e9",
        "2 weeks",
        "1h30m",
        "5M",
        "٣s",
        "9" * 400,
        1.5,
        True,
        None,
        [1],
    ],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration; write it as 60s, 5min or 1h"):
        parse_duration(text)


def test_a_lease_has_limits() -> None:
    assert Submit().lease == 60
    assert Submit.model_validate({"lease": "5min"}).lease == 300
    assert Submit.model_validate({"lease": 30}).lease == 30
    with pytest.raises(ValidationError, match="is 29 s; choose 30 s to 7 d"):
        Submit.model_validate({"lease": "29s"})
    with pytest.raises(ValidationError, match="is 8 d; choose 30 s to 7 d"):
        Submit.model_validate({"lease": "8d"})


@pytest.mark.parametrize("name", ["a", "roost", "p-1", "a" * 32])
def test_pool_names(name: str) -> None:
    assert PoolSpec(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a-", "-a", "a_b", "a.b", "a b", "a" * 33, "ä", "a\n"]
)
def test_what_is_no_pool_name(name: str) -> None:
    with pytest.raises(ValidationError):
        PoolSpec(name=name)


@pytest.mark.parametrize("user", ["john", "_x", "user", "experiment", "apache", "cms", "slot1"])
def test_user_names(user: str) -> None:
    assert Submit(users=(user,)).users == (user,)


@pytest.mark.parametrize(
    "user",
    [*sorted(RESERVED_USERS), "cm-a", "ap-a", "exec-a", "slot1_4", "slot12_1", "condor_pool",
     "systemd-network"],
)  # fmt: skip
def test_names_of_nodes_slots_and_the_system_are_no_users(user: str) -> None:
    with pytest.raises(ValidationError, match="name of the pool's or the system's own"):
        Submit(users=(user,))


@given(st.from_regex(r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$", fullmatch=True))
def test_no_user_has_a_nodes_identity(node: str) -> None:
    for role in ("master", "submit", "execute"):
        with pytest.raises(ValidationError):
            Submit(users=(identity(role, node),))


def test_a_user_stands_once() -> None:
    with pytest.raises(ValidationError, match="has 'john' twice"):
        Submit(users=("john", "mary", "john"))


@pytest.mark.parametrize("network", ["host", "none", "bridge", "", "a b", "container:x"])
def test_networks_that_cannot_carry_a_pool(network: str) -> None:
    with pytest.raises(ValidationError):
        Network(name=network)


@pytest.mark.parametrize("image", ["", "a b", "-v", "$(x)"])
def test_what_is_no_image(image: str) -> None:
    with pytest.raises(ValidationError):
        HTCondor(image=image)


def test_the_image_is_the_releases_or_the_one_named() -> None:
    assert PoolSpec().image_name == f"{IMAGES}:trixie"
    assert PoolSpec(htcondor=HTCondor(release="lts")).image_name == f"{IMAGES}:lts"
    own = "internal.example:5000/condor@sha256:0a"
    assert PoolSpec(htcondor=HTCondor(image=own), data_urls=("https",)).image_name == own


def test_the_image_has_what_the_data_needs() -> None:
    web = Rclone(type="rclone", backend="http")
    assert PoolSpec(data={"web": web}).image_name == f"{IMAGES}:trixie-rclone"
    shell = Sshfs(type="sshfs", host="h", user="u", host_key="ssh-ed25519 AAAA")
    both = PoolSpec(data={"shell": shell, "web": web}, data_urls=("s3", "dav"))
    assert both.extras == ("rclone", "sshfs")
    assert PoolSpec(data={"here": Bind(type="bind", path="/srv")}).extras == ()


@pytest.mark.parametrize("cpus", [0, -1, True, "2", float("nan"), float("inf"), 1025, None])
def test_what_is_no_number_of_cpus(cpus: object) -> None:
    with pytest.raises(ValidationError):
        Execute.model_validate({"cpus": cpus})


@pytest.mark.parametrize("count", [-1, True, "2", 1.5, 1001, None])
def test_what_is_no_count(count: object) -> None:
    with pytest.raises(ValidationError):
        Execute.model_validate({"count": count})


@pytest.mark.parametrize("memory", [4, "127MiB", "2PB", 2**51])
def test_what_is_no_memory_for_a_container(memory: object) -> None:
    for part in (Execute, Master, Submit):
        with pytest.raises(ValidationError):
            part.model_validate({"memory": memory})


def test_config_is_text_that_a_file_can_hold() -> None:
    assert PoolSpec(config="A = 1\n# ü\n").config
    for odd in ("\0", "\ud800"):
        with pytest.raises(ValidationError, match="no configuration file"):
            PoolSpec(config=odd)


def test_groups_have_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match="has the name 'a' twice"):
        PoolSpec(execute=(Execute(name="a"), Execute(name="b"), Execute(name="a")))
    for role in ("master", "submit"):
        with pytest.raises(ValidationError, match="a role"):
            Execute(name=role)


@given(st.integers(1, 32), st.integers(1, 32))
def test_every_accepted_name_fits_into_a_certificate(pool: int, group: int) -> None:
    longest = identity("execute", f"{'p' * pool}-{'g' * group}-{MAX_EXECUTORS}")
    try:
        PoolSpec(name="p" * pool, execute=(Execute(name="g" * group),))
    except ValidationError as error:
        assert len(longest) > MAX_IDENTITY
        assert f"{len(longest) - MAX_IDENTITY} characters too long" in str(error)
    else:
        assert len(longest) <= MAX_IDENTITY


def test_defaults_equal_what_a_file_with_them_would_say() -> None:
    said = PoolSpec.model_validate(PoolSpec().model_dump())
    assert said == PoolSpec()
    assert repr(said) == repr(PoolSpec())


def test_scaled_changes_counts_and_nothing_else() -> None:
    spec = PoolSpec(name="p", execute=(Execute(name="a", count=1, cpus=2.0), Execute(name="b")))
    scaled = spec.scaled({"a": 5})
    assert [group.count for group in scaled.execute] == [5, 1]
    assert scaled.executors == 6
    assert scaled.scaled({"a": 1}) == spec
    assert spec.scaled({}) == spec


def test_scaled_refuses_what_cannot_be() -> None:
    with pytest.raises(KeyError, match="gpu"):
        PoolSpec().scaled({"gpu": 1})
    for count in (-1, MAX_EXECUTORS + 1):
        with pytest.raises(BadInput, match="choose 0 to 1000"):
            PoolSpec().scaled({"execute": count})


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValidationError):
        PoolSpec().name = "other"
