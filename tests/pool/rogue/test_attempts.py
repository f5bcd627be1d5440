"""What strangers, members and jobs of a pool try that is not theirs: each beside a control.

One pool for all of it; what ends something in it comes last.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from node_bench import Node, docker, eventually, healthy
from rogue_bench import METHODS, Place, place
from roost_bench import at_home, refused, roost, well, write

pytestmark = pytest.mark.engine

#: Commands that only an execution point's own node may give it; the first four are claims.
CLAIMS: Final = ("REQUEST_CLAIM", "ACTIVATE_CLAIM", "RELEASE_CLAIM", "VACATE_ALL_CLAIMS")
COMMANDS: Final = (*CLAIMS, "DRAIN_JOBS", "DC_RECONFIG", "DC_OFF_FAST")
DAEMONS: Final = (
    ("master", "condor_collector"), ("submit", "condor_schedd"), ("execute-1", "condor_startd"),
)  # fmt: skip
MEMBERS: Final = ("user", "other-executor", "other-access-point", "reader")


@pytest.fixture(scope="module")
def there(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        at_home(tmp_path_factory.mktemp("home")),
        place(image, "tries", tmp_path_factory.mktemp("p"), cpus=2, memory="512MiB") as found,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", found.pool)
        yield found


@pytest.fixture(autouse=True)
def no_jobs_left(there: Place) -> Iterator[None]:
    yield
    access = there.node("submit")
    access.tried("condor_rm -all")
    eventually(lambda: not access.sh("condor_q -allusers -af ClusterId").strip(), 60, access)


# --- from the network ---------------------------------------------------------------------------


def test_nobody_but_the_node_itself_claims_or_commands_a_startd(there: Place) -> None:
    def allowed(who: str) -> set[str]:
        address = there.addresses["startd"]
        text = there.tried(who, f"condor_ping -addr '{address}' -table {' '.join(COMMANDS)}")[1]
        rows = [line.split() for line in text.splitlines()]
        found = {row[0]: row[4] for row in rows if row and row[0] in COMMANDS}
        assert set(found) == set(COMMANDS), text
        return {command for command, answer in found.items() if answer == "ALLOW"}

    assert allowed("executor") == set(COMMANDS)
    for who in ("nobody", "foreign", "expired", *MEMBERS, "master"):
        assert allowed(who) == set(), who


def test_nobody_changes_the_configuration(there: Place) -> None:
    """Not even who administers the node; tests/pool/test_node_security.py has the control."""
    for daemon, address in there.addresses.items():
        for who in ("nobody", "user", "executor", "access-point", "master"):
            status, text = there.tried(
                who, f"condor_config_val -addr '{address}' -rset ROOST_ROGUE=1"
            )
            assert (status != 0, "Successfully" in text) == (True, False), (daemon, who, text)


def test_no_tokens_are_to_be_had(there: Place) -> None:
    """The control is the pool's own tool that asks for what it may have."""
    address = there.addresses["collector"]
    for command in (
        f"condor_token_request -pool '{address}' -identity condor@{there.pool}.internal",
        f"condor_token_fetch -pool '{address}'",
    ):
        for who in ("nobody", "user", "executor"):
            status, text = there.tried(who, f"timeout 20 {command}")
            assert status not in (0, 124), (who, command, text)
            assert "Usage" not in text
            assert "eyJ" not in text
    assert there.tried("user", f"condor_status -pool '{address}' -af Name")[0] == 0


@pytest.mark.parametrize(
    "lower",
    [
        {"AUTHENTICATION": "NEVER"}, {"ENCRYPTION": "NEVER"}, {"INTEGRITY": "NEVER"},
        {"AUTHENTICATION": "NEVER", "ENCRYPTION": "NEVER", "INTEGRITY": "NEVER"},
        {"CRYPTO_METHODS": "BLOWFISH"}, {"CRYPTO_METHODS": "3DES"},
        *({"AUTHENTICATION_METHODS": method} for method in METHODS),
    ],
    ids=lambda lower: ",".join(f"{key}={value}" for key, value in lower.items()),
)  # fmt: skip
def test_nothing_is_bargained_down(lower: dict[str, str], there: Place) -> None:
    """By a user whose certificate is good: what is asked for is what is refused."""
    ask = f"condor_status -pool '{there.addresses['collector']}' -af Name"
    status, text = there.tried("user", ask)
    assert (status, f"slot1@{there.pool}-execute-1" in text) == (0, True), text
    env = [f"_CONDOR_SEC_CLIENT_{key}={value}" for key, value in lower.items()]
    status, text = there.tried("user", ask, *env)
    assert status != 0, text
    assert there.pool + "-execute-1" not in text


