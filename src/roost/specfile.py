"""pool.yaml, the environment and flags → PoolSpec; all problems reported together.

A flag wins over `ROOST_POOL` and `MARATHON_URL`, which win over the file, which wins over the
defaults.

YAML is read as YAML 1.2 defines it: `no`, `on`, `010` and `1:30` are text, not truth values,
octal numbers or sexagesimal ones; merge keys (`<<`) do not exist; a key may stand once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from roost.data import BACKEND_PATTERN, HOST_PATTERN, OPTION_PATTERN, TYPES
from roost.errors import PoolFileError
from roost.spec import (
    AGENT_PATTERN,
    CONTEXT_PATTERN,
    DOCKER_PATTERN,
    DOMAIN_PATTERN,
    IMAGE_PATTERN,
    MAX_MEMORY,
    MIN_MEMORY,
    NAME_PATTERN,
    NETWORK_PATTERN,
    OBJECT_PATTERN,
    URL_PATTERN,
    USER_PATTERN,
    PoolSpec,
)

#: The environment's word for the pool's name.
POOL_VARIABLE: Final = "ROOST_POOL"
#: The environment's word for where Marathon is.
MARATHON_VARIABLE: Final = "MARATHON_URL"
MAX_BYTES: Final = 2**20

_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Overrides:
    """What flags say; None where a flag was not given."""

    name: str | None = None
    executors: int | None = None
    """The count of the only group."""
    cpus: float | None = None
    """CPUs of each executor of the only group."""
    memory: str | int | None = None
    """Memory of each executor of the only group, in bytes or as `2GiB`."""
    engine: str | None = None
    release: str | None = None
    network: str | None = None
    url: str | None = None
    """Where Marathon is."""


#: Where each flag's value belongs.
_FLAG_PATH: Final[dict[str, _Path]] = {
    "name": ("name",),
    "executors": ("execute", 0, "count"),
    "cpus": ("execute", 0, "cpus"),
    "memory": ("execute", 0, "memory"),
    "engine": ("engine",),
    "release": ("htcondor", "release"),
    "network": ("network", "name"),
    "url": ("marathon", "url"),
}


def load(
    path: Path | None, *, environ: Mapping[str, str], overrides: Overrides | None = None
) -> PoolSpec:
    """The pool that the file describes, as the environment and flags change it.

    Without a file every key has its default. Raises PoolFileError with every problem found.
    """
    source = str(path) if path else "the pool"
    node, data = _parse(_read(path), source) if path else (None, {})
    given = overrides or Overrides()
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    named = {_FLAG_PATH[flag]: f"--{flag}" for flag, value in values.items() if value is not None}
    if values["name"] is None and environ.get(POOL_VARIABLE):
        values["name"] = environ[POOL_VARIABLE]
        named["name",] = POOL_VARIABLE
    if values["url"] is None and "marathon" in (values["engine"], data.get("engine")):
        values["url"] = environ.get(MARATHON_VARIABLE) or None
        named["marathon", "url"] = MARATHON_VARIABLE
    problems = []
    for flag, value in values.items():
        if value is None:
            continue
        at = _FLAG_PATH[flag]
        groups = data.get("execute")
        if at[0] == "execute" and isinstance(groups, list) and len(groups) > 1:
            names = ", ".join(_group_name(group) for group in groups)
            problems.append(
                f"--{flag} does not say which group of executors it means ({names}); "
                f"set {at[-1]} of a group in the file"
            )
            del named[at]
        else:
            data = _with(data, at, value)
    return _validated(data, source, node, named, problems)


def parse(text: str, source: str) -> PoolSpec:
    """The pool that `text` describes; `source` names it in errors. Raises PoolFileError."""
    node, data = _parse(text, source)
    return _validated(data, source, node, {}, [])


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a pool file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PoolSpec.model_json_schema(),
        "title": "pool.yaml",
    }


# Text to values.


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, as far as a pool file needs it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,30})", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)"
              r"|\.(nan|NaN|NAN)", "-+.0123456789"),
):  # fmt: skip
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first)
    )


def _read(path: Path) -> str:
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        problem = "does not exist; give the path of a pool file, or none to have the defaults"
    except IsADirectoryError:
        problem = "is a directory; give the path of a pool file in it"
    except PermissionError:
        problem = "may not be read; change its permissions"
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        if len(content) > MAX_BYTES:
            problem = "is larger than 1 MiB, which no pool file is; give the path of a pool file"
        else:
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = content[: error.start].count(b"\n") + 1
                problem = f"line {line} is not UTF-8 text; save the file as UTF-8"
    raise PoolFileError(source, [problem])


def _parse(text: str, source: str) -> tuple[yaml.Node, dict[Any, Any]]:
    """The file's mapping, and the nodes that know its line numbers."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        twice = list(_twice(node, (), set())) if node else []
        data = loader.construct_document(node) if node and not twice else None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PoolFileError(
            source, [f"line {line} holds the character U+{error.character:04X}; remove it"]
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1} " if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise PoolFileError(source, [f"{where}is not YAML: {what}"]) from None
    except RecursionError:
        raise PoolFileError(source, ["is nested too deeply for a pool file"]) from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        # PyYAML lets whatever an explicit tag's constructor raises pass: `!!int x`.
        raise PoolFileError(source, [f"is not YAML: {error}"]) from None
    if twice:
        raise PoolFileError(source, twice)
    if node is None or data is None:
        raise PoolFileError(
            source,
            ["is empty; write at least `name: mypool`, or give no file to have the defaults"],
        )
    if not isinstance(data, dict):
        raise PoolFileError(
            source, [f"is {_show(data)}; it must hold keys and values such as `name: mypool`"]
        )
    return node, data


