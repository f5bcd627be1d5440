"""A node that takes jobs and fails them all is sick: it notices, says so and takes no more.

A broken node is always free, so it gets the next job, and the next: twenty in a second (a black
hole; measured). From inside, its failures look like those of a broken job. What tells them apart is
how jobs of the same kind do elsewhere at the same time. So every executor publishes how its last
jobs ended, in its slots' ads. One whose jobs fail in a row pauses, reads the others', and is sick
or goes on. Each node decides about itself alone: nobody needs a right to drain anybody.

What jobs did is the startd's own record (STARTD_HISTORY). It decides in supervisord's loop, in
every executor's container: it imports next to nothing.
"""

from __future__ import annotations

import os
import re
import threading

TYPE_CHECKING = False  # typing itself would cost every container a MiB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final

#: So many failures in a row are suspicious: fewer happen to any user who tries something out.
IN_A_ROW: Final = 5
#: Seconds. A job that fails later had something to run with.
QUICK: Final = 30.0
#: Seconds for which an end says something about its node.
RECENT: Final = 600
#: Seconds from the first failure before a node is blamed: by then the others' failures are known.
SETTLE: Final = 10
#: Seconds for which a node pauses at most: within them a long job elsewhere has run for QUICK.
PAUSE: Final = 45
#: Ends that a node remembers and publishes; about 60 bytes each.
REMEMBERED: Final = 16
#: So many jobs have to do well elsewhere: one may have been lucky.
WELL_ELSEWHERE: Final = 2
#: For one executor where such jobs fail too, more than so many where they do well: else it is the
#: jobs.
FOR_ONE: Final = 4
#: An executor where more than one in so many of such jobs fails is one where they fail.
ONE_IN: Final = 8
#: Seconds between two questions while it pauses and later: two hundred nodes may ask at once.
ASK_EVERY: Final = (5.0, 60.0)
#: Seconds between two looks at the execute directory.
PROBE_EVERY: Final = 30.0
#: Seconds between two publications of what only adds to the last one.
PUBLISH_EVERY: Final = 5.0
#: Seconds after which what was published is repeated: the startd may have been restarted.
REPEAT: Final = 30.0

UNSTARTED: Final = "could not be started"
#: VacateReasonCode from here on: something ended the run, and not the job itself.
_EVICTED: Final = 1000

#: The startd reads from here what it publishes (STARTD_CRON in roles.py).
FIFO: Final = "/run/roost/ends"
_ANSWER: Final = "/run/roost/ends.elsewhere"
_STATUS: Final = "/usr/bin/condor_status"
_MOUNTS: Final = "/proc/self/mountinfo"


# --- how jobs ended ---------------------------------------------------------------------------


class End:
    """How one job ended on one executor."""

    __slots__ = ("batch", "how", "kind", "well", "when")

    def __init__(self, when: int, well: bool, batch: str, kind: str, how: str = "") -> None:
        self.when = when
        self.well = well
        """False: it failed within seconds, or could not be started."""
        self.batch = batch
        """Its schedd and cluster."""
        self.kind = kind
        """Its owner and program."""
        self.how = how
        """In words, for the node's own ends."""

    def text(self) -> str:
        return f"{self.when}:{'w' if self.well else 'f'}:{self.batch}:{self.kind}"


def plain(text: str) -> str:
    """A name with which neither an ad nor a line of `End.text` can be confused."""
    return re.sub(r"[^A-Za-z0-9_.#/+-]", "_", text)[-48:]


def kind(owner: str, command: str) -> str:
    """What a job is: programs of the same name and owner are the same, wherever they lie."""
    return plain(f"{owner.partition('@')[0]}/{command.rpartition('/')[2]}")


def batch(global_job_id: str) -> str:
    """`access-point#7` of `access-point#7.0#1795486653`."""
    schedd, _, rest = global_job_id.partition("#")
    return plain(f"{schedd}#{rest.partition('.')[0]}")


def ends(history: str) -> list[End]:
    """The ends in a piece of STARTD_HISTORY, without those that say nothing about job or node."""
    found = []
    ad: dict[str, str] = {}
    for line in history.splitlines():
        if line.startswith("***"):
            end = _end(ad)
            if end is not None:
                found.append(end)
            ad = {}
        else:
            name, equals, value = line.partition(" = ")
            if equals:
                ad[name] = value.strip('"')
    return found