#: Keeps what passes a bridge until it is told to stop; speaks once it listens.
LISTEN: Final = """\
import os, socket, sys
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.bind((sys.argv[1], 0))
index = socket.if_nametoindex(sys.argv[1])
heard.setsockopt(263, 1, index.to_bytes(4, "little") + bytes([1, 0, 0, 0]) + bytes(8))  # all of it
heard.settimeout(0.2)
print("listening", flush=True)
with open("/p/heard", "wb") as file:
    while not os.path.exists("/p/enough"):
        try:
            file.write(heard.recv(65536))
        except TimeoutError:
            pass
"""


def test_nothing_travels_in_the_clear(there: Place, tmp_path: Path, image: str) -> None:
    """A job's arguments, environment, input and output; a word sent in the clear is heard."""
    words = {each: f"{each}-{secrets.token_hex(8)}" for each in
             ("argument", "variable", "input", "output", "clear")}  # fmt: skip
    bridge = "br-" + docker("network", "inspect", "-f", "{{.Id}}", there.pool)[:12]
    tmp_path.chmod(0o755)
    listener = Node(f"{there.pool}-listener")
    docker(
        "run", "-d", "--name", listener.name, "--network", "host", "--cap-add", "NET_RAW",
        "-v", f"{tmp_path}:/p", "--entrypoint", "python3", image, "-c", LISTEN, bridge,
    )  # fmt: skip
    try:
        eventually(lambda: "listening" in listener.lines(), 30, listener)
        write(tmp_path / "input", f"{words['input']}\n" * 50)
        write(tmp_path / "job.sh", f"#!/bin/sh\ncat input\nyes $(echo {words['output']}) | head -50"
              '\nprintf "%s %s\\n" "$1" "$WORD"\n', 0o755)  # fmt: skip
        file = write(tmp_path / "job.sub", f"""\
executable = job.sh
arguments = {words["argument"]}
environment = "WORD={words["variable"]}"
transfer_input_files = input
output = job.out
should_transfer_files = YES
queue
""")  # fmt: skip
        well("submit", "--wait", file)
        there.stranger.sh(
            f"printf 'GET /{words['clear']} HTTP/1.0\\r\\n\\r\\n' |"
            f" python3 -c 'import socket, sys; s = socket.create_connection((sys.argv[1], 9619));"
            f" s.sendall(sys.stdin.buffer.read()); s.recv(1)' {there.node('master').ip}"
        )
        heard = tmp_path / "heard"
        eventually(lambda: words["clear"].encode() in heard.read_bytes(), 20, listener)
    finally:
        (tmp_path / "enough").touch()
        docker("rm", "-f", listener.name)
    out = (tmp_path / "job.out").read_text()
    assert all(words[each] in out for each in words if each != "clear")
    said = heard.read_bytes()
    assert len(said) > 20_000
    assert {each for each, word in words.items() if word.encode() in said} == {"clear"}


#: What a stranger sends to the admission service; says how each was answered.
KNOCK: Final = """\
import json, socket, ssl, sys, time
from concurrent.futures import ThreadPoolExecutor
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
def ask(sent, rest=b""):
    try:
        with socket.create_connection((sys.argv[1], 9619), timeout=30) as plain:
            with tls.wrap_socket(plain) as there:
                there.sendall(sent)
                for at in range(len(rest)):
                    there.sendall(rest[at:at + 1]); time.sleep(0.5)
                return int(there.recv(4096).split()[1])
    except (OSError, IndexError, ValueError):
        return 0
def post(body, length=None):
    head = b"POST /v1/join HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n"
    return head % (length or len(body)) + body
def knock(_):
    try:
        with socket.create_connection((sys.argv[1], 9619), timeout=30) as plain:
            plain.sendall(b"GET /v1/notice HTTP/1.0\\r\\n\\r\\n")
            return int(plain.recv(4096).split()[1])
    except (OSError, IndexError, ValueError):
        return 0
good = json.dumps({"role": "execute", "node": "rogue", "csr": "rubbish"}).encode()
print(json.dumps({
    "well": ask(b"GET /v1/ca HTTP/1.1\\r\\n\\r\\n"),
    "rubbish": ask(b"\\x00" * 64 + b"\\r\\n\\r\\n"), "no json": ask(post(b"{")),
    "no sense": ask(post(good)), "deep": ask(post(b"[" * 16000)),
    "large": ask(post(b"", 10**8)), "long head": ask(b"GET /" + b"x" * 9000),
    "slow": ask(b"POST /v1/join HTTP/1.1\\r\\n", b"x" * 40),
    "often": max(ThreadPoolExecutor(8).map(knock, range(600))),
}))
"""


