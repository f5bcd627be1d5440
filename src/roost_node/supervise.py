"""supervisord, in this process, with five things that its configuration cannot say.

Its log lines are labelled like everybody's; the end of condor_master ends the node; a daemon that
condor_master restarts in vain ends it too; an executor that fails all its jobs takes no more; a
node that was given another address starts its daemons anew. All inside supervisord's own loop: a
listener process of its own would cost every node another interpreter.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import types

from roost_node import keeper, kills, logs, orphans, own_address, patience, sick, space, whereabouts
from roost_node.vocab import (
    CA_KEY,
    EXECUTE_DIR,
    EXIT_BAD_INPUT,
    EXIT_PAYLOAD_FAILED,
    EXIT_STOPPED,
    HISTORY,
    LOG_DIR,
    SPOOL_FULL,
    STATE_DIR,
)

TYPE_CHECKING = False  # typing itself would cost every container a MiB
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: supervisord imports these for its web server, its plug-ins and its client. A node has none of
#: them, and every container of a pool would pay 4 MiB and 0.2 s for them.
_ABSENT: Final = (
    "pkg_resources", "supervisor.xmlrpc", "xmlrpc.client", "http.client", "urllib", "urllib.parse",
    "urllib.request", "html", "html.entities", "html.parser", "hashlib", "platform",
)  # fmt: skip


#: Seconds in which condor_master hands a new configuration on to its daemons.
_SPREAD: Final = 1.0


class _Absent(types.ModuleType):
    """A module that nobody in a node uses: any name in it is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for _name in _ABSENT:
    sys.modules[_name] = _Absent(_name)

from supervisor import events, loggers  # noqa: E402
from supervisor.medusa import asyncore_25 as asyncore  # noqa: E402
from supervisor.options import ServerOptions  # noqa: E402
from supervisor.states import STOPPED_STATES, SupervisorStates  # noqa: E402
from supervisor.supervisord import Supervisor  # noqa: E402


