"""Generated pool files and node command lines: never a traceback, never a half-made pool.

    python tests/fuzz/fuzz.py [--seed S] [--count N]

Half of the inputs are pool files: through `roost up`, in this process, on an engine in memory that
fails while it makes the pool. Whatever the file says, the answer is one of roost's own sentences,
and nothing is left on the engine or on the disk. The other half are command lines of nodes: what
is accepted becomes a configuration in which no argument made a line of its own.

A failure says its seed and number: `--seed S --only NUMBER` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import yaml

from roost import cli
from roost.engines.fake import FakeEngine
from roost_node import roles, settings, supervisor
from roost_node.errors import BadInput

COUNT: Final = 10_000

# --- words ---------------------------------------------------------------------------------------

ODD: Final = (
    "", " ", "-", "--", ".", "..", "/", "a/b", "~", "\0", "\n", "a\nb", "\r", "\t", "'", '"',
    "`id`", "$(id)", "${HOME}", "$HOME", "%s", "{}", "[]", "*", "&a", "!!python/object:os.system",
    "ä", "名", "\u202e", "\ud800", "a" * 300, "A", "_", "-x", "x-", "1", "01", "0x10", "1e3",
    "1e999", "nan", "inf", "-1", "0", "null", "true", "no", "root", "condor", "reader", "cm-x",
    "slot1_1", "master", "1GiB", "0", "12 parsecs", "9" * 30, "256.1.1.1", "::1", "localhost",
    "a.b.c", "host", "bridge",
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**70, 0.5, -0.0, 1e308, float("inf"), float("nan"), [], {},
    [[]], [None], {"a": {"b": {}}}, ["john", "john"], b"\xff",
)  # fmt: skip


def word(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(ODD)
    length = rng.choice((1, 2, 3, 8, 33, 64))
    return "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250)))) for _ in range(length)
    )


def anything(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.45:
        return word(rng)
    if kind < 0.8 or depth > 3:
        return rng.choice(VALUES)
    if kind < 0.9:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {word(rng): anything(rng, depth + 1) for _ in range(rng.randrange(4))}


# --- pool files ----------------------------------------------------------------------------------


def good_pool(rng: random.Random) -> dict[str, Any]:
    """A pool file as people write them; now and then with a part left out."""
    groups = [
        {"name": name, "count": rng.randrange(4), "cpus": rng.choice((0.5, 1, 2)),
         "memory": rng.choice(("1GiB", "512m", 2**30))}
        for name in rng.sample(("cpu", "big", "gpu-2"), rng.randrange(1, 4))
    ]  # fmt: skip
    pool = {
        "name": rng.choice(("p", "physics", "a-b")),
        "engine": "docker",
        "htcondor": rng.choice(({}, {"release": "forky"}, {"image": "x/y:1"})),
        "master": {"memory": "1GiB"},
        "submit": {"users": rng.sample(("john", "mary", "u_1"), 2), "lease": "2min"},
        "execute": groups,
        "network": rng.choice(({}, {"name": "net1"})),
        "config": "UPDATE_INTERVAL = 30\n",
    }
    return {key: value for key, value in pool.items() if rng.random() < 0.8}


def spoil(rng: random.Random, value: Any) -> Any:
    """The same with one thing in it changed to anything."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.7:
            return value | {key: spoil(rng, value[key])}
        if change < 0.85:
            return value | {word(rng): anything(rng)}
        return {(word(rng) if k == key else k): v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], spoil(rng, value[place]), *value[place + 1 :]]
    return anything(rng)


def pool_file(rng: random.Random) -> bytes:
    """The bytes of a pool file: good, spoilt a little, or not even YAML."""
    pool: Any = good_pool(rng)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
        pool = spoil(rng, pool)
    try:
        data = yaml.safe_dump(pool, allow_unicode=rng.random() < 0.5).encode(errors="surrogatepass")
    except (UnicodeEncodeError, yaml.YAMLError):
        data = repr(pool).encode(errors="surrogatepass")
    for _ in range(rng.choice((0, 0, 0, 0, 1, 4))):
        place = rng.randrange(len(data) + 1)
        junk = rng.choice(
            (b"\0", b"\t", b"\xff\xfe", b"*a", b"&a ", b"? ", b"- ", b": ", b"{", b"]", b"|\n",
             b"%YAML 9\n", b"---\n", b"...\n", b"<<: ", b"!!binary ", b"'", b'"', b"\n",
             bytes([rng.randrange(256)]))
        )  # fmt: skip
        data = data[:place] + junk + data[place + rng.randrange(3) :]
    return data


def flags(rng: random.Random) -> list[str]:
    """Flags of `roost up`, most of them good."""
    found: list[str] = []
    for flag, values in (
        ("--executors", ("0", "1", "3", "-1", "x")), ("--cpus", ("1", "0", "nan", "1e9")),
        ("--memory", ("1GiB", "0", "x")), ("--release", ("forky", "x")),
        ("--network", ("net1", "host")), ("--name", ("p", "Q", "")),
    ):  # fmt: skip
        if rng.random() < 0.08:
            found += [flag, rng.choice(values) if rng.random() < 0.8 else word(rng)]
    return found