def _end(ad: dict[str, str]) -> End | None:
    when = int(_number(ad.get("CompletionDate", "")))
    who = (batch(ad.get("GlobalJobId", "")), kind(ad.get("Owner", ""), ad.get("Cmd", "")))
    match _ending(ad, when):
        case "":
            return None
        case "exit code 0":
            return End(when, True, *who)
        case how:
            # a job that ran for a while and failed: neither the node's success nor its failure
            quick = how == UNSTARTED or _number(ad.get("JobDuration", "")) < QUICK
            return End(when, False, *who, how) if quick else None


def _ending(ad: dict[str, str], when: int) -> str:
    """How the job ended, in words; empty if it was evicted, removed or lost."""
    if _number(ad.get("VacateReasonCode", "")) >= _EVICTED:
        return ""  # 25 says so
    by_signal = ad.get("ExitBySignal") == "true"
    if "ExitCode" in ad or by_signal:
        # 23.9 says with ToE who ended it; in the ad of an evicted job it is absent or an old one
        toe = re.search(r"When = (\d+); HowCode = 0\b", ad.get("ToE", ""))
        began = when - _number(ad.get("RemoteWallClockTime", "")) - 2
        own = int(toe[1]) >= began if toe else "JobPid" in ad and "ToE" not in ad
        if not own:
            return ""
        return f"signal {ad.get('ExitSignal')}" if by_signal else f"exit code {ad['ExitCode']}"
    # 0: held by the starter; 256: the starter could not begin. Others: it was stopped, or its
    # shadow was lost.
    begun = ad.get("StarterExitStatus") not in ("0", "256")
    return "" if begun or ad.get("BadputCausedByDraining") == "true" else UNSTARTED


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Record:
    """The last ends of this node, the newest last."""

    def __init__(self) -> None:
        self.ends: list[End] = []
        self._failing = 0

    def add(self, found: Iterable[End]) -> None:
        for end in found:
            self.ends.append(end)
            self._failing = 0 if end.well else self._failing + 1
        del self.ends[:-REMEMBERED]

    def streak(self, now: float) -> list[End]:
        """The recent failures since the last job that ended well; empty if they are too few."""
        last = self.ends[-self._failing :] if self._failing else []
        last = [end for end in last if end.when > now - RECENT]
        return last if len(last) >= IN_A_ROW else []

    def ad(self, now: float) -> str:
        """What is published of it."""
        text = " ".join(end.text() for end in self.ends)
        return f'RoostEnds = "{text}"\nRoostFailing = {len(self.streak(now))}\n'


# --- how they do elsewhere --------------------------------------------------------------------


class Other:
    """Another executor, as the collector knows it."""

    def __init__(self) -> None:
        self.sick = False
        self.ends: list[End] = []
        self.running: set[tuple[str, str]] = set()
        """Batch and kind of each job that has run for longer than a broken one does."""


def question(node: str) -> list[str]:
    """The command whose answer `others` reads."""
    return [
        _STATUS, "-constraint", f'Machine =!= "{node}" && time() - LastHeardFrom < 150',
        "-af:t", "Machine", "RoostSick", "RoostEnds", "GlobalJobId", "RemoteOwner", "Cmd",
        f'Activity == "Busy" && time() - EnteredCurrentActivity > {QUICK:.0f}',
    ]  # fmt: skip


def others(answer: str) -> dict[str, Other]:
    """Every other executor, by name. Raises ValueError for words that are no answer."""
    found: dict[str, Other] = {}
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        machine, sick, published, job, owner, command, long = fields
        other = found.setdefault(machine, Other())
        other.sick = other.sick or sick == "true"
        if published != "undefined":
            # each slot's ad holds what was known when it was sent
            last = [_published(text) for text in published.split()]
            if last and (not other.ends or last[-1].when > other.ends[-1].when):
                other.ends = last
        if long == "true" and job != "undefined":
            other.running.add((batch(job), kind(owner, command)))
    return found


def _published(text: str) -> End:
    when, well, of, what = text.split(":")
    return End(int(when), well == "w", of, what)