def test_the_admission_service_bears_with_strangers(there: Place) -> None:
    said = json.loads(there.stranger.sh(f"python3 - {there.node('master').ip}", stdin=KNOCK))
    assert said == {"well": 200, "rubbish": 400, "no json": 400, "no sense": 400, "deep": 400,
                    "large": 413, "long head": 413, "slow": 0, "often": 429}  # fmt: skip
    who = re.escape(there.stranger.ip)
    eventually(
        lambda: any(re.search(rf"{who}: refused, 4\d\d: ", line)
                    for line in there.node("master").lines()), 20)  # fmt: skip
    healthy(there.node("master"))
    # Others get in meanwhile.
    well("approve", "--list")


# --- jobs ---------------------------------------------------------------------------------------

#: Tries what is not a job's, and prints what came of it, by what was tried; with `own` the same
#: was tried with what is its own.
THIEF: Final = """\
#!/usr/bin/python3
import json, os, subprocess
from glob import glob
from pathlib import Path

here = os.environ["_CONDOR_SCRATCH_DIR"]
os.environ["PATH"] = "/usr/bin:/usr/sbin"
me = os.getuid()
found = {}

def works(what, *argv):
    try:
        what(*argv)
    except OSError:
        return False
    return True

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def append(path):
    with open(path, "ab"):
        pass

def processes(theirs):
    for entry in glob("/proc/[0-9]*"):
        try:
            if (os.stat(entry).st_uid != me) == theirs:
                yield entry
        except OSError:
            pass

Path(here, "mine").write_text("x")
found["own file"] = works(read, f"{here}/mine")
found["own directory"] = works(os.listdir, here)
boxes = [box for box in glob("/var/lib/condor/execute/dir_*") if box != here]
found["boxes"] = len(boxes)
found["other directory"] = any(works(os.listdir, box) for box in boxes)
found["other file"] = any(works(read, f"{box}/{name}") for box in boxes
                          for name in ("secret", ".job.ad", ".machine.ad", "_condor_stdout"))
found["other file written"] = any(works(append, f"{box}/planted") for box in boxes)
for kind in ("environ", "mem", "cwd", "root", "fd"):
    look = os.listdir if kind in ("cwd", "root", "fd") else read
    if kind != "mem":  # nobody has anything at its address 0
        found[f"own {kind}"] = works(look, f"/proc/self/{kind}")
    found[f"other {kind}"] = any(works(look, f"{there}/{kind}") for there in processes(True))
found["other processes"] = len(list(processes(True)))
found["own signal"] = works(os.kill, os.getpid(), 0)
found["other signal"] = any(works(os.kill, int(Path(there).name), 0) for there in processes(True))
found["own ad"] = works(read, os.environ["_CONDOR_JOB_AD"])
found["logs"] = works(os.listdir, "/var/log/condor")
found["history"] = works(read, "/var/log/condor/startd_history")
found["ca"] = works(read, "/var/lib/roost/ca.crt")
found["key"] = works(read, "/var/lib/roost/node.key")
found["own written"] = works(append, f"{here}/file")
for place in ("/etc/condor/config.d/x", "/var/lib/roost/x", "/run/roost/x", "/var/log/condor/x",
              "/usr/bin/x", "/var/lib/condor/execute/x"):
    found[f"written {place}"] = works(append, place)
found["engine"] = [path for path in ("/var/run/docker.sock", "/run/docker.sock",
                   "/run/podman/podman.sock", "/run/containerd/containerd.sock")
                   if os.path.exists(path)]
found["root"] = works(os.setuid, 0)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
found["capabilities"] = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
found["no new privileges"] = status["NoNewPrivs"].strip()
found["uid"] = me
# It says that it was sent, whatever became of it.
subprocess.run(["condor_off", "-startd"], capture_output=True, timeout=60)
tools = {"query": ["condor_status"],
         "advertise": ["condor_advertise", "UPDATE_STARTD_AD", "/dev/null"]}
for name, argv in tools.items():
    found[name] = subprocess.run(argv, capture_output=True, timeout=60).returncode == 0
print(json.dumps(found))
"""