class _Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options, with a logger that labels its lines."""

    json_logs = False

    def make_logger(self) -> None:
        self.logger = loggers.getLogger(self.loglevel)
        self.logger.addHandler(_Handler(self.json_logs))


class _Handler(loggers.Handler):  # type: ignore[misc]
    """Writes supervisord's own messages the way that the relay writes the daemons'."""

    def __init__(self, as_json: bool) -> None:
        self.level = loggers.LevelsByName.INFO
        self.json = as_json

    def emit(self, record: Any) -> None:
        message = record.msg % record.kw if record.kw else record.msg
        logs.say(message.rstrip("\n"), daemon="supervisord", as_json=self.json)

    def reopen(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""


class _Supervisor(Supervisor):  # type: ignore[misc]
    """supervisord that decides how the container ends, and starts its programs without delay."""

    def __init__(self, options: _Options, payload: str) -> None:
        super().__init__(options)
        self.exit_code = EXIT_STOPPED
        self.watch: whereabouts.Watch | None = None
        self.jobs: sick.Watch | None = None
        self.room: space.Watch | None = None
        self.kills: kills.Watch | None = None
        self.keeper: keeper.Keeper | None = None
        self._first = ""
        self.verdict = ""
        """Why the node must end, if it must."""
        self.settle: Callable[[str], None] = lambda _address: None
        """Called with this node's new address, before its daemons start anew."""
        self.home = whereabouts.Home()
        self._anew = False
        self._payload = payload
        self._patience = patience.Patience()

    def runforever(self) -> None:
        # Here, because supervisord forgets all subscribers shortly before.
        events.subscribe(events.ProcessStateExitedEvent, self._ended)
        events.subscribe(events.ProcessStateFatalEvent, self._ended)
        events.subscribe(events.Tick5Event, self._tick)
        events.subscribe(events.SupervisorStoppingEvent, self._stop)
        for group in sorted(self.process_groups.values()):
            group.transition()  # it would look around for a second first
        super().runforever()

    def hear(self, daemon: str, line: str) -> None:
        """A line of a daemon's log; called from the relay's thread."""
        if daemon == "master":
            said = self._patience.hear(line, time.monotonic(), helpless=self._lacks_room)
            self.verdict = self.verdict or said
            if orphans.told(line):
                orphans.end()

    def _lacks_room(self, daemon: str) -> bool:
        """Whether the schedd ends because it cannot write; it is started with that in mind."""
        return daemon == "schedd" and self.room is not None and self.room.look()

    def room_changed(self, full: bool) -> None:
        """Make the schedd read whether it may take jobs."""
        self._say(SPOOL_FULL if full else "there is space in the spool again: jobs are welcome")
        self._reconfigure()

    def look_at_jobs(self) -> None:
        """The startd has written something down; called from the relay's thread."""
        if self.jobs is not None:
            self.jobs.read(time.time())

    def master_moved(self, news: str) -> None:
        """Make condor_master, and through it every daemon, read where the masters are now."""
        self._say(news)
        self._reconfigure()

    def watch_jobs(self, node: str) -> None:
        """From now on decide whether this executor is sick."""
        self.jobs = sick.Watch(
            node, HISTORY, EXECUTE_DIR, self._say, self._reconfigure, self.options.pidhistory
        )

    def _stop(self, _event: Any) -> None:
        """Leave a pool whose master is gone without a word.

        Each daemon would spend 20 s on telling a machine that is not there that it stops (measured:
        condor_master before it stops anything), and all would be killed amid their work.
        """
        if self.watch is not None and (gone := self.watch.leave()):
            self._say(f"{' and '.join(gone)} does not answer: this node stops without telling it")
            self._reconfigure()
            time.sleep(_SPREAD)

    def _reconfigure(self) -> None:
        """Make condor_master and its daemons read their configuration again."""
        pid = self.process_groups[self._payload].processes[self._payload].pid
        if pid:
            os.kill(pid, signal.SIGHUP)

    def _ended(self, event: Any) -> None:
        if event.process.config.name != self._payload or self._stopping():
            return
        status = event.process.exitstatus
        if isinstance(event, events.ProcessStateExitedEvent) and status == 0:
            self._end("condor_master was told to stop, and has", EXIT_STOPPED)
        elif status is None or status < 0:
            self._end(
                "condor_master was killed; the container ends, so that no orphan works on",
                EXIT_PAYLOAD_FAILED,
            )
        else:
            self._end(
                f"condor_master ended with status {status}; its log lines above say why",
                EXIT_PAYLOAD_FAILED,
            )

    def _tick(self, _event: Any) -> None:
        if self.watch is not None:
            self.watch.look()
        if not self._stopping():
            self._follow_own_address()
        if self.room is not None:
            self.room.look()
        if self.kills is not None and (killed := self.kills.look()):
            self._say(killed)
        if self.verdict and not self._stopping():
            self._end(self.verdict, EXIT_PAYLOAD_FAILED)
        if self.jobs is not None and not self._stopping():
            self.jobs.look(time.time())
        if self.keeper is not None and not self._stopping():
            self._keep(self.keeper)

    def keep(self, first: str) -> None:
        """From now on look after certificates; `first` is the master that admits, if not here."""
        self._first = first
        here = os.path.exists(f"{STATE_DIR}/{CA_KEY}")  # noqa: PTH110
        self.keeper = keeper.Keeper(STATE_DIR, master=here)

    def _keep(self, keeper_: keeper.Keeper) -> None:
        """Renew certificates and take up notices, in a process of its own: both cost memory."""
        if revoked := keeper_.revoked():
            self._end(revoked, EXIT_BAD_INPUT)
        elif keeper_.wants(self.watch.current.get(self._first, "") if self.watch else ""):
            process = self.process_groups[keeper.PROGRAM].processes[keeper.PROGRAM]
            if not process.pid:
                process.spawn()

    def _follow_own_address(self) -> None:
        """Start condor_master anew when this node was given another address.

        Its daemons would go on to tell everybody the old one, whatever they are told to read again.
        """
        payload = self.process_groups[self._payload].processes[self._payload]
        if self._anew:
            if payload.get_state() in STOPPED_STATES:
                self._anew = False
                self.home.forget()
                payload.spawn()
        elif address := self.home.moved():
            master = self.watch.current.get(self._first, "") if self.watch else ""
            address = own_address.tell(master, self._say) or address
            self._say(f"this node's address is {address} now: HTCondor starts anew there")
            self.settle(address)
            self._anew = True
            payload.stop()

    def _stopping(self) -> bool:
        return bool(self.options.mood < SupervisorStates.RUNNING)

    def _end(self, sentence: str, code: int) -> None:
        self._say(sentence)
        self.exit_code = code
        self.options.mood = SupervisorStates.SHUTDOWN

    def _say(self, sentence: str) -> None:
        logs.say(sentence, as_json=self.options.json_logs)


def main(
    conf: str,
    payload: str,
    relay_state: str,
    *,
    masters: list[str],
    certificates: dict[str, str],
    found: dict[str, str],
    own: str,
    told: str,
    executor: str,
    spool: str,
    forwarded: bool,
    json_logs: bool,
) -> int:
    """Run supervisord with `conf` to the node's end; the container's exit code.

    `payload` is the program whose end is the node's end; `relay_state` the file that remembers how
    far the relay came. `masters` are what this node calls its masters, none on an only master;
    `own` is its own name on one of two. `executor` is this node's own name if jobs run here,
    `spool` where the job queue is; each is empty elsewhere. `forwarded` is as in whereabouts.Home,
    the rest as in whereabouts.Watch.
    """
    options = _Options()
    options.json_logs = json_logs
    options.realize(["-c", conf])
    options.first = True
    options.test = False
    supervisord = _Supervisor(options, payload)
    supervisord.home = whereabouts.Home(forwarded=forwarded)
    if masters:
        supervisord.watch = whereabouts.Watch(
            masters, certificates, found, supervisord.master_moved, own=own, told=told
        )
        if own:
            supervisord.settle = supervisord.watch.settle
    else:
        (only,) = found
        supervisord.settle = lambda address: whereabouts.write(
            whereabouts.configuration([only], {only: address}, certificates)
        )
    if spool:
        supervisord.room = space.Watch(spool, supervisord.room_changed)
    supervisord.kills = kills.Watch()
    first = next((name for name in masters if name != own), "")
    supervisord.keep(first)
    if executor:
        supervisord.watch_jobs(executor)
    relay = logs.relay(
        LOG_DIR, relay_state, supervisord.hear, supervisord.look_at_jobs, as_json=json_logs
    )
    with relay, contextlib.suppress(asyncore.ExitNow):  # ExitNow is how supervisord ends
        supervisord.main()
    return supervisord.exit_code