def _twice(node: yaml.Node, at: _Path, seen: set[int]) -> Iterator[str]:
    """A sentence for each key that stands twice. `seen` ends the recursion of aliases."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _twice(item, (*at, index), seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                there = (*at, str(key.value))
                if key.value in first:
                    yield (
                        f"line {line}: {_place(there)} stands twice, first in line "
                        f"{first[key.value]}; remove one"
                    )
                first.setdefault(key.value, line)
                yield from _twice(value, there, seen)


# Values to a spec.


def _with(data: Mapping[Any, Any], at: _Path, value: object) -> dict[Any, Any]:
    """`data` with `value` put `at` its place; where something odd stands in the way, as it was."""
    head, *rest = at
    if not rest:
        return {**data, head: value}
    inner = data.get(head)
    if rest[0] == 0:
        groups = inner if isinstance(inner, list) and inner else [{}]
        if (head in data and not isinstance(inner, list)) or not isinstance(groups[0], dict):
            return dict(data)
        return {**data, head: [_with(groups[0], tuple(rest[1:]), value), *groups[1:]]}
    if head in data and not isinstance(inner, dict):
        return dict(data)
    return {**data, head: _with(inner or {}, tuple(rest), value)}


def _group_name(group: object) -> str:
    name = group.get("name", "execute") if isinstance(group, dict) else group
    return name if isinstance(name, str) else _show(name)


def _validated(
    data: Mapping[Any, Any],
    source: str,
    node: yaml.Node | None,
    named: Mapping[_Path, str],
    problems: Sequence[str],
) -> PoolSpec:
    try:
        spec = PoolSpec.model_validate(dict(data))
    except ValidationError as error:
        found = sorted(
            (_problem(detail, node, named) for detail in error.errors(include_url=False)
             if not (detail["type"] == "too_short" and detail["input"])),  # its items say more
            key=lambda problem: problem[0],
        )  # fmt: skip
        raise PoolFileError(source, [*problems, *(sentence for _, sentence in found)]) from None
    if problems:
        raise PoolFileError(source, problems)
    return spec


def _problem(
    detail: ErrorDetails, node: yaml.Node | None, named: Mapping[_Path, str]
) -> tuple[int, str]:
    """Its line (0 if it has none) and what is wrong, where, and what to do.

    `line 7: execute[1].memmory is unknown; did you mean memory?`
    """
    at = tuple(detail["loc"])
    if detail["type"] == "invalid_key" or at[-1:] == ("[key]",):
        at = at[:-1]
    if at[:1] == ("data",):
        at = at[:2] + at[3:]  # pydantic names the type there, which no file does
    flag = named.get(at)
    line = 0 if flag or node is None else _line(node, at)
    where = flag or _place(at) or "the pool"
    explain = _EXPLAIN.get(detail["type"], _otherwise)
    return line, f"{f'line {line}: ' if line else ''}{where} {explain(detail)}"


def _line(node: yaml.Node, at: _Path) -> int:
    """The line on which the deepest part of `at` that the file holds begins; 0 for the whole."""
    line = 0
    for step in at:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(step)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                break
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _place(at: _Path) -> str:
    """`execute[1].memory`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_short(step)}" for step in at)
    return "".join(steps).removeprefix(".")


