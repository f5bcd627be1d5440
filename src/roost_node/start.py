"""From a command line to a running node: everything that happens before supervisord takes over."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from roost_node import (
    accounts,
    drain,
    files,
    limits,
    logs,
    own_address,
    pace,
    roles,
    settings,
    supervisor,
    whereabouts,
)
from roost_node.errors import BadInput, NodeError
from roost_node.settings import Settings
from roost_node.vocab import (
    ACCOUNTS,
    CA_KEY,
    CONDOR_PORT,
    EXECUTE_DIR,
    EXECUTORS,
    EXTRA_CONFIG,
    LIFETIME,
    LOG_DIR,
    MASTERS,
    SPOOL_DIR,
    STATE_DIR,
    SUPERVISED,
    Role,
)

RUN_DIR: Final = Path("/run/roost")
CONFIG_DIR: Final = Path("/etc/condor/config.d")
#: Role, node and master, for `roost-node health`.
WHO: Final = RUN_DIR / "who"
#: No configuration file is larger, in bytes.
_LARGEST: Final = 2**20
#: Seconds between two looks for a master that is not there yet.
_LOOK: Final = 0.5
#: Seconds for which a master waits for the name of the one beside it: where both start, their
#: election would begin anew as soon as they know of each other.
_PEER_WITHIN: Final = 5.0


def node(argv: Sequence[str]) -> int:
    """Become the node that `argv` asks for. Returns only for --help; raises NodeError."""
    wanted = _retold(settings.parse(argv))
    as_json = wanted.json_logs
    _require_root(wanted)
    if wanted.role != "master" and wanted.state_dir.is_dir():
        _own(wanted.state_dir, "root")  # a daemon that runs as condor must not change what it holds
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    Path(SUPERVISED).unlink(missing_ok=True)  # an earlier start's, where /run outlives it
    _add_configuration(wanted)
    keys = _text(wanted.authorized_keys, "-k") if wanted.authorized_keys else ""

    def say(line: str) -> None:
        logs.say(line, as_json=as_json)

    say(_announcement(wanted))
    first = own_address.wait(say)[0]
    own_address.know_own_name(socket.gethostname(), first.address, say)
    if wanted.role == "submit":
        accounts.restore()
    for user in wanted.users:
        password = "" if user.password_file is None else _text(str(user.password_file), "-p")
        accounts.add(user.name, password.strip())
    if keys:
        _prepare_sshd(keys)
    facts = _identity(wanted)
    _directories(wanted.role)
    if wanted.role == "master":
        _accounts(wanted.state_dir)
    _configure(wanted, facts)
    found = _find_masters(wanted)
    certificates = {_masters(wanted)[0]: facts.master_name}
    _place(wanted, next(iter(found.values())), say)
    own = wanted.node if wanted.role == "master" and wanted.second else ""
    whereabouts.write(
        whereabouts.configuration(_masters(wanted), found, certificates, own=own, known=found)
    )
    _replace_by_supervisord(wanted, certificates, found, own)
    return 0


def _place(wanted: Settings, master: str, say: Callable[[str], None]) -> None:
    """Settle by which of its addresses others find this node, and whether they can call it."""
    if wanted.role == "master":
        own_address.tell("", say)
        return
    own_address.tell(master, say)
    if not wanted.ccb_address and not wanted.forward:
        own_address.follow_nat(wanted.role, master, say)


def _retold(wanted: Settings) -> Settings:
    """`wanted`, with the masters that this node was told of since it was made."""
    told = whereabouts.told(str(wanted.state_dir / MASTERS))
    if wanted.role == "master" or not told:
        return wanted
    master, second = settings.masters(",".join(told), "masters")
    return replace(wanted, master=master, second=second)


def _masters(wanted: Settings) -> list[str]:
    """What this node calls its masters, itself first if it is one."""
    return [name for name in (wanted.master or wanted.node, wanted.second) if name]


def _require_root(wanted: Settings) -> None:
    """Raises BadInput where this cannot work as anybody else."""
    if os.geteuid() == 0:
        return
    if wanted.role != "master":
        whose = "users" if wanted.role == "submit" else "jobs"
        raise BadInput(
            f"an {_kind(wanted)} must start as root, because its {whose} have accounts of their "
            "own; leave out --user"
        )
    if wanted.authorized_keys:
        raise BadInput("-k starts sshd, which must be root; leave out --user")
    if not os.access(wanted.state_dir, os.R_OK | os.W_OK | os.X_OK):
        raise BadInput(
            f"{wanted.state_dir} belongs to another user than this node's ({os.geteuid()}); "
            f"chown it, and all that is in it, to {os.geteuid()}, or leave out --user"
        )


def who() -> tuple[Role, str, str]:
    """Role, node and masters (`master,master-2`) of the node that this container is.

    Raises NodeError before it is.
    """
    try:
        role, name, master = WHO.read_text().split("\n")[:3]
    except FileNotFoundError:
        raise NodeError("this node has not started yet: it waits for its identity") from None
    return cast(Role, role), name, master


def _announcement(wanted: Settings) -> str:
    others = " and ".join(name for name in (wanted.master, wanted.second) if name)
    beside = "beside" if wanted.role == "master" else "of"
    return f"{wanted.node}: {_kind(wanted)}" + (f" {beside} {others}" if others else "")


def _kind(wanted: Settings) -> str:
    return {
        "master": "central manager",
        "submit": "access point",
        "execute": "execution point",
    }[wanted.role]


def _text(source: str, flag: str) -> str:
    """The text of a file or URL. Raises BadInput."""
    try:
        if "://" in source:
            with urllib.request.urlopen(source, timeout=30) as answer:  # noqa: S310 - the user's own
                data = answer.read(_LARGEST + 1)
        else:
            data = Path(source).read_bytes()
        text = str(data.decode())
    except IsADirectoryError:
        raise BadInput(f"{flag} {source}: this is a directory; give a file or a URL") from None
    except UnicodeDecodeError:
        raise BadInput(f"{flag} {source}: this is not text") from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise BadInput(f"{flag} {source} cannot be read: {reason}") from None
    if len(data) > _LARGEST:
        raise BadInput(f"{flag} {source} is larger than {_LARGEST // 2**20} MiB")
    return text


def _prepare_sshd(keys: str) -> None:
    home = Path("/root/.ssh")
    home.mkdir(mode=0o700, exist_ok=True)
    authorized = home / "authorized_keys"
    authorized.touch(mode=0o600)
    authorized.write_text(keys)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    Path("/etc/ssh/sshd_config.d").mkdir(parents=True, exist_ok=True)
    Path("/etc/ssh/sshd_config.d/roost.conf").write_text(
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    subprocess.run(["ssh-keygen", "-A"], capture_output=True, check=True)


def _identity(wanted: Settings) -> roles.Facts:
    """Certificates in place, however they come; what the configuration needs to know of them."""
    from roost_node import join

    def say(message: str) -> None:
        logs.say(message, as_json=wanted.json_logs)

    if wanted.role == "master":
        wanted.state_dir.mkdir(parents=True, exist_ok=True)
        kept = wanted.state_dir / LIFETIME
        if wanted.certificates is None:
            kept.unlink(missing_ok=True)
        else:
            kept.write_text(f"{wanted.certificates:g}\n")
    found = join.ensure_identity(
        role=wanted.role,
        node=wanted.node,
        pool=wanted.pool,
        master_address=wanted.master,
        token_file=wanted.token_file,
        state_dir=wanted.state_dir,
        say=say,
    )
    return roles.Facts(
        pool=found.pool,
        master_name=found.master_name or wanted.master or wanted.node,
        cpus=wanted.cpus or limits.cpus(),
        memory=wanted.memory or limits.memory(),
        descriptors=limits.file_descriptors(),
        **_data(wanted),
    )


def _data(wanted: Settings) -> dict[str, Any]:
    """What jobs can mount here, or may ask for, where the pool offers any. Raises BadInput."""
    if wanted.data is None:
        return {}
    from roost_node.data import node as data_node

    if wanted.role == "submit":
        from roost_node.data import tokens

        offer = data_node.read(wanted.data)
        said = tokens.configuration(offer)
        if said:
            tokens.prepare()
            tokens.CONF.write_text(tokens.requirement(tokens.found(), time.time()))
        return {"offered": data_node.names(offer), "tokens": said}
    found = data_node.prepare(wanted.data)
    if found.problem:
        logs.say(f"jobs cannot mount all data here: {found.problem}", as_json=wanted.json_logs)
    return {"offered": found.names, "data_problem": found.problem, "plugins": found.plugins}


def _directories(role: Role) -> None:
    """HTCondor's own directories, also where a volume or tmpfs was put in their place."""
    # What is logged tells of everybody's jobs: no job and no user reads it.
    needed = {LOG_DIR: 0o750, "/run/condor": 0o755, "/run/lock/condor": 0o755, SPOOL_DIR: 0o755}
    if role == "execute":
        needed[EXECUTE_DIR] = 0o755
        _detach_leftovers()
    for name, mode in needed.items():
        path = Path(name)
        path.mkdir(parents=True, exist_ok=True)
        if name == SPOOL_DIR:
            _adopt(path)
        if stat.S_IMODE(path.stat().st_mode) != mode:
            if os.geteuid() == 0:  # which without FOWNER may do it only to what is its own
                _own(path, "root")
            path.chmod(mode)
        _own(path)


