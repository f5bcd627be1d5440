"""A space of Onedata in jobs on a real pool: mounted by our FUSE server, brought by the plugin.

The token comes from HTCondor's credential store. Onedata itself is a stub: see onedata_stub.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import roost_bench
import yaml
from roost_bench import refused, roost, well

import onedata_bench
from onedata_stub import SPACE
from roost._run import run
from roost.image.build import build
from roost.image.recipe import ImageSpec

pytestmark = pytest.mark.engine

STUB: Final = Path(onedata_bench.__file__).with_name("onedata_stub.py")
HOST: Final = "oneprovider"
TOKEN: Final = "MDAxY2xvY2F00aW9uIG9uZXpvbmU"
_ASK: Final = """
import ssl, sys, urllib.request
trust = ssl.create_default_context(cafile="/stub/ca.pem")
request = urllib.request.Request(f"https://oneprovider/stub/{sys.argv[2]}",
                                 sys.stdin.buffer.read() or None, method=sys.argv[1])
sys.stdout.buffer.write(urllib.request.urlopen(request, context=trust).read())
"""


@dataclass(frozen=True)
class Bench:
    """The pool, and the stub beside its nodes."""

    name: str
    directory: Path

    @property
    def stub(self) -> str:
        return f"{self.name}-stub"

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """What the stub says, past Onedata's API."""
        argv = ["docker", "exec", "-i", self.stub, "python3", "-c", _ASK, method, path]
        return run(argv, stdin=body, timeout=60).check().stdout

    def put(self, path: str, data: bytes) -> None:
        self.ask("PUT", f"files/{path}", data)

    def get(self, path: str) -> bytes:
        return self.ask("GET", f"files/{path}")

    @contextmanager
    def misbehaving(self, **how: Any) -> Iterator[None]:
        self.ask("PUT", "behave", json.dumps(how).encode())
        try:
            yield
        finally:
            self.ask("PUT", "behave", b"{}")

    @contextmanager
    def tokens(self, known: Mapping[str, float | None]) -> Iterator[None]:
        """Onedata knows only these."""
        self.ask("PUT", "tokens", json.dumps(known).encode())
        try:
            yield
        finally:
            self.ask("PUT", "tokens", json.dumps({TOKEN: None}).encode())

    def job(self, script: str, **says: str) -> Path:
        """A submit file of its own directory, whose job runs `script`."""
        place = self.directory / f"job-{hashlib.sha256(script.encode()).hexdigest()[:8]}"
        place.mkdir(exist_ok=True)
        roost_bench.write(place / "job.sh", f"#!/bin/sh\n{script}\n", 0o755)
        lines = {
            "executable": "job.sh",
            "output": "out",
            "error": "err",
            "log": "log",
            "request_memory": "256MB",
            **says,
        }
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        return roost_bench.write(place / "job.sub", f"{text}queue\n")

    def mounts(self, script: str, what: str = f"{SPACE}:data") -> Path:
        return self.job(script, **{"+DataMounts": f'"{what}"'})

    def done(self, file: Path) -> str:
        """What the job wrote, once it has ended with 0."""
        said = roost("submit", "--wait", file, timeout=300)
        why = [said.stderr, *((file.parent / name).read_text() for name in ("out", "err")
                              if (file.parent / name).exists())]  # fmt: skip
        assert said.returncode == 0, why
        return (file.parent / "out").read_text()

    def held(self, file: Path) -> str:
        """Why the job is held; it is removed then."""
        sentence = refused(roost("submit", "--wait", file, timeout=300), status=1)
        assert " is held: " in sentence, sentence
        number = sentence.removeprefix("job ").split()[0]
        well("rm", number)
        return sentence

    def inside(self, node: str, *argv: str) -> str:
        return run(["docker", "exec", f"{self.name}-{node}", *argv], timeout=120).text


