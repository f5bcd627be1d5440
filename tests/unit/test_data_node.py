"""What a node tells HTCondor of mounts, and what it finds out about itself."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import yaml

from roost.confine import SECCOMP
from roost.data import Bind
from roost.engines.compose import ComposeRenderer
from roost.engines.kubernetes_manifests import KubernetesRenderer
from roost.engines.marathon import MarathonRenderer
from roost.errors import BadInput as RoostBadInput
from roost.plan import Keyless, plan
from roost.spec import Network, PoolSpec
from roost_node.data import node, probe
from roost_node.data.entries import Offer
from roost_node.data.fusermount import main as fusermount
from roost_node.data.job import asks_for, read_ad
from roost_node.data.shape import Entry, Refused
from roost_node.data.types import bind
from roost_node.errors import BadInput
from roost_node.roles import Facts, configuration
from roost_node.settings import parse
from roost_node.sick import mounted

OFFER = Offer({"lab": Entry("lab", "rclone", {"backend": "s3"}),
               "here": Entry("here", "bind", {"path": "/srv"})}, ("https",))  # fmt: skip


def facts(offered: tuple[str, ...] | None = None, problem: str = "") -> Facts:
    return Facts("lab", "cm", 4, 2048, 1024, offered=offered, data_problem=problem)


def test_an_executor_says_what_it_can_mount() -> None:
    text = configuration(parse(["-e", "cm"], hostname="n"), facts(("here", "https_url"), 'a "b"'))
    assert 'DataMountNames = "here,https_url"\n' in text
    assert "HasDataMounts = True\n" in text
    assert "DataMountsProblem = \"a 'b'\"\n" in text
    assert "\nUSER_JOB_WRAPPER = /usr/lib/roost/job-wrapper\n" in text


def test_one_that_can_mount_nothing_has_no_wrapper() -> None:
    text = configuration(parse(["-e", "cm"], hostname="n"), facts((), "no /dev/fuse"))
    assert "HasDataMounts = False\n" in text
    assert "USER_JOB_WRAPPER" not in text
    assert "DataMount" not in configuration(parse(["-e", "cm"], hostname="n"), facts())


def test_an_access_point_refuses_what_the_pool_has_not() -> None:
    text = configuration(parse(["-s", "cm"], hostname="n"), facts(("here", "lab")))
    assert '"here,lab")' in text
    assert "it has: here, lab" in text
    assert "it has none" in configuration(parse(["-s", "cm"], hostname="n"), facts())


def test_what_an_image_lacks_is_not_advertised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert node._missing(OFFER, "lab") == "lab: the image has no rclone"
    assert node._missing(OFFER, "https_url") == "https_url: the image has no rclone"
    assert (
        node._missing(OFFER, "here")
        == f"here: the container has no {bind.place(OFFER.entries['here'])}"
    )
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert node._missing(OFFER, "lab") == ""


def test_the_pools_offer_by_name() -> None:
    assert node.names(OFFER) == ("here", "lab", "https_url")


def test_an_offer_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        node.read(tmp_path / "none.json")


@pytest.mark.parametrize("argv", [["-m", "--data", "x"]])
def test_a_master_mounts_nothing(argv: list[str]) -> None:
    with pytest.raises(BadInput, match="--data says what jobs may mount"):
        parse(argv, hostname="n")


AD = 'Cmd = "/x"\nDataMounts = "lab:data:rw"\nTransferOutput = "a,b"\n'


def test_what_a_jobs_ad_asks_for() -> None:
    wishes = asks_for(read_ad(AD), OFFER)
    assert wishes is not None
    assert [(wish.entry.name, wish.directory, wish.write) for wish in wishes] == [
        ("lab", "data", True)
    ]
    assert asks_for(read_ad("PrivateMounts = true"), OFFER) == ()
    assert asks_for(read_ad("privatemounts = False"), OFFER) is None
    # The wrapper's own guess, from the words in a script.
    assert asks_for(read_ad('Cmd = "/x"'), OFFER) == ()
    with pytest.raises(Refused, match="write it in quotes"):
        asks_for(read_ad("DataMounts = lab"), OFFER)


def test_which_knob_forbids_it() -> None:
    assert "user.max_user_namespaces" in probe.advice(errno.ENOSPC, "unshare")
    assert "seccomp" in probe.advice(errno.EPERM, "unshare")
    assert "docker-default" in probe.advice(errno.EACCES, "/")


INFO = r"""
22 1 0:20 / / rw - overlay overlay rw
30 22 0:30 / /var/lib/condor/execute/dir_1/a rw - fuse.rclone data: rw
31 30 0:31 / /var/lib/condor/execute/dir_1/a/my\040b rw shared:1 - fuse x rw
32 22 0:32 / /var/lib/condor/execute/dir_2 rw - tmpfs x rw
33 22 0:33 / /home/fuse rw - fuse x rw
34 22 0:34 / /var/lib/condor/execute/dir_3/a//deleted rw - fuse.sshfs x rw
""".strip()


def test_fuse_mounts_where_jobs_have_their_files() -> None:
    assert mounted(INFO, "/var/lib/condor/execute") == [
        "/var/lib/condor/execute/dir_1/a/my b", "/var/lib/condor/execute/dir_1/a",
    ]  # fmt: skip


def test_fusermount_outside_a_jobs_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert fusermount(["-u", "/x"], {}) == 1
    assert fusermount(["-o", "rw", "--", "/x"], {"_FUSE_COMMFD": "3"}) == 1
    assert "only a job that asks for mounts" in capsys.readouterr().err
    assert fusermount(["-o", "rw", "/x"], {}) == 1
    assert fusermount([], {}) == 1
    assert fusermount(["--version"], {}) == 0


def test_the_seccomp_profile_adds_three_calls_to_the_engines() -> None:
    profile = json.loads(SECCOMP.read_text())
    *default, ours = profile["syscalls"]
    assert sorted(ours["names"]) == ["mount", "umount2", "unshare"]
    assert ours["action"] == "SCMP_ACT_ALLOW"
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    free = {name for rule in default if "includes" not in rule for name in rule["names"]}
    assert not free & {"mount", "umount2", "unshare", "setns", "bpf"}


HERE = PoolSpec(data={"here": Bind(type="bind", path="/srv/x", read_only=True)})


def test_compose_gives_executors_the_device_and_the_profile() -> None:
    texts = ComposeRenderer().render(plan(HERE, Keyless()))
    assert json.loads(texts["seccomp.json"]) == json.loads(SECCOMP.read_text())
    services = yaml.safe_load(texts["compose.yaml"])["services"]
    assert services["execute"]["devices"] == ["/dev/fuse"]
    assert "seccomp=./seccomp.json" in services["execute"]["security_opt"]
    assert "/srv/x:/srv/data/here:ro" in services["execute"]["volumes"]
    assert "devices" not in services["submit"]
    assert set(ComposeRenderer().render(plan(PoolSpec(), Keyless()))) == {"compose.yaml"}


def test_what_cannot_give_it_refuses_a_pool_with_data() -> None:
    with pytest.raises(RoostBadInput, match="a pod has no /dev/fuse"):
        KubernetesRenderer(HERE.kubernetes).render(plan(HERE, Keyless()))
    named = HERE.model_copy(update={"network": Network(name="net")})
    with pytest.raises(RoostBadInput, match="Marathon gives containers neither"):
        MarathonRenderer(HERE.marathon).render(plan(named, Keyless()))