def _detach_leftovers() -> None:
    """HTCondor clears away what jobs left: nothing may be mounted in it. Raises NodeError."""
    from roost_node.data import kernel
    from roost_node.sick import mounted

    for place in mounted(Path("/proc/self/mountinfo").read_text(), EXECUTE_DIR):
        try:
            kernel.unmount(place, kernel.DETACH)
        except OSError as error:
            raise NodeError(
                f"{place} is mounted and cannot be detached ({error.strerror}); HTCondor would "
                "remove what is in it: unmount it first"
            ) from None


def _own(path: Path, user: str = "condor") -> None:
    """Give it to `user`, if it is not: it may be on a file system that is read-only."""
    owner = pwd.getpwnam(user)
    there = path.stat()
    if (there.st_uid, there.st_gid) != (owner.pw_uid, owner.pw_gid):
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _adopt(directory: Path) -> None:
    """Make what another image's user `condor` had in `directory` this one's.

    The number of that account differed from release to release once; users keep theirs.
    """
    before = directory.stat()
    own = pwd.getpwnam("condor")
    if before.st_uid in (0, own.pw_uid):
        return
    for path in directory.rglob("*"):
        found = path.lstat()
        uid = own.pw_uid if found.st_uid == before.st_uid else -1
        gid = own.pw_gid if found.st_gid == before.st_gid else -1
        os.chown(path, uid, gid, follow_symlinks=False)


