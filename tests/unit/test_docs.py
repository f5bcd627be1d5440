"""The promises of the pages: commands, options, links, names and pool files are what they say."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import roost
from roost import specfile
from roost.cli import cli
from roost_node import settings

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "changelog.d" / "README.md"])

#: What stands once in docs/command.md, for every command that takes it.
EVERYWHERE = {"--name", "--engine", "--help", "-h"}


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _page(name: str) -> str:
    return (ROOT / name).read_text()


def _blocks(text: str, *languages: str) -> list[str]:
    """The fenced code blocks in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# --- the command --------------------------------------------------------------------------------


def _commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands())


def _options(command: click.Command) -> dict[str, str]:
    """Each spelling of each option, and the word for its value (empty for a flag)."""
    return {
        spelling: "" if option.is_flag else str(option.metavar)
        for option in command.params
        if isinstance(option, click.Option)
        for spelling in (*option.opts, *option.secondary_opts)
    }


def _sections() -> dict[tuple[str, ...], tuple[str, str]]:
    """docs/command.md: a command's words → its heading and its text."""
    parts = re.split(r"^### roost (.*)$", _page("docs/command.md"), flags=re.MULTILINE)[1:]
    found = {}
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        words = tuple(itertools.takewhile(str.islower, heading.split()))
        found[words] = (heading, re.split(r"^## ", text, flags=re.MULTILINE)[0])
    return found


def _documented(text: str) -> dict[str, str]:
    """Options in the first column of a table, as `-x VALUE`."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `-")]
    spans = [span.split() for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return {span[0]: " ".join(span[1:]) for span in spans}


def test_every_command_is_documented_and_no_other() -> None:
    assert set(_sections()) == set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_commands_section_is_right(words: tuple[str, ...]) -> None:
    heading, text = _sections()[words]
    command = COMMANDS[words]
    usage = command.collect_usage_pieces(click.Context(command))
    assert heading.split()[len(words) :] == [word for word in usage if word != "[OPTIONS]"]
    own = {name: value for name, value in _options(command).items() if name not in EVERYWHERE}
    assert _documented(text) == own
    if {"--name", "--engine"} - set(_options(command)):
        assert "Takes neither `--name` nor `--engine`" in text


def _said(text: str) -> Iterator[str]:
    """Each `roost …` of a page: in code blocks for a shell, and in code within the prose."""
    for block in _blocks(text, "sh", "console"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            for part in re.split(r"\$\(|\)|;|&&|\|", line.split(" #")[0]):
                yield part.strip(' "').removeprefix("$ ")
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _prose(text)))


def _roosts() -> list[tuple[str, str]]:
    return sorted(
        {
            (_id(page), said.removeprefix(".venv/bin/"))
            for page in PAGES
            for said in _said(page.read_text())
            if re.match(r"(\.venv/bin/)?roost [a-z-]", said)
        }
    )


def _resolved(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line names, and the words after it."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            return command, words
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, f"`{line}`: there is no such command"
        command = found
    return command, words


def test_there_are_commands_to_look_at() -> None:
    said = {line for page, line in _roosts() if page == "README.md"}
    assert {"roost down", "roost env", "roost doctor"} <= said


@pytest.mark.parametrize(("page", "line"), _roosts())
def test_what_a_page_says_to_type_exists(page: str, line: str) -> None:
    command, words = _resolved(line)
    own = itertools.takewhile(lambda word: word != "--", words)
    flags = {word.partition("=")[0] for word in own if re.match(r"--?[a-z]", word)}
    assert flags <= {*_options(command), "--help", "-h", "--version"}, f"{page}: {line}"


@pytest.mark.parametrize("line", ["roost nosuch", "roost image nosuch"])
def test_a_command_that_is_not_there_would_be_found(line: str) -> None:
    with pytest.raises(AssertionError, match="no such command"):
        _resolved(line)


# --- the node -----------------------------------------------------------------------------------


def _node_help(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        settings.parse(["--help"])
    return capsys.readouterr().out


def test_every_option_of_a_node_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    # `  -S, --join-token FILE   what it means`
    shown = [line for line in _node_help(capsys).splitlines() if line.startswith("  -")]
    spelled = {name for line in shown for name in re.findall(r"(?<=\s)--?[A-Za-z][a-z-]*", line)}
    table = _page("docs/node.md").partition("## Options")[2].partition("## Inside")[0]
    assert set(_documented(table.replace(r"\|", "/"))) == spelled


def test_every_command_inside_a_node_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    offered = set(re.findall(r"^  roost-node ([a-z-]+)", _node_help(capsys), re.MULTILINE))
    assert {"health", "approve"} <= offered
    for page in PAGES:
        assert set(re.findall(r"roost-node ([a-z][a-z-]*)", page.read_text())) <= offered, page
    table = set(re.findall(r"^\| `roost-node ([a-z-]+)", _page("docs/node.md"), re.MULTILINE))
    assert table == offered


# --- the library, the layers, the pool files ----------------------------------------------------


def test_every_public_name_is_documented() -> None:
    page = _page("docs/library.md")
    assert [name for name in roost.__all__ if not re.search(rf"\b{name}\b", page)] == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_python_on_a_page_compiles_and_imports_what_is_there(page: Path) -> None:
    for block in _blocks(page.read_text(), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "roost":
                assert {alias.name for alias in node.names} <= set(roost.__all__)


def test_the_methods_of_pool_on_its_page_exist() -> None:
    said = set(re.findall(r"\b[Pp]ool\.([a-z_]+)", _page("docs/library.md"))) - {"yaml"}
    assert said
    assert {name for name in said if not hasattr(roost.Pool, name)} == set()


def test_the_layers_on_their_page_are_the_ones_that_are_checked() -> None:
    contracts = tomllib.loads(_page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    drawn = "".join(f"{layer.replace('roost.', '')}\n" for layer in layers)
    assert drawn in _blocks(_page("docs/architecture.md"), "")


def _pool_files() -> list[tuple[str, str]]:
    return [(_id(page), block) for page in PAGES for block in _blocks(page.read_text(), "yaml")]


def test_there_are_pool_files_to_look_at() -> None:
    assert "README.md" in dict(_pool_files())


@pytest.mark.parametrize(("page", "text"), _pool_files())
def test_a_pool_file_on_a_page_is_one(page: str, text: str) -> None:
    assert specfile.parse(text, page).execute


# --- links --------------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the forges make them."""
    headings = re.findall(r"^#+ (.*)$", _prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{_id(page)}: {target} leads nowhere"
        if anchor:
            assert anchor in _anchors(there), f"{_id(page)}: {target} has no such heading"


def test_the_licence_is_the_one_that_is_declared() -> None:
    declared = tomllib.loads(_page("pyproject.toml"))["project"]["license"]
    assert declared == "Apache-2.0"
    assert "Apache License" in _page("LICENSE")
    assert "Version 2.0, January 2004" in _page("LICENSE")
