"""The command: arguments in, tables out; nothing else.

Each command lives in a module that is imported when it is called, so that `roost --help` is quick.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, NoReturn

import click

from roost.errors import PoolFileError, RoostError

#: Every command: its module here and what it does, in the order of `roost --help`.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("lifecycle", "Bring a pool up, or make it fit its pool file."),
    "down": ("lifecycle", "Take the pool down."),
    "ls": ("lifecycle", "List the pools."),
    "status": ("lifecycle", "Show the pool's nodes, slots and jobs."),
    "scale": ("lifecycle", "Change the number of executors."),
    "drain": ("lifecycle", "Take executors away once their jobs have finished."),
    "submit": ("jobs", "Submit a job; its outputs come back beside the submit file."),
    "wait": ("jobs", "Wait for jobs to end and bring their outputs back."),
    "q": ("jobs", "List the jobs in the queue."),
    "rm": ("jobs", "Remove jobs."),
    "why": ("jobs", "Say why a job does not run."),
    "logs": ("nodes", "Show what the nodes' daemons log."),
    "exec": ("nodes", "Run a command in a node."),
    "shell": ("nodes", "Open a shell in a node."),
    "join": ("members", "Print the line that starts a node on another host."),
    "approve": ("members", "Admit nodes that wait, or list them."),
    "user": ("users", "Add, list or remove those who submit."),
    "credential": ("members", "List, revoke or replace certificates."),
    "doctor": ("lifecycle", "Find out what is wrong, and what to do."),
    "data": ("data", "Store tokens for the pool's data, or list it."),
    "env": ("lifecycle", "Print shell exports for this machine's own HTCondor tools."),
    "image": ("image", "Build the image, or list the images that are here."),
    "render": ("files", "Write the pool as files for another tool."),
    "schema": ("files", "Print the JSON Schema of pool.yaml."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"roost.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("exec", "exec_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else "`roost --help` lists the commands"
            raise click.UsageError(f"command {args[0]!r} is unknown; {advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--name", metavar="NAME", help="The pool; else $ROOST_POOL, else `roost`.")
@click.option(
    "--engine",
    metavar="ENGINE",
    help="docker, podman, kubernetes or marathon; else $ROOST_ENGINE.",
)
@click.version_option(package_name="roost", message="roost %(version)s")
@click.pass_context
def cli(ctx: click.Context, name: str | None, engine: str | None) -> None:
    """Run a real HTCondor pool in containers.

    `roost up` brings one up; `roost submit FILE.sub --wait` runs a job in it; `roost down` takes
    it away again.
    """
    ctx.obj = {"name": name, "engine": engine}


class _Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, so that what was begun is cleaned up."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status: 0 done, 1 failed, 2 bad input."""
    signal.signal(signal.SIGTERM, _terminate)
    return guarded(
        lambda: cli.main(
            None if argv is None else list(argv), prog_name="roost", standalone_mode=False
        )
    )


def guarded(body: Callable[[], Any]) -> int:
    """The exit status of `body`; whatever it raises becomes one sentence on stderr."""
    if os.environ.get("ROOST_TRACEBACK"):
        return _status(body())
    try:
        result = body()
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe has gone; what is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - never a traceback
        sentence, status = explained(error)
        print(f"roost: {sentence}", file=sys.stderr)
        return status
    return _status(result)


def _status(result: Any) -> int:
    return result if isinstance(result, int) else 0


def explained(error: BaseException) -> tuple[str, int]:  # noqa: PLR0911 - one for each kind
    """What to say about an error, and the exit status."""
    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click's word for any KeyboardInterrupt
    match error:
        case click.UsageError():
            return _one_line(error), error.exit_code
        case click.ClickException():
            return error.format_message(), error.exit_code
        case PoolFileError():
            return _listed(error), error.exit_status
        case RoostError():
            return str(error), error.exit_status
        case _Terminated():
            return "stopped by SIGTERM", 143
        case KeyboardInterrupt() | click.Abort():
            return "interrupted", 130
        case _:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            return f"unexpected {what}; ROOST_TRACEBACK=1 shows where it comes from", 1


def _one_line(error: click.UsageError) -> str:
    """Click's message as one sentence that ends with what to do."""
    text = error.format_message().replace("\n", " ").strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    if "did you mean" in text.lower() or "--help`" in text or error.ctx is None:
        return text
    return f"{text}; `{error.ctx.command_path} --help` shows the usage"


def _listed(error: PoolFileError) -> str:
    if len(error.problems) == 1:
        return str(error)
    head = f"{error.source} has {len(error.problems)} problems:"
    return "\n".join([head, *(f"  {problem}" for problem in error.problems)])