def job(directory: Path, name: str, user: str, script: str, more: str = "") -> str:
    """Submit a script as a user; the cluster."""
    write(directory / name, script, 0o755)
    file = write(directory / f"{name}.sub", f"""\
executable = {name}
output = {name}.out
error = {name}.err
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
request_memory = 128
{more}
queue
""")  # fmt: skip
    return str(json.loads(well("submit", "--user", user, "--json", file))["cluster"])


def running(there: Place, cluster: str) -> bool:
    node = there.node("submit")
    return node.sh(f"condor_q {cluster} -af JobStatus").strip() == "2"


def test_a_job_reaches_nothing_that_is_not_its_own(there: Place, tmp_path: Path) -> None:
    victim = job(
        tmp_path, "victim", "john", "#!/bin/sh\necho x > secret\nexec sleep 600\n",
        'environment = "PLANTED=secret"',
    )  # fmt: skip
    eventually(lambda: running(there, victim), 90, there.node("execute-1"))
    node = there.node("execute-1")
    startd = node.pid("condor_startd")
    eventually(lambda: node.sh("ls /var/lib/condor/execute/dir_*/secret"), 30, node)
    thief = job(tmp_path, "thief", "mary", THIEF)
    done = roost("wait", thief)
    assert (done.returncode, (tmp_path / "thief.err").read_text()) == (0, "")
    found: dict[str, Any] = json.loads((tmp_path / "thief.out").read_text())
    assert found.pop("uid") > 30000
    assert found.pop("boxes") >= 1
    # Other processes are seen, with their arguments: docs/security.md says so.
    assert found.pop("other processes") > 5
    assert found.pop("no new privileges") == "1"
    mine = {"own file", "own directory", "own environ", "own cwd", "own root", "own fd",
            "own signal", "own written", "ca", "own ad"}  # fmt: skip
    assert {name for name, answer in found.items() if answer} == mine
    # The same query with the node's own certificate, and what `condor_off` has come to.
    assert node.sh("condor_status -af Name").strip()
    assert node.pid("condor_startd") == startd


BOMB: Final = """\
#!/usr/bin/python3
import os, time
children = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        children += 1
except OSError as error:
    print(children, error.strerror, flush=True)
while True:
    time.sleep(1)
"""


def test_a_job_that_forks_without_end_harms_no_other(there: Place, tmp_path: Path) -> None:
    node = there.node("execute-1")
    daemons = [node.pid(each) for each in ("condor_master", "condor_startd")]
    bomb = job(tmp_path, "bomb", "john", BOMB)
    limit = int(node.inspect()["HostConfig"]["PidsLimit"])

    def went_off() -> bool:
        """It has the node's every process, or what it had of memory was used up."""
        held = there.node("submit").sh(f"condor_q {bomb} -af JobStatus").strip() == "5"
        count = len(docker("top", node.name, "-eo", "pid").splitlines())
        return held or count > limit - 20

    eventually(went_off, 90, node)
    well("rm", bomb)
    eventually(lambda: len(docker("top", node.name, "-eo", "pid").splitlines()) < 60, 90, node)
    assert [node.pid(each) for each in ("condor_master", "condor_startd")] == daemons
    after = job(tmp_path, "after", "mary", "#!/bin/sh\necho well\n")
    well("wait", after)
    assert (tmp_path / "after.out").read_text() == "well\n"
    healthy(node)


# --- users --------------------------------------------------------------------------------------


def test_users_have_nothing_of_each_other(there: Place, tmp_path: Path) -> None:
    access = there.node("submit")
    cluster = job(tmp_path, "long", "john", "#!/bin/sh\nexec sleep 600\n")
    eventually(lambda: running(there, cluster), 90, there.node("execute-1"))
    (box,) = access.sh(f"condor_q {cluster} -af Iwd").split()
    assert "long" in access.sh(f"ls {box}", user="john")
    attempts = {
        "list": f"ls {box}", "read": f"cat {box}/long", "home": "ls /home/john",
        "spool": "ls /var/spool/condor/*/*/*", "key": "cat /var/lib/roost/node.key",
        "remove": f"condor_rm {cluster}", "hold": f"condor_hold {cluster}",
        "edit": f"condor_qedit {cluster} JobPrio 5", "vacate": f"condor_vacate_job {cluster}",
        "tail": f"timeout 20 condor_tail {cluster}",
        "impersonate": "condor_submit -append '+Owner=\"john\"' -append executable=/bin/true"
        " -append queue /dev/null",
    }  # fmt: skip
    for what, attempt in attempts.items():
        status, text = access.tried(attempt, user="mary")
        assert status != 0, (what, text)
    # From outside, with a certificate that is good, it is no different.
    schedd = there.addresses["schedd"]
    for verb in ("condor_rm", "condor_hold"):
        status, text = there.tried("other-user", f"{verb} -addr '{schedd}' {cluster}")
        assert status != 0, text
    assert running(there, cluster)
    assert access.sh(f"condor_q {cluster} -af JobPrio").strip() == "0"
    # The owner may.
    access.sh(f"condor_qedit {cluster} JobPrio 5", user="john")
    status, text = there.tried("user", f"condor_rm -addr '{schedd}' {cluster}")
    assert status == 0, text


