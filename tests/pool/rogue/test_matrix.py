"""Who may do what on a real pool: everybody, at every level, asked of every daemon."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from node_bench import eventually
from rogue_bench import WHERE, Place, place
from roost_bench import at_home, well

from rights import LEVELS, RIGHTS

pytestmark = pytest.mark.engine

#: Principal and daemon → level → condor_ping's answer, word by word.
Asked = dict[tuple[str, str], dict[str, list[str]]]

#: Asks every daemon as every principal, some at a time.
ASK = """\
mkdir -p /tmp/asked
for who in {who}; do for daemon in {daemons}; do echo $who $daemon; done; done |
xargs -P 4 -L 1 sh -c '
    eval address=\\$$1
    CONDOR_CONFIG=/p/$0/config condor_ping -addr "$address" -table {levels} >/tmp/asked/$0.$1 2>&1
    true'
grep -r "" /tmp/asked
"""


@pytest.fixture(scope="module")
def there(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        at_home(tmp_path_factory.mktemp("home")),
        place(image, "matrix", tmp_path_factory.mktemp("p")) as found,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", found.pool)
        well("credential", "revoke", "mallory")
        for node, _ in WHERE.values():
            found.node(node).sh("roost-node renew --look")
        yield found


@pytest.fixture(scope="module")
def asked(there: Place) -> Asked:
    said = there.stranger.sh(
        ASK.format(who=" ".join(RIGHTS), daemons=" ".join(WHERE), levels=" ".join(LEVELS)),
        env=[f"{daemon}={address}" for daemon, address in there.addresses.items()],
    )
    found: Asked = {}
    for line in said.splitlines():
        path, _, words = line.partition(":")
        if (row := words.split()) and row[0] in LEVELS:
            who, _, daemon = path.rpartition("/")[2].rpartition(".")
            found.setdefault((who, daemon), {})[row[0]] = row[1:]
    return found


def test_everybody_may_do_what_is_declared_and_no_more(asked: Asked) -> None:
    assert {pair: set(levels) for pair, levels in asked.items()} == {
        (who, daemon): set(LEVELS) for who in RIGHTS for daemon in WHERE
    }
    found = {
        pair: {level for level, row in levels.items() if row[3] == "ALLOW"}
        for pair, levels in asked.items()
    }
    declared = {(who, daemon): RIGHTS[who].at(daemon) for who in RIGHTS for daemon in WHERE}
    assert {pair: found[pair] for pair in found if found[pair] != declared[pair]} == {}


def test_who_is_believed_showed_a_certificate_and_all_is_encrypted(
    asked: Asked, there: Place
) -> None:
    seen = {
        (who, *row)
        for (who, _), levels in asked.items()
        for row in levels.values()
        if row[3] == "ALLOW"
    }
    assert seen == {
        (who, "SSL", "AES", "AES", "ALLOW", there.names[who])
        for who, rights in RIGHTS.items()
        if rights.known
    }


@pytest.mark.parametrize("daemon", WHERE)
def test_every_refusal_stands_in_the_log(daemon: str, asked: Asked, there: Place) -> None:
    """Who, from where, and what was asked for; where a certificate is no good, there is no who."""
    node = there.node(WHERE[daemon][0])
    stranger = re.escape(there.stranger.ip)
    unknown = sum(not rights.known for rights in RIGHTS.values()) * len(LEVELS)
    refused = {
        (there.names[who], level)
        for (who, at), levels in asked.items()
        for level, row in levels.items()
        if at == daemon and RIGHTS[who].known and row[3] != "ALLOW"
    }
    assert len(refused) > 50

    def logged() -> bool:
        said: Counter[object] = Counter()
        for line in node.lines():
            if found := re.search(
                rf"PERMISSION DENIED to (\S+) from host {stranger} for .* access level (\w+)", line
            ):
                said[found.groups()] += 1
            elif re.search(rf"required authentication of {stranger} failed: ", line):
                said["unknown"] += 1
        assert refused - set(said) == set()
        assert said["unknown"] >= unknown, said["unknown"]
        return True

    eventually(logged, 30)