def _short(text: str) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 40 else f"{text[:40]}…"


def _show(value: object) -> str:
    """A value in a sentence, as YAML would call it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, str):
        return f"'{_short(value)}'"
    if isinstance(value, bool):
        return json.dumps(value)
    return _short(str(value)) if isinstance(value, float) or _small(value) else "a huge number"


def _small(value: object) -> bool:
    """Whether str() of it is cheap and permitted."""
    return not isinstance(value, int) or abs(value) < 10**40


def _model_at(at: _Path) -> type[BaseModel] | None:
    """The model of which the thing at `at` is an instance."""
    model: type[BaseModel] = PoolSpec
    if at[:1] == ("data",) and len(at) > 2:
        model, at = TYPES[str(at[2])], at[3:]
    for step in at:
        if isinstance(step, str):
            field = model.model_fields.get(step)
            kinds = (field.annotation, *get_args(field.annotation)) if field else ()
            inner = next(
                (k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None
            )
            if inner is None:
                return None
            model = inner
    return model


def _keys_elsewhere() -> Iterator[tuple[str, str]]:
    """Each key below the top, and its place."""
    for section in PoolSpec.model_fields:
        inner = _model_at((section,))
        for key in inner.model_fields if inner else ():
            yield key, f"{section}[…].{key}" if section == "execute" else f"{section}.{key}"


def _unknown(detail: ErrorDetails) -> str:
    at = tuple(detail["loc"])
    model = _model_at(at[:-1])
    known = list(model.model_fields) if model else []
    key = str(at[-1])
    close = difflib.get_close_matches(key, known, n=1)
    elsewhere = [place for name, place in _keys_elsewhere() if name == key]
    if close:
        return f"is unknown; did you mean {close[0]}?"
    if elsewhere:
        return f"is unknown; did you mean {' or '.join(elsewhere)}?"
    return f"is unknown; choose from {', '.join(known)}"


def _not_a_choice(detail: ErrorDetails) -> str:
    expected = str(detail["ctx"]["expected"])
    choices = re.findall("'([^']*)'", expected) or [expected.lower()]
    value = detail["input"]
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f"is {_show(value)}; " + (
        f"did you mean {close[0]}?" if close else f"choose from {', '.join(choices)}"
    )


_PATTERN_ADVICE: Final = {
    NAME_PATTERN: "use a-z, 0-9 and -, a letter first and no - last, at most 32 characters",
    USER_PATTERN: "use a-z, 0-9, _ and -, a letter or _ first, at most 31 characters",
    IMAGE_PATTERN: "write it as name:tag",
    HOST_PATTERN: "write a host's name or address, with :port if need be",
    OPTION_PATTERN: "write an option's name",
    BACKEND_PATTERN: "write what rclone calls it: s3, webdav, sftp, http",
    DOMAIN_PATTERN: "write it as marathon.mesos",
    URL_PATTERN: "write it as http://HOST:PORT; a login belongs in ~/.netrc",
    OBJECT_PATTERN: "use up to 63 of a-z, 0-9, '-' and '.', as Kubernetes does",
    CONTEXT_PATTERN: "write it as `kubectl config get-contexts` does",
    AGENT_PATTERN: "write it as ssh://user@host",
    DOCKER_PATTERN: "write it as ssh://user@host, tcp://host:2376 or unix:///run/docker.sock",
    NETWORK_PATTERN: "use letters, digits, _, . and -, a letter or digit first",
}


def _limit(word: str, key: str) -> Callable[[ErrorDetails], str]:
    def explain(detail: ErrorDetails) -> str:
        limit = detail["ctx"][key]
        if limit in (MIN_MEMORY, MAX_MEMORY):
            size = "128MiB" if limit == MIN_MEMORY else "1024TiB"
            return f"is {_show(detail['input'])}, in bytes if no unit stands there; {word} {size}"
        return f"is {_show(detail['input'])}; {word} {limit:g}"

    return explain


def _must_be(what: str) -> Callable[[ErrorDetails], str]:
    def explain(detail: ErrorDetails) -> str:
        return f"is {_show(detail['input'])}; {what}"

    return explain


def _text(detail: ErrorDetails) -> str:
    value = detail["input"]
    scalar = isinstance(value, bool | int | float)
    return f"is {_show(value)}; " + ("put it in quotes" if scalar else "write text")


def _otherwise(detail: ErrorDetails) -> str:
    return f"is wrong: {detail['msg']}"


def _no_type(_: ErrorDetails) -> str:
    return f"has no type; choose from {', '.join(TYPES)}"


def _unknown_type(detail: ErrorDetails) -> str:
    tag = detail["ctx"]["tag"]
    close = difflib.get_close_matches(tag, TYPES, n=1)
    return f"has the type {_show(tag)}; " + (
        f"did you mean {close[0]}?" if close else f"choose from {', '.join(TYPES)}"
    )


def _fields_of(detail: ErrorDetails) -> Sequence[str]:
    model = _model_at(tuple(detail["loc"]))
    return list(model.model_fields) if model else []


_EXPLAIN: Final[Mapping[str, Callable[[ErrorDetails], str]]] = {
    "extra_forbidden": _unknown,
    "literal_error": _not_a_choice,
    "string_type": _text,
    "string_unicode": lambda _: "holds characters that are not Unicode text; remove them",
    "string_pattern_mismatch": lambda detail: (
        f"is {_show(detail['input'])}; {_PATTERN_ADVICE[detail['ctx']['pattern']]}"
    ),
    "value_error": lambda detail: str(detail["ctx"]["error"]),  # a predicate: see roost.spec
    "int_type": _must_be("write a whole number"),
    "float_type": _must_be("write a number"),
    "tuple_type": _must_be("write a list, each item behind a `-`"),
    "model_type": lambda detail: (
        f"is {_show(detail['input'])}; write keys and values, or remove it: "
        f"its keys are {', '.join(_fields_of(detail))}"
    ),
    "invalid_key": lambda detail: f"has the key {_show(detail['loc'][-1])}, which is not text",
    "union_tag_not_found": _no_type,
    "union_tag_invalid": _unknown_type,
    "model_attributes_type": _must_be("write keys and values, `type` among them"),
    "mapping_type": _must_be("write keys and values"),
    "dict_type": _must_be("write keys and values"),
    "missing": lambda _: "is missing",
    "bool_type": _must_be("write true or false"),
    "bool_parsing": _must_be("write true or false"),
    "none_required": _must_be("remove it"),
    "too_short": lambda _: "is an empty list; name at least one, or remove it",
    "greater_than_equal": _limit("the least is", "ge"),
    "less_than_equal": _limit("the most is", "le"),
}
