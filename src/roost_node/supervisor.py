"""What runs beside what in a node: settings → supervisord.conf. Pure; supervise.py runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost_node import keeper
from roost_node.settings import Settings
from roost_node.vocab import LOG_DIR, SUPERVISED

ROOST_NODE: Final = "/usr/bin/roost-node"
#: Where the image has this package.
PACKAGES: Final = "/usr/lib/roost"
DEBIAN_PACKAGES: Final = "/usr/lib/python3/dist-packages"
CONF: Final = Path("/run/roost/supervisord.conf")
#: How far the relay of the logs came, so that a restart of the container loses no line.
RELAY_STATE: Final = "/run/roost/relay.offsets"

#: The program whose end is the node's end.
PAYLOAD: Final = "condor_master"

#: Seconds that a node may take from SIGTERM to its end, at least; below the engine's stop timeout.
STOP_SECONDS: Final = 25
#: Seconds that HTCondor may take beyond what a job takes to end.
STOP_MARGIN: Final = 5


@dataclass(frozen=True)
class Program:
    """One supervised program."""

    name: str
    command: str
    priority: int
    """Low starts first and stops last."""
    restart: bool = True
    once: bool = False
    """Does its work and ends; that is no failure."""
    on_demand: bool = False
    """Started by supervise.py when there is something to do."""
    stop_seconds: int = 10


def programs(settings: Settings, *, admits: bool = True) -> tuple[Program, ...]:
    """What this node runs, in the order in which it starts.

    `admits`: it has the pool's CA, if it is a master; of two masters only one does.
    """
    found = [
        # Never restarted: a second condor_master beside the first one's orphans would make a
        # second negotiator. Its end ends the container, and the orphans with it.
        Program(
            PAYLOAD,
            "/usr/sbin/condor_master -f",
            10,
            restart=False,
            stop_seconds=max(STOP_SECONDS, settings.vacate + STOP_MARGIN),
        ),
    ]
    if settings.role == "master" and admits:
        found.append(Program("admit", f"{ROOST_NODE} admit", 20))
    if settings.role == "submit":
        found.append(Program("greet", f"{ROOST_NODE} greet", 20, restart=False, once=True))
    found.append(
        Program(keeper.PROGRAM, f"{ROOST_NODE} renew", 20, restart=False, once=True, on_demand=True)
    )
    if settings.authorized_keys:
        # Its log is a file beside HTCondor's, so that the relay labels it too.
        found.append(Program("sshd", f"/usr/sbin/sshd -D -E {LOG_DIR}/SshdLog", 30))
    if settings.health_port is not None:
        found.append(Program("health", f"{ROOST_NODE} serve-health {settings.health_port}", 30))
    return tuple(found)


def lean(code: str) -> list[str]:
    """The command line that runs `code`, which begins with a module of roost_node.

    Without `site`, and not through ROOST_NODE: its imports would stay in memory as long as the
    node runs.
    """
    path = f"import sys; sys.path[:0] = ['{PACKAGES}', '{DEBIAN_PACKAGES}']"
    return ["/usr/bin/python3", "-I", "-S", "-c", f"{path}; from roost_node.{code}"]


def conf(settings: Settings, *, admits: bool = True, as_root: bool = True) -> str:
    """supervisord.conf."""
    user = "user = root\n" if as_root else ""
    head = f"""\
[supervisord]
nodaemon = true
{user}pidfile = {SUPERVISED}
logfile = /dev/null
logfile_maxbytes = 0
loglevel = info
"""
    return head + "".join(_section(program) for program in programs(settings, admits=admits))


def _section(program: Program) -> str:
    return f"""
[program:{program.name}]
command = {program.command}
priority = {program.priority}
autostart = {"false" if program.on_demand else "true"}
autorestart = {"true" if program.restart else "false"}
startretries = {20 if program.restart else 0}
startsecs = {0 if program.once else 1}
stopsignal = TERM
stopwaitsecs = {program.stop_seconds}
stdout_logfile = /dev/stdout
stdout_logfile_maxbytes = 0
redirect_stderr = true
"""