def _accounts(state_dir: Path) -> None:
    """The negotiator's account of who used how much, in a folder that its user may write."""
    path = state_dir / ACCOUNTS
    path.mkdir(mode=0o700, exist_ok=True)
    for file in (path, *path.iterdir()):  # another image's user `condor` may have another number
        _own(file)


def _add_configuration(wanted: Settings) -> None:
    """Put what -c brought where HTCondor reads it last. Raises BadInput if it cannot be read."""
    extra = _text(wanted.extra_config, "-c") if wanted.extra_config else ""
    (CONFIG_DIR / "90-extra.conf").write_text(extra)
    if not extra:
        return
    tried = subprocess.run(
        ["condor_config_val", "DAEMON_LIST"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        reason = " ".join((tried.stderr or tried.stdout).split())
        origin = Path(wanted.extra_config).name
        if origin == EXTRA_CONFIG:
            origin = "config: in the pool file"
        raise BadInput(f"HTCondor cannot read the extra configuration ({origin}): {reason}")


def _configure(wanted: Settings, facts: roles.Facts) -> None:
    Path(roles.MAPFILE).write_text(roles.mapfile(facts.pool))
    (CONFIG_DIR / "10-roost.conf").write_text(roles.configuration(wanted, facts))
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    _write_denials(wanted, facts.pool)
    _write_who(wanted.role, wanted.node, _masters(wanted))
    admits = (wanted.state_dir / CA_KEY).exists()
    supervisor.CONF.write_text(supervisor.conf(wanted, admits=admits, as_root=os.geteuid() == 0))
    if wanted.role == "execute":
        (CONFIG_DIR / "95-sick.conf").write_text(roles.SICK_LAST)
        drain.CONFIG.unlink(missing_ok=True)
    if wanted.role == "master":
        _write_pace(_executors(wanted.state_dir))


def _write_who(role: Role, node: str, masters: Sequence[str]) -> None:
    WHO.write_text(f"{role}\n{node}\n{','.join(masters)}\n")


def _write_denials(wanted: Settings, pool: str) -> None:
    from roost_node import renewal

    renewal.write_denials(renewal.known(wanted.state_dir), pool, wanted.role)


def _executors(state_dir: Path) -> int:
    """How many executors the pool has, as somebody said last; 0 if nobody did."""
    try:
        return int((state_dir / EXECUTORS).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _write_pace(executors: int) -> None:
    (CONFIG_DIR / "30-pace.conf").write_text(pace.configuration(executors))


def set_pace(argv: Sequence[str]) -> int:
    """`roost-node pace N`: match at the pace of a pool of N executors, from now on.

    Raises BadInput.
    """
    if len(argv) != 1 or not argv[0].isdigit():
        raise BadInput("pace takes how many executors the pool has, as in `roost-node pace 200`")
    if who()[0] != "master":
        raise BadInput("only the master has a pace; run this there")
    executors = int(argv[0])
    (Path(STATE_DIR) / EXECUTORS).write_text(f"{executors}\n")
    _write_pace(executors)
    # No negotiator, no reconfiguration: of two masters one has none, and reads it when it gets one.
    subprocess.run(["condor_reconfig", "-daemon", "negotiator"], capture_output=True, check=False)
    return 0


def set_masters(argv: Sequence[str]) -> int:
    """`roost-node masters MASTER[,MASTER2]`: the pool has these from now on; within seconds.

    Raises BadInput.
    """
    if len(argv) != 1:
        raise BadInput("masters takes their names, as in `roost-node masters lab,lab-2`")
    role, node, _ = who()
    if role == "master":
        raise BadInput("a master knows its peer by --peer; start it anew with that")
    named = [name for name in settings.masters(argv[0], "masters") if name]
    files.write(Path(STATE_DIR) / MASTERS, f"{','.join(named)}\n".encode(), 0o644)
    _write_who(role, node, named)
    return 0


def _must_wait(role: Role) -> bool:
    """Whether there is nothing to do without the master.

    An access point that has jobs starts at once: its running jobs wait for their shadows.
    """
    return role == "execute" or (
        role == "submit" and not (Path(SPOOL_DIR) / "job_queue.log").exists()
    )


def _find_masters(wanted: Settings) -> dict[str, str]:
    """The masters' addresses by name, in the order in which they are asked.

    Returns as soon as one is there: its name resolves and, where there is nothing to do without it,
    it answers.
    """
    names = _masters(wanted)
    said = ""
    until = time.monotonic() + _PEER_WITHIN
    while True:
        found: dict[str, str] = {}
        reasons = []
        for name in names:
            try:
                known = whereabouts.addresses(name)
                found[name] = _answering(known) if _must_wait(wanted.role) else known[0]
            except socket.gaierror:
                reasons.append("its name does not resolve yet")
            except OSError as error:
                reasons.append((error.strerror or str(error)).lower())
        lonely = wanted.role == "master" and len(found) < len(names)
        if found and not (lonely and time.monotonic() < until):
            if said:
                there = ", ".join(f"{name}:{CONDOR_PORT}" for name in found)
                logs.say(f"{there} is there", as_json=wanted.json_logs)
            return found
        if not found and reasons[0] != said:
            said = reasons[0]
            logs.say(
                f"waiting for the master at {names[0]}:{CONDOR_PORT}: {said}",
                as_json=wanted.json_logs,
            )
        time.sleep(_LOOK)


def _answering(addresses: Sequence[str]) -> str:
    """The first of a master's addresses that answers. Raises the last one's OSError."""
    for address in addresses[:-1]:
        if whereabouts.reaches(address):
            return address
    socket.create_connection((addresses[-1], CONDOR_PORT), timeout=5).close()
    return addresses[-1]


def _replace_by_supervisord(
    wanted: Settings, certificates: dict[str, str], found: dict[str, str], own: str
) -> None:
    masters = [] if wanted.role == "master" and not own else _masters(wanted)
    told = "" if wanted.role == "master" else str(wanted.state_dir / MASTERS)
    call = (
        f"main({str(supervisor.CONF)!r}, {supervisor.PAYLOAD!r}, {supervisor.RELAY_STATE!r},"
        f" masters={masters!r}, certificates={certificates!r}, found={found!r}, own={own!r},"
        f" told={told!r}, executor={wanted.node if wanted.role == 'execute' else ''!r},"
        f" spool={SPOOL_DIR if wanted.role == 'submit' else ''!r},"
        f" forwarded={bool(wanted.forward)}, json_logs={wanted.json_logs})"
    )
    # A collector looks up the name of each new caller's address, and stands still meanwhile: 10 s a
    # question where no resolver answers (seen).
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")
    argv = supervisor.lean(f"supervise import main; sys.exit({call})")
    os.execv(argv[0], argv)  # noqa: S606 - this process becomes supervisord