def judge(streak: Sequence[End], pool: dict[str, Other]) -> tuple[str, str]:
    """`node`, `jobs` or nothing: who is to blame for these failures, and a reason in words.

    Nothing: the others do not show it, or too many of them stand still already.
    """
    batches = {end.batch for end in streak}
    kinds = {end.kind for end in streak}
    since = streak[0].when
    well = done = failed = 0
    for other in pool.values():
        alike = [end for end in other.ends if end.batch in batches or end.kind in kinds]
        fine = sum(end.well and end.when >= since for end in alike)
        fine += sum(of in batches or what in kinds for of, what in other.running)
        bad = sum(not end.well and end.when > since - RECENT for end in alike)
        if bad * ONE_IN > fine:
            failed += 1
        elif fine:
            well += 1
            done += fine
    if failed and failed >= well:
        return "jobs", "jobs like them fail on other executors, too"
    idle = sum(other.sick for other in pool.values())
    if done < WELL_ELSEWHERE or failed * FOR_ONE >= well or 2 * (idle + 1) > len(pool) + 1:
        return "", ""
    ways = sorted({end.how for end in streak})
    where = "another executor" if well == 1 else f"{well} other executors"
    return "node", (
        f"its last {len(streak)} jobs all failed within seconds ({', '.join(ways)[:120]}), "
        f"while jobs like them do well on {where}"
    )


# --- the world --------------------------------------------------------------------------------


class History:
    """Reads what is added to a file, from when it was opened first."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode, self._offset = self._now()

    def _now(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def new(self) -> str:
        """What was added since, up to the end of a whole ad."""
        inode, size = self._now()
        if inode != self._inode or size < self._offset:
            self._inode, self._offset = inode, 0  # it was rotated, or is there at last
        if size == self._offset:
            return ""
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            data = file.read(size - self._offset)
        last = data.rfind(b"\n", 0, len(data)) + 1
        mark = data.rfind(b"\n***", 0, last)
        whole = data.find(b"\n", mark + 1) + 1 if mark >= 0 else 0
        self._offset += whole
        return data[:whole].decode(errors="replace")


def mounted(mountinfo: str, directory: str) -> list[str]:
    """The FUSE mounts below a directory, the innermost first."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split()[4])
        gone = place.endswith("//deleted")  # its directory is, and nobody reaches it any more
        if right.startswith("fuse") and place.startswith(f"{directory}/") and not gone:
            found.append(place)
    return found[::-1]


def cannot_write(directory: str) -> str:
    """Why no file can be written in a directory, in one sentence; empty if one can."""
    path = f"{directory}/.roost-probe"
    try:
        with open(path, "wb") as file:
            file.write(b"x" * 4096)
        os.unlink(path)
    except OSError as error:
        return f"nothing can be written in {directory}: {(error.strerror or str(error)).lower()}"
    return ""