def try_pool_file(rng: random.Random, directory: Path) -> str:
    """Run `roost up` on a generated file; what happened. Raises AssertionError."""
    file = directory / "pool.yaml"
    file.write_bytes(pool_file(rng))
    engine = FakeEngine(fail_at=rng.randrange(1, 6))
    said, answered = io.StringIO(), io.StringIO()
    with (
        mock.patch("roost.pool._engine", return_value=engine),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(answered),
    ):
        status = cli.main(["up", str(file), *flags(rng)])
    text = said.getvalue()
    assert status in (1, 2), f"status {status}: {text}"
    assert "roost: unexpected" not in text, text
    assert "Traceback" not in text, text
    last = text[text.rindex("roost: ") :] if "roost: " in text else ""
    assert last.strip(), f"it said nothing: {text!r}"
    assert engine.pools() == [], f"left on the engine: {engine.pools()}"
    left = [path for path in (directory / "roost").rglob("*") if path.is_file()]
    assert not left, f"left on the disk: {left}"
    return "refused" if status == 2 else "undone"


# --- node command lines --------------------------------------------------------------------------

OPTIONS: Final = {
    "-c": ("/etc/x", "http://h/x"), "-k": ("/root/k",), "-u": ("john", "mary"),
    "-p": ("/dev/null",),
    "-C": ("ccb.example:9618", "10.0.0.1"), "-P": ("net", "lab.example"), "-S": ("/run/token",),
    "--join-token": ("/run/token",), "--pool": ("lab", "a-b"), "--cpus": ("1", "2.5"),
    "--memory": ("512", "2GiB"), "--lease": ("60", "2h"), "--health-port": ("8080", "0"),
    "--json-logs": (), "-h": (), "--bogus": ("x",),
}  # fmt: skip
FACTS: Final = roles.Facts(pool="lab", master_name="m", cpus=1, memory=1024, descriptors=1024)


def node_line(rng: random.Random) -> list[str]:
    argv: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 1, 0, 2))):
        role = rng.choice(("-m", "-s", "-e"))
        argv += [role] if role == "-m" else [role, _value(rng, ("m", "10.0.0.1", "lab-master"))]
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        option = rng.choice(list(OPTIONS))
        argv += [option, _value(rng, OPTIONS[option])] if OPTIONS[option] else [option]
    if rng.random() < 0.1:
        argv.insert(rng.randrange(len(argv) + 1), word(rng))
    if rng.random() < 0.05:
        rng.shuffle(argv)
    # The kernel gives a program no NUL; other bytes than UTF-8 come as lone surrogates.
    return [entry.replace("\0", "") for entry in argv]


def _value(rng: random.Random, good: tuple[str, ...]) -> str:
    return rng.choice(good) if rng.random() < 0.7 else word(rng)


def knobs(text: str) -> set[str]:
    """The names that a configuration sets."""
    return {
        line.partition("=")[0].strip() for line in re.split(r"[\r\n\v\f\x85]", text) if "=" in line
    }


def _known() -> set[str]:
    known: set[str] = set()
    for role in (["-m"], ["-s", "m"], ["-e", "m"]):
        line = [*role, "-C", "a", "-P", "b"]
        known |= knobs(roles.configuration(settings.parse(line, hostname="n"), FACTS))
    return known


KNOWN: Final = _known()


def try_node_line(rng: random.Random, _directory: Path) -> str:
    """Parse a generated command line, and write what it asks for. Raises AssertionError."""
    argv = node_line(rng)
    hostname = rng.choice(("n1", "n1.example.org", "0123456789ab", word(rng)))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            wanted = settings.parse(argv, hostname=hostname.replace("\0", ""))
    except BadInput as error:
        sentence = str(error)
        assert sentence.strip(), argv
        assert "\n" not in sentence, (argv, sentence)
        return "refused"
    except SystemExit as error:
        assert error.code in (0, None), (argv, error.code)
        assert {"-h", "--help"} & set(argv), argv
        return "helped"
    text = roles.configuration(wanted, FACTS)
    assert knobs(text) <= KNOWN, (argv, knobs(text) - KNOWN)
    text.encode(), supervisor.conf(wanted).encode()
    return "accepted"


# --- running -------------------------------------------------------------------------------------

TRIES: Final[tuple[Callable[[random.Random, Path], str], ...]] = (try_pool_file, try_node_line)


class Failure(AssertionError):
    """One input that was not answered as it should be."""


def outcomes(seed: int, numbers: range) -> Iterator[tuple[str, str]]:
    """The kind and the outcome of each input. Raises Failure."""
    with tempfile.TemporaryDirectory(prefix="roost-fuzz-") as home:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ROOST_")}
        with mock.patch.dict(os.environ, clean | {"XDG_STATE_HOME": home}, clear=True):
            for number in numbers:
                attempt = TRIES[number % len(TRIES)]
                rng = random.Random(f"{seed}/{number}")
                try:
                    yield attempt.__name__.removeprefix("try_"), attempt(rng, Path(home))
                except Exception as error:
                    raise Failure(
                        f"--seed {seed} --only {number}: {type(error).__name__}: {error}"
                    ) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input alone")
    given = parser.parse_args()
    numbers = range(given.count) if given.only is None else range(given.only, given.only + 1)
    print(f"seed {given.seed}", flush=True)
    began, counted = time.monotonic(), dict[tuple[str, str], int]()
    for outcome in outcomes(given.seed, numbers):
        counted[outcome] = counted.get(outcome, 0) + 1
    for (kind, what), count in sorted(counted.items()):
        print(f"{count:6}  {kind} {what}")
    print(f"{len(numbers)} inputs in {time.monotonic() - began:.0f} s, none answered wrongly")
    return 0


if __name__ == "__main__":
    sys.exit(main())
