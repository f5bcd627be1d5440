"""A node's log as JSON lines, and through the rotation of its files."""

from __future__ import annotations

import json
import re

import pytest
from node_bench import Containers, Node, Trio, eventually, healthy, private, tail

pytestmark = pytest.mark.engine


def test_json_lines_and_nothing_else(containers: Containers) -> None:
    node = containers.run("json", "-m", "--json-logs")
    healthy(node)
    eventually(lambda: {"negotiator", "collector", "shared_port"} <= daemons(node), 20, node)
    assert {"roost", "supervisord", "master"} <= daemons(node)
    assert node.stop()[0] == 0
    for line in node.lines():
        entry = json.loads(line)
        assert set(entry) - {"slot"} == {"time", "daemon", "message"}
        assert re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:]{8}Z", entry["time"])
    # To its last word.
    last = [json.loads(line) for line in node.lines()[-12:]]
    assert any(e["daemon"] == "master" and "EXITING WITH STATUS 0" in e["message"] for e in last)


def daemons(node: Node) -> set[str]:
    return {json.loads(line)["daemon"] for line in node.lines()}


def test_files_rotate_and_no_line_is_lost(containers: Containers) -> None:
    limit = 8_000
    config = private(
        containers.directory / "small", f"MAX_DEFAULT_LOG = {limit}\nMAX_PROCD_LOG = {limit}\n"
    )
    trio = Trio(
        containers, submit=["-u", "john"], execute=["--cpus", "4"],
        everywhere=["-c", "/c"], options=["-v", f"{config}:/c:ro"],
    )  # fmt: skip
    access = trio.submit
    trio.admit()
    trio.ready()
    access.sh(
        "cat > many.sub", user="john",
        stdin="executable = /bin/true\nlog = many.log\nshould_transfer_files = Yes\n"
        "when_to_transfer_output = ON_EXIT\nrequest_memory = 32\nqueue 40\n",
    )  # fmt: skip
    access.sh("condor_submit many.sub", user="john")
    status, text = access.tried("condor_wait -wait 120 many.log", user="john")
    assert status == 0, text + tail(access)
    ends = {f"Job 1.{n} terminated: exited with status 0" for n in range(40)}

    def all_there() -> bool:
        log = "\n".join(access.lines())
        missing = [end for end in ends if end not in log]
        assert not missing, missing
        return True

    eventually(all_there, 20, access)
    # The files forgot the first ones: they are bounded.
    kept = access.sh("cat /var/log/condor/ShadowLog*")
    assert any(end not in kept for end in ends)
    for node in trio.nodes:
        for row in node.sh("stat -c '%s %n' /var/log/condor/*Log*").splitlines():
            size = row.split()[0]
            # A daemon looks at the size after it has written; ProcD looks seldom.
            assert int(size) < 3 * limit or "/ProcLog" in row, row
    trio.execute.sh("test -s /var/log/condor/ProcLog.old")