def test_a_user_comes_and_goes_while_the_pool_works(there: Place, tmp_path: Path) -> None:
    access, stranger = there.node("submit"), there.stranger
    schedd = access.pid("condor_schedd")
    bundle = tmp_path / "ann.tar"
    said = json.loads(well("user", "add", "ann", "-o", bundle, "--expires", "2h", "--json"))
    assert said["file"] == str(bundle)
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert "exists already" in refused(roost("user", "add", "ann", "-o", bundle))
    assert "ann" in json.loads(well("user", "ls", "--json"))[0]["name"]
    # A machine where nothing is known of the pool, and somebody without any right on it.
    stranger.sh("useradd --create-home visitor")
    docker("cp", str(bundle), f"{stranger.name}:/home/visitor/ann.tar")
    stranger.sh("chown visitor /home/visitor/ann.tar")
    stranger.sh("tar xf ann.tar", user="visitor")
    config = f"CONDOR_CONFIG=/home/visitor/{there.pool}-ann/condor_config"

    def visits(command: str) -> tuple[int, str]:
        return stranger.tried(command, user="visitor", env=[config])

    stranger.sh(
        "cat > j.sub", user="visitor",
        stdin="executable = /bin/sleep\ntransfer_executable = false\narguments = 1\nqueue\n",
    )  # fmt: skip
    status, text = visits("condor_submit -spool -terse j.sub")
    assert status == 0, text
    short = text.split(".")[0]
    eventually(lambda: access.sh(f"condor_q {short} -af Owner JobStatus").split() == ["ann", "4"],
               90, there.node("execute-1"))  # fmt: skip
    assert visits(f"condor_transfer_data {short} && condor_rm {short}")[0] == 0
    # Here as the same user; and one job that is left behind.
    file = write(tmp_path / "j.sub", "executable = /bin/sleep\ntransfer_executable = false\n"
                 "arguments = 600\nqueue\n")  # fmt: skip
    cluster = str(json.loads(well("submit", "--user", "ann", "--json", file))["cluster"])
    well("user", "rm", "ann")
    assert access.sh(f"condor_q {cluster} -af ClusterId").strip() == ""
    assert access.tried("id ann")[0] != 0
    assert access.sh("stat -c '%U %a' /home/ann").split() == ["root", "700"]
    status, text = visits("condor_q")
    assert (status != 0, "DENIED" in text) == (True, True), text
    well("user", "rm", "ann", "--purge")
    assert access.tried("ls -d /home/ann")[0] != 0
    assert access.pid("condor_schedd") == schedd
    assert "ann is revoked in the pool" in refused(roost("user", "add", "ann"))
    # Also somebody who never had a certificate.
    well("user", "add", "bob")
    well("user", "rm", "bob")
    assert "bob is revoked in the pool" in refused(roost("user", "add", "bob"))
    well("user", "rm", "bob")


# --- the last: the one that may turns something off -----------------------------------------------


def test_turning_off_is_for_the_node_itself(there: Place) -> None:
    before = [there.node(node).pid(name) for node, name in DAEMONS]
    for address in there.addresses.values():
        for who in ("nobody", "foreign", *MEMBERS):
            there.tried(who, f"condor_off -fast -addr '{address}'")
    assert [there.node(node).pid(name) for node, name in DAEMONS] == before
    # The control, with the same tool and the right certificate.
    address = there.addresses["startd"]
    status, text = there.tried("executor", f"condor_off -fast -addr '{address}'")
    assert status == 0, text
    eventually(lambda: there.node("execute-1").pid("condor_startd") != before[-1], 60)
