"""Role and settings → HTCondor's configuration: what a stranger would check by eye."""

from __future__ import annotations

import re

import pytest

from roost_node.roles import Facts, configuration, mapfile
from roost_node.settings import parse
from roost_node.vocab import Role

FACTS = Facts(pool="lab", master_name="cm1", cpus=4, memory=2048, descriptors=1024)
LINES: dict[Role, str] = {"master": "-m", "submit": "-s cm1", "execute": "-e cm1"}


def knobs(role: Role, line: str = "", facts: Facts = FACTS) -> dict[str, str]:
    text = configuration(parse((line or LINES[role]).split(), hostname="n1"), facts)
    pairs = (
        entry.split(" = ", 1) for entry in text.splitlines() if re.match(r"[A-Za-z_.0-9]+ =", entry)
    )
    return {pair[0].removesuffix(" ="): pair[1] if len(pair) > 1 else "" for pair in pairs}


@pytest.mark.parametrize("role", ["master", "submit", "execute"])
def test_security_is_required_everywhere(role: Role) -> None:
    found = knobs(role)
    for side in ("DEFAULT", "CLIENT"):
        for property in ("AUTHENTICATION", "ENCRYPTION", "INTEGRITY"):
            assert found[f"SEC_{side}_{property}"] == "REQUIRED"
        assert found[f"SEC_{side}_AUTHENTICATION_METHODS"] == "SSL"
    assert found["UID_DOMAIN"] == found["TRUST_DOMAIN"] == "lab.internal"


@pytest.mark.parametrize("role", ["master", "submit", "execute"])
def test_nobody_may_write_without_an_identity_of_the_pool(role: Role) -> None:
    for knob, value in knobs(role).items():
        if re.match(r"(\w+\.)?ALLOW_", knob) and not knob.endswith(".ALLOW_CLIENT"):
            for who in value.split():
                assert who.split("@")[-1] in ("lab.internal", "family", "parent", "child",
                                              "matchsession"), (knob, who)  # fmt: skip


def test_a_pool_that_everybody_may_read_gives_that_and_nothing_else() -> None:
    daemons: dict[Role, str] = {"master": "COLLECTOR", "submit": "SCHEDD"}
    for role, daemon in daemons.items():
        closed, public = knobs(role), knobs(role, f"{LINES[role]} --public-read")
        more = {knob: value for knob, value in public.items() if closed.get(knob) != value}
        levels = ("AUTHENTICATION", "ENCRYPTION", "INTEGRITY")
        expected = {f"{daemon}.SEC_READ_{level}": "OPTIONAL" for level in levels}
        assert more == expected | {f"{daemon}.ALLOW_READ": "*"}


def test_an_executor_may_not_do_what_only_users_or_access_points_may() -> None:
    assert "exec-*@lab.internal" in knobs("submit")["DENY_WRITE"].split()
    assert knobs("master")["COLLECTOR.ALLOW_ADVERTISE_SCHEDD"] == (
        "ap-*@lab.internal cm-n1@lab.internal"
    )
    assert knobs("master")["COLLECTOR.ALLOW_ADVERTISE_STARTD"] == (
        "exec-*@lab.internal cm-n1@lab.internal"
    )


def test_local_authentication_is_between_a_user_and_the_schedd_alone() -> None:
    for role in LINES:
        with_fs = {knob for knob, value in knobs(role).items() if "FS" in value.split(", ")}
        expected = {
            "SCHEDD.SEC_READ_AUTHENTICATION_METHODS",
            "SCHEDD.SEC_WRITE_AUTHENTICATION_METHODS",
            "TOOL.SEC_CLIENT_AUTHENTICATION_METHODS",
            "SUBMIT.SEC_CLIENT_AUTHENTICATION_METHODS",
        }
        assert with_fs == (expected if role == "submit" else set())


def test_descriptor_knobs_never_exceed_the_container() -> None:
    assert knobs("master")["COLLECTOR_MAX_FILE_DESCRIPTORS"] == "1024"
    roomy = Facts("lab", "cm1", 1, 128, descriptors=10**6)
    assert knobs("master", facts=roomy)["COLLECTOR_MAX_FILE_DESCRIPTORS"] == "10240"


def test_an_executor_advertises_what_it_was_given_and_jobs_have_accounts() -> None:
    found = knobs("execute")
    assert (found["NUM_CPUS"], found["MEMORY"]) == ("4", "2048")
    assert found["SLOT1_4_USER"] == "slot1_4"
    assert found["STARTER_ALLOW_RUNAS_OWNER"] == "False"


def test_a_lease_is_the_most_that_a_job_may_have() -> None:
    text = configuration(parse(["-s", "cm", "--lease", "90"], hostname="n1"), FACTS)
    assert "   SET JobLeaseDuration 90\n" in text
    assert "JobLeaseDuration <= 90) =!= true" in text
    assert "JobLeaseDuration" not in configuration(parse(["-m"], hostname="n1"), FACTS)


def test_what_a_schedd_says_is_on_its_volume() -> None:
    assert knobs("submit")["SCHEDD_JOB_QUEUE_LOG_FLUSH_DELAY"] == "0"


def test_usage_is_kept_where_the_pools_identity_is() -> None:
    file = knobs("master")["ACCOUNTANT_DATABASE_FILE"]
    assert file == "/var/lib/roost/accounts/Accountantnew.log"


def test_the_map_takes_a_certificates_common_name_and_nothing_else() -> None:
    method, expression, canonical = mapfile("lab").split()
    assert method == "SSL"
    assert re.match(expression, "/CN=exec-n1")
    assert not re.match(expression, "/O=x/CN=exec-n1")
    assert not re.match(expression, "/CN=exec-n1/CN=admin")
    assert canonical == r"\1@lab.internal"


def test_the_2016_letters_reach_the_configuration() -> None:
    found = knobs("execute", "-e cm1 -C broker:9618 -P lab-net")
    assert (found["CCB_ADDRESS"], found["PRIVATE_NETWORK_NAME"]) == ("broker:9618", "lab-net")


def test_of_two_masters_each_trusts_the_other_by_name_and_for_the_least() -> None:
    alone, paired = knobs("master"), knobs("master", "-m --peer n2")
    assert paired["DAEMON_LIST"] == "MASTER COLLECTOR NEGOTIATOR HAD REPLICATION"
    peer = "cm-n2@lab.internal"
    trusting = {knob for knob, value in paired.items() if peer in value.split()}
    assert trusting == {
        "COLLECTOR.ALLOW_NEGOTIATOR", "COLLECTOR.ALLOW_ADVERTISE_MASTER",
        "HAD.ALLOW_DAEMON", "REPLICATION.ALLOW_DAEMON",
        "HAD.ALLOW_CLIENT", "REPLICATION.ALLOW_CLIENT", "TRANSFERER.ALLOW_CLIENT",
    }  # fmt: skip
    # Where a host's name is not compared, only the masters' own identities count.
    for daemon in ("HAD", "REPLICATION", "TRANSFERER"):
        assert paired[f"{daemon}.SSL_SKIP_HOST_CHECK"] == "True"
        assert not [who for who in paired[f"{daemon}.ALLOW_CLIENT"].split() if "*" in who]
    changed = {knob for knob in alone if paired[knob] != alone[knob]}
    assert changed == {"DAEMON_LIST", "COLLECTOR.ALLOW_ADVERTISE_MASTER"}


def test_the_second_master_changes_nothing_in_other_nodes() -> None:
    assert knobs("execute", "-e cm1,cm2") == knobs("execute")
    assert knobs("submit", "-s cm1,cm2") == knobs("submit")
