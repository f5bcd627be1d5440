"""The access point as tasks need it: commands run there as the user, files in a directory there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from roost._run import Completed, Piped
from roost.ads import sentence
from roost.engines.base import Engine
from roost.errors import BadInput, JobError, PoolNotReady
from roost.plan import Ref
from roost.queue.jobs import shell
from roost.queue.submit import KILLED, UNANSWERED
from roost.work import scripts
from roost.work.bundle import Bundle

#: One command of a submit file to a line: nothing that is given here can begin another.
_COMMAND = re.compile(r"[+A-Za-z_][A-Za-z0-9_.]*")


@dataclass(frozen=True)
class Access:
    """One user's side of an access point, seen through an engine."""

    engine: Engine
    ref: Ref
    user: str

    def run(self, script: str, *words: object, stdin: bytes = b"") -> Completed:
        """Run a script there; its status is in the result."""
        return self.engine.exec(self.ref, shell(script, *words), user=self.user, stdin=stdin)

    def surely(self, script: str, *words: object) -> Completed:
        """The same, where only success is any use. Raises PoolNotReady."""
        done = self.run(script, *words)
        if done.status != 0:
            raise PoolNotReady(
                f"{self.ref.name} refused {self.user}: {sentence(done.stderr or done.text)}",
                advice="see `roost doctor`",
            )
        return done

    def command(self, script: str, *words: object) -> list[str]:
        """The command line that runs a script there, with this machine's input and output."""
        argv = shell(script, *words)
        return self.engine.interactive(self.ref, argv, user=self.user, terminal=False)

    def python(self, bundle: Bundle) -> str:
        """The directory where this Python is on the access point; it is brought there once.

        Raises BadInput where it cannot run there.
        """
        found = self.run(scripts.HAS_PYTHON, bundle.digest)
        if found.status == 0:
            return f"{found.text.strip()}/python-{bundle.digest}"
        done = self.run(scripts.PUT_PYTHON, bundle.digest, stdin=bundle.archive())
        if done.status == scripts.DOES_NOT_RUN:
            raise BadInput(
                f"this program's Python does not run in the pool's image: {sentence(done.stderr)}",
                advice="a newer release of the image may have what it needs, such as "
                "`roost up --release forky`; or use an older Python here",
            )
        if done.status > KILLED:
            raise PoolNotReady(f"{self.ref.name} ended while the Python was brought to it")
        if done.status != 0:
            raise JobError(f"the Python does not fit on {self.ref.name}: {sentence(done.stderr)}")
        return f"{done.text.strip()}/python-{bundle.digest}"

    def directory(self) -> str:
        """A new directory there, the user's own."""
        return self.surely(scripts.MAKE).text.strip()

    def submit(self, directory: str, name: str, archive: bytes) -> int:
        """Put files into a directory there and submit one of them; the cluster.

        Raises PoolNotReady where the schedd does not answer, BadInput where it refuses.
        """
        done = self.run(scripts.SUBMIT, directory, name, stdin=archive)
        if done.status == 0 and (cluster := re.match(r"(\d+)\.\d+ - ", done.text)):
            return int(cluster[1])
        said = sentence(done.stderr or done.text)
        if done.status > KILLED or UNANSWERED.search(said):
            raise PoolNotReady(f"{self.ref.name} did not take the tasks: {said}")
        raise BadInput(f"HTCondor refused the tasks: {said}")

    def follow(self, directory: str) -> Piped:
        """The lines of the log there, from the first, as they come."""
        return Piped(self.command(scripts.FOLLOW, directory))


def lines(of: Piped) -> Iterator[str]:
    """What it writes, line by line, until it ends."""
    with closing(of):
        while line := of.hear():
            yield line.decode(errors="replace").rstrip("\n")


def description(commands: Mapping[str, object], more: Mapping[str, object], queue: str) -> str:
    """A submit file; `more` is the caller's, whose commands may not replace those before.

    Raises BadInput.
    """
    taken = {name.lower() for name in commands}
    for name, value in more.items():
        if not _COMMAND.fullmatch(name) or "\n" in str(value):
            raise BadInput(f"{name!r} is no command of a submit file, of one line")
        if name.lower() in taken or name.lower() == "queue":
            raise BadInput(f"{name!r} is roost's to say for tasks", advice="leave it out")
    said = [f"{name} = {value}\n" for name, value in {**more, **commands}.items()]
    return "".join([*said, queue, "\n"])


def names(of: Sequence[str]) -> str:
    """A `queue name from` list of submit files."""
    return "queue name from (\n" + "".join(f"{name}\n" for name in of) + ")"
