"""The only door to subprocesses.

Nothing secret may pass through `argv`: it is visible to every process of the machine. Secrets go
through `stdin`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from roost.errors import CommandFailed


@dataclass(frozen=True)
class Completed:
    """What a command left behind: its exit status and what it wrote."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Completed:
        """This, if the status is zero. Raises CommandFailed otherwise."""
        if self.status != 0:
            raise CommandFailed(self.argv, self.status, self.stderr or self.text)
        return self


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run `argv` to its end.

    `timeout` is in seconds. Raises CommandFailed when the program does not exist (status 127) or
    takes longer (status 124); any other status is the caller's to judge, by `.check()`.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, timeout=timeout, env=env, check=False
        )
    except FileNotFoundError as error:
        raise CommandFailed(argv, 127, f"{argv[0]} is not installed") from error
    except PermissionError as error:
        raise CommandFailed(argv, 126, f"{argv[0]} may not be executed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, 124, f"no answer within {timeout:g} s") from error
    return Completed(
        tuple(argv), done.returncode, done.stdout, done.stderr.decode(errors="replace")
    )


def stream(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Each line that `argv` writes, on stdout or stderr, as it comes.

    The command is stopped when the iterator is closed. Raises CommandFailed when it ends badly.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
        )
    except FileNotFoundError as error:
        raise CommandFailed(argv, 127, f"{argv[0]} is not installed") from error
    last = ""
    finished = False
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.rstrip("\n")
            yield last
        finished = True
    finally:
        if not finished:
            with suppress(ProcessLookupError):
                process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        status = process.wait()
    if status != 0:
        raise CommandFailed(argv, status, last)


def attached(argv: Sequence[str]) -> int:
    """Run `argv` on this process's own terminal; its status. Raises CommandFailed if it is absent.

    Ctrl-C is meant for it, not for this process.
    """
    try:
        with subprocess.Popen(argv) as process:
            while True:
                with suppress(KeyboardInterrupt):
                    return process.wait()
    except OSError as error:
        raise CommandFailed(argv, 127, f"{argv[0]} cannot be run: {error.strerror}") from error


class Piped:
    """A command that runs beside this program, with a pipe or a socket to it."""

    def __init__(self, argv: Sequence[str], *, both: int | None = None) -> None:
        """`both` is a file descriptor that is its input and output; else there are pipes.

        Raises CommandFailed if it does not exist.
        """
        ends = subprocess.PIPE if both is None else both
        try:
            self._process = subprocess.Popen(
                argv, stdin=ends, stdout=ends, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise CommandFailed(argv, 127, f"{argv[0]} cannot be run: {error.strerror}") from error

    def say(self, line: bytes) -> None:
        """Write a line to it. Raises OSError if it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def hear(self) -> bytes:
        """Its next line; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self, *, timeout: float = 10) -> None:
        """End its input and wait for it; if it does not end by then, it is ended."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
        if self._process.stdout is not None:
            self._process.stdout.close()  # only now: somebody may be reading

    def end(self) -> None:
        """End it now; a no-op if it has ended."""
        self._process.terminate()
        self._process.wait()