class Watch:
    """Looks at this node's jobs and place now and then, and decides about the node."""

    def __init__(
        self,
        node: str,
        history: str,
        execute: str,
        say: Callable[[str], None],
        reconfigure: Callable[[], None],
        children: dict[int, Any],
        *,
        fifo: str = FIFO,
    ) -> None:
        """`reconfigure` makes the startd send its ads: 23.9 does not when its cron asks for it.

        `children` is where supervisord looks up who wants to know of a child's end.
        """
        self.sick = ""
        """Why the node is sick; empty if it is well."""
        self.paused = 0.0
        """Since when it takes no jobs because it asks itself whether it is sick; 0 if it does."""
        self.record = Record()
        self._blamed: list[End] = []
        """The failures that made it sick, if those did."""
        self._excused = 0.0
        """Until when failures are no reason to pause: a user's broken jobs would pause it often."""
        self._since = 0.0
        self._node = node
        self._history = History(history)
        self._execute = execute
        self._say = say
        self._reconfigure = reconfigure
        self._children = children
        self._state = ""
        self._published = ""
        self._publish_at = self._probe_at = self._ask_at = 0.0
        self._asking = False
        self._unwritable = ""
        self._detached: list[str] = []
        # read() comes from the relay's thread, too
        self._lock = threading.RLock()
        if not os.path.exists(fifo):
            os.mkfifo(fifo, 0o644)
        # for both ends: without a reader it neither blocks nor fails
        self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def read(self, now: float) -> None:
        """Read how jobs ended; pause at once if too many failed in a row."""
        with self._lock:
            self.record.add(ends(self._history.new()))
            busy = self.sick or self.paused or now <= self._excused
            if not busy and self.record.streak(now):
                self.paused = now
                self._ask_at = 0.0
            self._publish(now)

    def look(self, now: float) -> None:
        """Look once at everything; `now` is in seconds since the epoch. In supervisord's loop."""
        with self._lock:
            self.read(now)
            if now >= self._probe_at:
                self._probe_at = now + PROBE_EVERY
                self._unwritable = cannot_write(self._execute)
            self._place(self._unwritable or self._mounted(), now)
            if self.paused and now > self.paused + PAUSE:
                self._excuse(now)
            if self._streak(now) and now >= self._ask_at and not self._asking:
                self._ask_at = now + ASK_EVERY[0 if self.paused else 1]
                self._ask(now)

    def _streak(self, now: float) -> list[End]:
        """The failures that are to be judged now."""
        return self._blamed if self.sick else self.record.streak(now)

    def _mounted(self) -> str:
        """Detach what is mounted where jobs have their files; why it cannot be, in one sentence.

        HTCondor clears a job's directory away with all that it sees in there, remote data too. What
        roost mounts for a job HTCondor never sees: this is for whatever else does it.
        """
        with open(_MOUNTS, encoding="utf-8", errors="replace") as file:
            found = mounted(file.read(), self._execute)
        tried, self._detached = self._detached, found
        for place in found:
            if place in tried:
                return f"{place} is mounted where HTCondor would remove what is in it"
            self._say(f"detaching {place}: HTCondor would remove what is in it with the job")
            pid = os.posix_spawn("/usr/bin/umount", ["umount", "--lazy", place], os.environ)
            self._children[pid] = _Child(lambda _status: None)
        return ""

    def _place(self, wrong: str, now: float) -> None:
        if wrong and not self.sick:
            self._become(wrong, now)
        elif self.sick and not wrong and not self._blamed:
            self._become("", now)

    def _excuse(self, now: float) -> None:
        self.paused = 0.0
        self._excused = now + RECENT
        self._publish(now)
        self._reconfigure()

    def _publish(self, now: float) -> None:
        state = (
            f"RoostPaused = {self.paused != 0}\nRoostSick = {self.sick != ''}\n"
            f'RoostSickReason = "{_quotable(self.sick)}"\nRoostSickSince = {self._since:.0f}\n'
        )
        text = self.record.ad(now) + state
        # nobody waits for what has only become more: the next look brings it
        changed = text != self._published and (state != self._state or now >= self._publish_at)
        if not changed and (now < self._publish_at + REPEAT or not self._published):
            return
        if not self.record.ends and not self.sick and not self._published:
            return  # nothing to say yet
        try:
            os.write(self._fifo, f"{text}-{' update:true' if changed else ''}\n".encode())
        except BlockingIOError:
            return  # the startd does not run; again at the next look
        self._published, self._state, self._publish_at = text, state, now + PUBLISH_EVERY

    def _ask(self, now: float) -> None:
        pid = os.posix_spawn(
            _STATUS, question(self._node), os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, _ANSWER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
            ],
        )  # fmt: skip
        self._asking = True
        self._children[pid] = _Child(lambda status: self._answered(status, now))

    def _answered(self, status: int, now: float) -> None:
        self._asking = False
        if status:
            return  # without the collector nobody is matched either
        with open(_ANSWER, encoding="utf-8", errors="replace") as file:
            self.decide(file.read(), now)

    def decide(self, answer: str, now: float) -> None:
        """Decide with what the collector answered."""
        with self._lock:
            streak = self._streak(now)
            try:
                pool = others(answer)
            except ValueError:
                return
            if not streak:
                return
            blamed, reason = judge(streak, pool)
            if self.sick:
                if blamed == "jobs":
                    self._blamed = []
                    self.record = Record()
                    self._excused = now + RECENT
                    self._become("", now, f"it was not this node: {reason}")
            elif blamed == "node":
                if now >= streak[0].when + SETTLE:
                    self._blamed = streak
                    self._become(reason, now)
            elif self.paused and (blamed == "jobs" or not pool):
                self._excuse(now)

    def _become(self, sick: str, now: float, because: str = "what was wrong is over") -> None:
        self.sick, self._since, self.paused = sick, now, 0.0
        self._publish(now)
        self._reconfigure()
        if sick:
            self._say(f"this node is sick and takes no more jobs: {sick}")
        else:
            self._say(f"this node is well again: {because}")


def _quotable(text: str) -> str:
    return re.sub(r'["\\\n]', "'", text)


class _Child:
    """What supervisord wants to find for a child of which it is told that it ended."""

    def __init__(self, ended: Callable[[int], None]) -> None:
        self._ended = ended

    def finish(self, _pid: int, status: int) -> None:
        self._ended(status)

    def __str__(self) -> str:
        return "condor_status"
