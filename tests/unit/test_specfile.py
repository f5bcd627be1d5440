"""The pool file: every problem at once, each with its place and advice; never a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from roost.errors import PoolFileError
from roost.spec import Execute, PoolSpec
from roost.specfile import MAX_BYTES, Overrides, load, parse, schema

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(PoolFileError) as caught:
        parse(text, "pool.yaml")
    assert caught.value.source == "pool.yaml"
    assert str(caught.value).startswith("pool.yaml: ")
    return caught.value.problems


def loaded(
    text: str | None,
    tmp_path: Path,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
) -> PoolSpec:
    path = None
    if text is not None:
        path = tmp_path / "pool.yaml"
        path.write_text(text)
    return load(path, environ=environ or {}, overrides=overrides)


def test_a_whole_file() -> None:
    spec = parse(
        """
name: physics
engine: podman
htcondor: {release: forky}
master: {cpus: 1, memory: 1GiB}
submit: {users: [john, mary]}
execute:
  - {name: cpu, count: 4, cpus: 1, memory: 2GiB}
  - {name: big, count: 0, cpus: 2.5}
network: {name: calinet1}
config: |
  UPDATE_INTERVAL = 60
""",
        "pool.yaml",
    )
    assert (spec.name, spec.engine, spec.htcondor.release) == ("physics", "podman", "forky")
    assert (spec.master.cpus, spec.master.memory) == (1.0, 2**30)
    assert spec.submit.users == ("john", "mary")
    assert [(g.name, g.count, g.cpus) for g in spec.execute] == [("cpu", 4, 1.0), ("big", 0, 2.5)]
    assert spec.execute[0].memory == 2 * 2**30
    assert spec.network.name == "calinet1"
    assert spec.config == "UPDATE_INTERVAL = 60\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("execute:\n- {}\n- {memmory: 2GiB}",
         "line 3: execute[1].memmory is unknown; did you mean memory?"),
        ("users: [john]", "line 1: users is unknown; did you mean submit.users?"),
        ("users: [a]", "line 1: users is unknown; did you mean submit.users?"),
        ("htcondor: {realease: x}",
         "line 1: htcondor.realease is unknown; did you mean release?"),
        ("colour: red", "line 1: colour is unknown; choose from name, engine, htcondor, master, "
         "submit, execute, security, network, hosts, data, data_urls, marathon, kubernetes, "
         "config"),
        ("htcondor: {release: trixy}", "line 1: htcondor.release is 'trixy'; did you mean trixie?"),
        ("engine: lxc",
         "line 1: engine is 'lxc'; choose from docker, podman, kubernetes, marathon"),
        ("engine: [docker]",
         "line 1: engine is a list; choose from docker, podman, kubernetes, marathon"),
        ("name: 3", "line 1: name is 3; put it in quotes"),
        ("name: true", "line 1: name is true; put it in quotes"),
        ("name:", "line 1: name is empty; write text"),
        ("name: My Pool", "line 1: name is 'My Pool'; use a-z, 0-9 and -, a letter first and no - "
         "last, at most 32 characters"),
        ("execute: {name: cpu}",
         "line 1: execute is a mapping; write a list, each item behind a `-`"),
        ("execute:\n- cpu", "line 2: execute[0] is 'cpu'; write keys and values, or remove it: "
         "its keys are name, count, cpus, memory"),
        ("submit:", "line 1: submit is empty; write keys and values, or remove it: "
         "its keys are users, lease, cpus, memory"),
        ("submit: {users: []}",
         "line 1: submit.users is an empty list; name at least one, or remove it"),
        ("submit: {users: john}",
         "line 1: submit.users is 'john'; write a list, each item behind a `-`"),
        ("submit: {users: [root]}", "line 1: submit.users[0] is 'root', a name of the pool's or "
         "the system's own; choose another"),
        ("master: {count: 3}", "line 1: master.count is 3; the most is 2"),
        ("master: {count: 0}", "line 1: master.count is 0; the least is 1"),
        ("execute:\n- count: -1", "line 2: execute[0].count is -1; the least is 0"),
        ("execute:\n- count: 1.5", "line 2: execute[0].count is 1.5; write a whole number"),
        ("execute:\n- count: 010", "line 2: execute[0].count is '010'; write a whole number"),
        ("execute:\n- count: 4000", "line 2: execute[0].count is 4000; the most is 1000"),
        ("execute:\n- cpus: true", "line 2: execute[0].cpus is true; write a number"),
        ("execute:\n- cpus: 0", "line 2: execute[0].cpus is 0; the least is 0.01"),
        ("execute:\n- memory: 4", "line 2: execute[0].memory is 4, in bytes if no unit stands "
         "there; the least is 128MiB"),
        ("execute:\n- memory: 2XB", "line 2: execute[0].memory is '2XB', not a size; write it as "
         "512MiB or 2GiB"),
        ("execute: [{name: a}, {name: a}]",
         "line 1: execute has the name 'a' twice; give each group its own name"),
        ("network: {name: host}", "line 1: network.name is 'host', not a network where nodes find "
         "each other by name; make one with the engine, or leave it out and roost makes one"),
        ("network: calinet1", "line 1: network is 'calinet1'; write keys and values, or remove it: "
         "its keys are name, master"),
        ("name: a\nname: b", "line 2: name stands twice, first in line 1; remove one"),
        ("execute:\n- count: 1\n  cpus: 1\n  count: 2",
         "line 4: execute[0].count stands twice, first in line 2; remove one"),
        ("3: x", "the pool has the key 3, which is not text"),
        ("<<: {name: a}", "line 1: << is unknown; choose from name, engine, htcondor, master, "
         "submit, execute, security, network, hosts, data, data_urls, marathon, kubernetes, "
         "config"),
        ("a: [1\nb: 2", "line 2 is not YAML: while parsing a flow sequence, expected ',' or ']', "
         "but got ':'"),
        ("\tname: a", "line 1 is not YAML: while scanning for the next token, found character "
         "'\\t' that cannot start any token"),
        ("{}\n---\n{}", "line 2 is not YAML: expected a single document in the stream, but found "
         "another document"),
        ("x: *y", "line 1 is not YAML: found undefined alias 'y'"),
        ("ok: 1\nx: \x01", "line 2 holds the character U+0001; remove it"),
        ("", "is empty; write at least `name: mypool`, or give no file to have the defaults"),
        ("# nothing\n", "is empty; write at least `name: mypool`, or give no file to have the "
         "defaults"),
        ("- name: a", "is a list; it must hold keys and values such as `name: mypool`"),
        ("pool", "is 'pool'; it must hold keys and values such as `name: mypool`"),
        ("name: " + "[" * 5000, "is nested too deeply for a pool file"),
    ],
)  # fmt: skip
def test_each_problem_is_one_sentence(text: str, sentence: str) -> None:
    assert problems(text) == (sentence,)


def test_all_problems_are_reported_together_in_the_order_of_the_file() -> None:
    found = problems(
        "execute:\n- {count: -1}\n- {name: b, memmory: 2GiB}\nhtcondor: {release: x}\nnaem: a\n"
        "submit: {users: [Bob, exec-1]}\n"
    )
    assert [re.sub(r" is .*", "", problem) for problem in found] == [
        "line 2: execute[0].count",
        "line 3: execute[1].memmory",
        "line 4: htcondor.release",
        "line 5: naem",
        "line 6: submit.users[0]",
        "line 6: submit.users[1]",
    ]


@pytest.mark.parametrize("word", ["no", "on", "off", "yes", "y", "n"])
def test_words_that_yaml_1_1_took_for_truth_values_are_words(word: str) -> None:
    assert parse(f"name: {word}", "pool.yaml").name == word


def test_a_size_may_look_like_anything_yaml_1_1_would_have_read() -> None:
    assert "'1:30', not a size" in problems("execute: [{memory: 1:30}]")[0]
    assert "'2001-01-01'; use a-z" in problems("name: 2001-01-01")[0]


def test_aliases_are_allowed() -> None:
    spec = parse("master: &m {memory: 1GiB}\nsubmit: *m", "pool.yaml")
    assert spec.master.memory == spec.submit.memory == 2**30


def test_odd_keys_do_not_break_the_sentence() -> None:
    (found,) = problems(f'"a\\nb{"x" * 100}": 1')
    assert "\n" not in found
    assert len(found) < 200


# Files.


def test_without_a_file_every_key_has_its_default(tmp_path: Path) -> None:
    assert loaded(None, tmp_path) == PoolSpec()


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert load(path, environ={}).name == "a"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name: a\nconfig: \xff\n", "line 2 is not UTF-8 text; save the file as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1 MiB"),
    ],
)
def test_files_that_are_no_pool_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "pool.yaml"
    path.write_bytes(content)
    with pytest.raises(PoolFileError, match=re.escape(sentence)):
        load(path, environ={})


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, sentence in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing.yaml", "does not exist"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        with pytest.raises(PoolFileError, match=sentence) as caught:
            load(path, environ={})
        assert caught.value.exit_status == 2


# Flags and environment.


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    environ = {"ROOST_POOL": "env"}
    assert loaded("name: file", tmp_path).name == "file"
    assert loaded("name: file", tmp_path, environ={"ROOST_POOL": ""}).name == "file"
    assert loaded("name: file", tmp_path, environ=environ).name == "env"
    assert loaded("name: file", tmp_path, Overrides(name="flag"), environ).name == "flag"


def test_flags_change_the_only_group_and_leave_the_rest(tmp_path: Path) -> None:
    flags = Overrides(
        executors=3, cpus=2, memory="4GiB", engine="podman", release="forky", network="net1"
    )
    text = "execute: [{name: cpu, count: 9}]\nhtcondor: {image: own}\nsubmit: {users: [john]}"
    spec = loaded(text, tmp_path, flags)
    assert spec.execute == (Execute(name="cpu", count=3, cpus=2.0, memory=2**32),)
    assert (spec.engine, spec.network.name) == ("podman", "net1")
    assert (spec.htcondor.release, spec.htcondor.image) == ("forky", "own")
    assert spec.submit.users == ("john",)


@pytest.mark.parametrize("text", [None, "name: a", "execute: []", "execute: [{}]"])
def test_flags_make_the_group_that_the_file_does_not_name(text: str | None, tmp_path: Path) -> None:
    assert loaded(text, tmp_path, Overrides(executors=2)).execute == (Execute(count=2),)


def test_with_several_groups_a_flag_says_which_it_could_mean(tmp_path: Path) -> None:
    with pytest.raises(PoolFileError) as caught:
        loaded("execute: [{name: cpu}, {name: gpu, cuont: 1}]", tmp_path, Overrides(executors=2))
    assert caught.value.problems == (
        "--executors does not say which group of executors it means (cpu, gpu); "
        "set count of a group in the file",
        "line 1: execute[1].cuont is unknown; did you mean count?",
    )


def test_a_wrong_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    flags = Overrides(
        name="A", executors=-1, cpus=0, memory="lots", engine="dokcer", release="sid", network=""
    )
    with pytest.raises(PoolFileError) as caught:
        loaded("execute: [{count: 1}]", tmp_path, flags)
    found = [problem.split()[0] for problem in caught.value.problems]
    assert sorted(found) == [
        "--cpus", "--engine", "--executors", "--memory", "--name", "--network", "--release"
    ]  # fmt: skip
    assert "--engine is 'dokcer'; did you mean docker?" in caught.value.problems
    with pytest.raises(PoolFileError, match="ROOST_POOL is 'A'"):
        loaded(None, tmp_path, environ={"ROOST_POOL": "A"})


@pytest.mark.parametrize("text", ["execute: 3", "execute: [3]", "network: x", "execute: {a: 1}"])
def test_a_flag_does_not_hide_what_is_wrong_in_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(PoolFileError, match=r"line 1: (execute|network)"):
        loaded(text, tmp_path, Overrides(executors=1, network="n"))


# Anything.

KEYS = ["name", "engine", "htcondor", "release", "image", "master", "submit", "users", "cpus",
        "memory", "execute", "count", "network", "config"]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=8),
    st.dates(),
    st.sampled_from(["roost", "docker", "2GiB", "1:30", "0o17", ".inf", "<<", "host"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), SCALARS), inner, max_size=4),
        st.sets(st.text(max_size=3), max_size=2),
    ),
    max_leaves=12,
)


def _only_a_spec_or_an_error(text: str) -> None:
    try:
        assert isinstance(parse(text, "pool.yaml"), PoolSpec)
    except PoolFileError as error:
        assert error.problems
        assert all(problem and "\n" not in problem for problem in error.problems)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | VALUES)
def test_any_value_gives_a_spec_or_a_pool_file_error(value: Any) -> None:
    _only_a_spec_or_an_error(yaml.safe_dump(value))


@given(st.text())
@example("a: !!int x")
@example("a: !!timestamp 2001-99-99")
@example("a: !!float ''")
@example("a: !!bool x")
@example("a: !!binary ä")
@example("a: !!python/name:os.system")
@example("? [a]\n: b")
@example("&a [*a]")
@example("execute: &a [*a]")
@example("&a {<<: *a}")
@example("&a {!!merge x: *a}")
@example("submit: !!set {users}")
@example("config: &a\n  *a : 1")
@example('config: "\\ud800"')
@example("execute: !!omap [name: a]")
def test_any_text_gives_a_spec_or_a_pool_file_error(text: str) -> None:
    _only_a_spec_or_an_error(text)


@given(
    st.builds(
        Overrides,
        name=st.none() | st.text(),
        executors=st.none() | st.integers(),
        cpus=st.none() | st.floats(),
        memory=st.none() | st.text() | st.integers(),
        engine=st.none() | st.text(),
        release=st.none() | st.text(),
        network=st.none() | st.text(),
    )
)
def test_any_flags_give_a_spec_or_a_pool_file_error(overrides: Overrides) -> None:
    try:
        assert isinstance(load(None, environ={}, overrides=overrides), PoolSpec)
    except PoolFileError as error:
        assert all(problem.startswith("--") for problem in error.problems)


# The published schema, the examples, the page.


def test_the_published_schema_is_the_models() -> None:
    published = json.loads((ROOT / "docs" / "pool.schema.json").read_text())
    assert published == schema(), "run: .venv/bin/roost schema > docs/pool.schema.json"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_key_of_the_schema_is_described() -> None:
    models = (schema(), *schema()["$defs"].values())
    for model in models:
        assert model["description"]
        for key, value in model["properties"].items():
            assert value.get("description") or "$ref" in value, key


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_fit_the_schema_and_load(path: Path) -> None:
    jsonschema.validate(
        yaml.safe_load(path.read_text()), schema(), cls=jsonschema.Draft202012Validator
    )
    assert load(path, environ={}).name != "roost"


@pytest.mark.parametrize(
    "text",
    ["colour: 1", "name: A", "execute: [{count: -1}]", "execute: [{memory: 2XB}]", "engine: x",
     "submit: {users: []}", "execute: [{cpus: '2'}]", "name: 3"],
)  # fmt: skip
def test_the_schema_refuses_what_roost_refuses(text: str) -> None:
    assert problems(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())


def _keys(model: type[BaseModel], prefix: str) -> dict[str, object]:
    """Every key below `model`, as the page writes it, and its default."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found |= _keys(type(default), f"{prefix}{name}.")
        elif isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
            found |= _keys(type(default[0]), f"{prefix}{name}[].")
        else:
            found[prefix + name] = default
    return found


def _written(default: object) -> str:
    if default is None or default == "":
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`"
    if default == 2**30:
        return "`1GiB`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_page_has_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "pool-file.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    assert rows == {key: _written(value) for key, value in _keys(PoolSpec, "").items()}


def test_the_pages_example_loads() -> None:
    page = (ROOT / "docs" / "pool-file.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        parse(block, "docs/pool-file.md")
