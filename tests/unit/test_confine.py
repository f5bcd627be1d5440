"""What each role's container may do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.confine import Confinement, as_root, confinement
from roost_node.vocab import CONDOR_USER, EXECUTE_DIR, ROLES, STATE_DIR, Role

INSTALL = Path(__file__).parents[2] / "src/roost/image/install.sh"


def test_the_master_is_nobody_in_particular() -> None:
    to = confinement("master", None)
    assert (to.user, to.capabilities, to.read_only) == (CONDOR_USER, (), True)


def test_the_image_has_the_user_that_the_master_runs_as() -> None:
    found = re.search("condor:x:([0-9]+:[0-9]+)::", INSTALL.read_text())
    assert found is not None
    assert found[1] == CONDOR_USER


@pytest.mark.parametrize("role", ROLES)
def test_no_node_has_rights_over_the_machine(role: Role) -> None:
    to = confinement(role, 1)
    assert set(to.capabilities) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"}
    assert to.pids is not None


def test_jobs_write_to_the_disk_and_not_to_memory() -> None:
    to = confinement("execute", 1)
    assert {"/tmp", "/var/tmp", EXECUTE_DIR} <= set(to.volumes)
    assert not {"/tmp", "/var/tmp", EXECUTE_DIR} & set(to.tmpfs)
    # Where the identity is delivered to a container that is read-only.
    assert STATE_DIR in to.volumes


def test_more_cpus_run_more_processes() -> None:
    counts = [confinement("execute", cpus).pids or 0 for cpus in (0.5, 1, 1.5, 64)]
    assert counts[0] == counts[1] < counts[2] < counts[3]


def test_files_that_keep_their_owner_need_root() -> None:
    to = as_root(confinement("master", None))
    assert not to.user
    assert "DAC_OVERRIDE" in to.capabilities
    assert as_root(Confinement()) == Confinement()