@pytest.fixture(scope="module")
def bench(engine_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    image = build("docker", ImageSpec(extras=("onedata",))).tag
    directory = tmp_path_factory.mktemp("onedata")
    ca, _, _ = onedata_bench.certificate(directory, HOST)
    token = roost_bench.write(directory / "token", f"{TOKEN}\n", 0o600)
    name = roost_bench.fresh("onedata")
    entry = {"type": "onedata", "host": HOST, "ca": ca.read_text(), "timeout": 2}
    file = roost_bench.write(directory / "pool.yaml", yaml.safe_dump({
        "name": name,
        "execute": [{"name": "execute", "count": 1, "cpus": 2, "memory": "1GiB"}],
        "data": {SPACE: {**entry, "token": {"file": str(token)}},
                 "other": {**entry, "space": SPACE}},
    }))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, roost_bench.at_home(directory / "state"):
        patch.setenv("ROOST_POOL", name)
        made = Bench(name, directory)
        with roost_bench.taken_down(name):
            well("up", file)
            run(["docker", "run", "--detach", "--name", made.stub, "--network", name,
                 "--network-alias", HOST, "--volume", f"{directory}:/stub:ro",
                 "--volume", f"{STUB}:/onedata_stub.py:ro", "--entrypoint", "python3", image,
                 "/onedata_stub.py", "--domain", HOST, "--certificate", "/stub/cert.pem",
                 "--key", "/stub/key.pem", "--token", "/stub/token"]).check()  # fmt: skip
            try:
                _await(lambda: "serving" in run(["docker", "logs", made.stub]).text)
                yield made
            finally:
                run(["docker", "rm", "--force", "--volumes", made.stub])


def _await(true: Any, within: float = 120) -> None:
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until
        time.sleep(0.3)


def _listed() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(well("data", "ls", "--json"))}


def test_up_stores_the_token_that_the_pool_file_names(bench: Bench) -> None:
    rows = _listed()
    assert (rows[SPACE]["stored"], rows["other"]["stored"]) == (True, False)
    assert f"{SPACE}  onedata  stored" in well("data", "ls")


def test_a_job_reads_and_writes_a_space(bench: Bench) -> None:
    data = os.urandom(20_000_000)
    bench.put("big.bin", data)
    bench.ask("PUT", "many/2500/many")
    script = """
    ls data/many | wc -l
    sha256sum < data/big.bin
    mkdir data/out && cp data/big.bin data/out/copy && echo done > data/out/f
    until [ -e data/go ]; do sleep 0.5; done
    ls "$_CONDOR_CREDS"
    grep -c ' - fuse' /proc/self/mountinfo
    """
    file = bench.mounts(script, f"{SPACE}:data:rw")
    (submitted,) = [json.loads(well("submit", "--json", file))]
    cluster = str(submitted["cluster"])
    _await(lambda: b"path/out/f" in bench.ask("GET", "seen"))
    _token_is_with_the_job_alone(bench)
    assert " - fuse" not in bench.inside("execute-1", "cat", "/proc/1/mountinfo")
    bench.put("go", b"")
    well("wait", cluster)
    assert (file.parent / "out").read_text().split() == [
        "2500", hashlib.sha256(data).hexdigest(), "-", "johns_space.use", "1",
    ]  # fmt: skip
    assert bench.get("out/copy") == data
    assert bench.get("out/f") == b"done\n"
    assert "roost-onedata" not in bench.inside("execute-1", "ps", "-eo", "args")
    assert TOKEN not in bench.inside("submit", "condor_history", "-l", cluster)
    assert TOKEN not in "".join(path.read_text() for path in file.parent.iterdir())


def _token_is_with_the_job_alone(bench: Bench) -> None:
    """While the job runs: in the store, in the job's own directory, and nowhere else."""
    for node in ("master", "submit", "execute-1"):
        grep = ["grep", "-rlsF", TOKEN, "/etc", "/home", "/root", "/run", "/srv", "/tmp", "/var"]
        files = {Path(name) for name in bench.inside(node, *grep).split()}
        match node:
            case "submit":
                store = Path("/home/.tokens/user")
                assert files == {store / "johns_space.top", store / "johns_space.use"}
            case "execute-1":
                assert {file.name for file in files} == {"johns_space.use"}
                assert {file.parts[:5] for file in files} == {
                    ("/", "var", "lib", "condor", "execute")
                }
            case _:
                assert not files
        assert TOKEN not in run(["docker", "inspect", f"{bench.name}-{node}"]).check().text
        assert TOKEN not in run(["docker", "logs", f"{bench.name}-{node}"]).check().text
    look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
    seen = run(["docker", "run", "--rm", "--pid", f"container:{bench.name}-execute-1",
                "--cap-add", "SYS_PTRACE", "--network", "none", "--entrypoint", "sh",
                ImageSpec(extras=("onedata",)).name, "-c", look], timeout=60).text  # fmt: skip
    assert "_CONDOR_CREDS=" in seen and "roost-onedata" in seen, (
        "it looked at the job and its server"
    )
    assert TOKEN not in seen
    ads = bench.inside("submit", "condor_q", "-all", "-l")
    assert "OAuthServicesNeeded" in ads
    assert TOKEN not in ads


