"""What the commands share: which pool is meant, and how things are shown."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import click

from roost import engines
from roost.engines.base import Engine
from roost.kept import checked
from roost.pool import Pool
from roost.progress import Detail, Happened, Progress, Stage
from roost_node.vocab import DEFAULT_POOL

if TYPE_CHECKING:
    from rich.status import Status

#: Makes a command of a function, with the options that every command has.
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: So many lines a listing has at most, unless --each is given: beyond, it summarises.
FEW: Final = 100

json_option: Final = click.option("--json", "as_json", is_flag=True, help="As JSON.")


# --- which pool ---------------------------------------------------------------------------------


def selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `function` the `name` and `engine` that stand before or after the command, or None."""

    @click.option("--name", metavar="NAME", help="The pool; else $ROOST_POOL, else `roost`.")
    @click.option(
        "--engine",
        metavar="ENGINE",
        help="docker, podman, kubernetes or marathon; else $ROOST_ENGINE.",
    )
    @click.pass_context
    @functools.wraps(function)
    def command(
        ctx: click.Context, /, name: str | None, engine: str | None, **arguments: Any
    ) -> Any:
        before = ctx.find_root().obj or {}
        engine = engine or before.get("engine") or os.environ.get("ROOST_ENGINE") or None
        return function(name=name or before.get("name"), engine=engine, **arguments)

    return command


def pooled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `function` the pool that is meant, as its first argument. Raises PoolNotFound."""

    @selecting
    @functools.wraps(function)
    def command(name: str | None, engine: str | None, **arguments: Any) -> Any:
        return function(Pool.attach(pool_name(name), engine=engine), **arguments)

    return command


def engine_named(name: str | None) -> Engine:
    """The engine of that name, else the first that runs."""
    return engines.by_name(name) if name else engines.detect()


def pool_name(name: str | None) -> str:
    """The pool's name from a flag, else from the environment, else the default."""
    return checked(name or os.environ.get("ROOST_POOL") or DEFAULT_POOL)


# --- how things are shown -----------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Values, dataclasses among them, as JSON on stdout."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if field.repr
        }
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns on stdout; the head is bold on a terminal."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(
            click.style(text.rstrip(), bold=True) if number == 0 and coloured() else text.rstrip()
        )


def coloured(stream: IO[str] | None = None) -> bool:
    """Whether a stream, stdout by default, is a terminal that may show colours."""
    return (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR")


def ago(seconds: float) -> str:
    """A duration in the two units that matter: `3 s`, `2 min 5 s`, `1 h 2 min`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    parts: list[tuple[str, int]] = []
    for unit, size in units:
        amount, whole = divmod(whole, size)
        if amount or (unit == "s" and not parts):
            parts.append((unit, amount))
        if parts and len(parts) == 2:
            break
    return " ".join(f"{amount} {unit}" for unit, amount in parts)


def stamp(when: float | None) -> str:
    """A time in Unix time as UTC; a hyphen if there is none."""
    return "-" if when is None else time.strftime("%F %R", time.gmtime(when))


@contextmanager
def shown() -> Iterator[Progress]:
    """A Progress on stderr: a spinner on a terminal, else a line for each thing that happened."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("") as status:
        watcher = _Watcher(console.print, status)
        try:
            yield watcher
        finally:
            watcher.finish()


def _lines(happened: Happened) -> None:
    if isinstance(happened, Stage):
        print(happened.text, file=sys.stderr, flush=True)
    elif isinstance(happened, Detail):
        print(f"  {happened.text}", file=sys.stderr, flush=True)
    elif happened.kind not in ("creating", "unchanged", "removing"):
        said = f"  {happened.ref.name} {happened.kind}"
        print(
            f"{said}: {happened.detail}" if happened.detail else said, file=sys.stderr, flush=True
        )


class _Watcher:
    """Each stage turns while it lasts, and leaves a line with how long it took."""

    def __init__(self, say: Callable[[str], None], status: Status) -> None:
        self._say = say
        self._status = status
        self._stage = ""
        self._began = time.monotonic()

    def __call__(self, happened: Happened) -> None:
        if isinstance(happened, Stage):
            self.finish()
            self._stage = happened.text
            self._began = time.monotonic()
            self._status.update(happened.text)
        else:
            from rich.markup import escape

            if isinstance(happened, Detail):
                text = happened.text
            else:
                said = f"{happened.ref.name} {happened.kind}"
                text = f"{said}: {happened.detail}" if happened.detail else said
                if happened.kind == "resumed":  # what an interrupt has come to
                    self._say(text)
            self._status.update(f"{self._stage} [dim]{escape(text[:80])}[/dim]")

    def finish(self) -> None:
        """Leave the present stage's line."""
        if self._stage:
            took = time.monotonic() - self._began
            self._say(f"{self._stage} [dim]{took:.1f} s[/dim]")
        self._stage = ""