def test_files_come_and_go_without_a_mount(bench: Bench) -> None:
    data = os.urandom(9_000_000)
    bench.put("in/a.bin", data)
    file = bench.job(
        "sha256sum < a.bin; cp a.bin b.bin; echo late > c.txt",
        transfer_input_files=f"onedata://{SPACE}/in/a.bin",
        transfer_output_files="b.bin, c.txt",
        transfer_output_remaps=f'"b.bin = onedata://{SPACE}/by/url/b.bin"',
    )
    assert bench.done(file).split()[0] == hashlib.sha256(data).hexdigest()
    assert bench.get("by/url/b.bin") == data
    assert (file.parent / "c.txt").read_text() == "late\n"


def test_a_file_that_is_not_there_is_named_in_the_hold(bench: Bench) -> None:
    file = bench.job("cat nothing", transfer_input_files=f"onedata://{SPACE}/in/nothing")
    said = bench.held(file)
    assert f"onedata://{SPACE}/in/nothing" in said


def test_a_connection_that_breaks_is_made_again(bench: Bench) -> None:
    data = os.urandom(10_000_000)
    bench.put("broken.bin", data)
    with bench.misbehaving(resets=3):
        said = bench.done(bench.mounts("sha256sum < data/broken.bin"))
    assert said.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_provider_that_hangs_is_an_error_of_the_read(bench: Bench) -> None:
    bench.put("hung.bin", b"x" * 1000)
    with bench.misbehaving(hang=True):
        said = bench.done(bench.mounts("cat data/hung.bin 2>&1; ls data | wc -l"))
    assert "Host is down" in said or "timed out" in said
    assert int(said.split()[-1]) > 0, "the mount still answers"


def test_what_is_not_written_holds_the_job(bench: Bench) -> None:
    script = "cat > data/kept < job.sh; echo still here"
    with bench.misbehaving(refuse_writes="edquot"):
        said = bench.held(bench.mounts(script, f"{SPACE}:data:rw"))
    assert "not written: kept (" in said


def test_a_mount_that_is_read_only_refuses_to_write(bench: Bench) -> None:
    said = bench.done(bench.mounts("touch data/new 2>&1 || echo refused"))
    assert "Read-only file system" in said
    assert said.endswith("refused\n")


def test_a_token_that_has_expired_holds_the_job_until_there_is_another(bench: Bench) -> None:
    file = bench.mounts("ls data > /dev/null && echo well")
    with bench.tokens({TOKEN: time.time() - 60, "another": None}):
        said = bench.held(file)
        assert "the token expired on " in said
        assert f"`roost data login {SPACE}`" in said
        sentence = refused(roost("data", "login", SPACE))
        assert f"this token does not open {SPACE}: the token expired on " in sentence
        well("data", "login", SPACE, "--file", "-", stdin="another\n")
        assert bench.done(file) == "well\n"
    well("data", "login", SPACE)


def test_a_token_that_is_missing_is_asked_for_before(bench: Bench) -> None:
    file = bench.mounts("ls data", "other:data")
    sentence = refused(roost("submit", file), status=1)
    assert "run `roost data login NAME`, for each NAME of other" in sentence
    said = well("data", "login", "other", "--file", str(bench.directory / "token"))
    assert said == "user's token for other is stored.\n"
    bench.done(file)
    well("data", "logout", "other")
    assert not _listed()["other"]["stored"]
    _await(lambda: roost("submit", file).returncode == 1, within=30)


def test_a_provider_that_is_too_old_holds_the_job(bench: Bench) -> None:
    with bench.misbehaving(version="19.02.1"):
        said = bench.held(bench.mounts("ls data"))
    assert "older than 21.02.1" in said
