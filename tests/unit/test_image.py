"""The image: what it is made of, and what a build does with an engine that obeys or fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest

from roost import _run
from roost._run import Completed
from roost.data import Extra
from roost.errors import CommandFailed, DiskFull, EngineUnavailable, ImageBuildFailed
from roost.image import build as image_build
from roost.image.build import build, images
from roost.image.recipe import (
    DOCKERFILE,
    SUITE,
    WHEELS,
    ImageSpec,
    begun_step,
    bootstrap_argv,
    build_argv,
    build_command,
    context_files,
    failing_step,
    is_disk_full,
    parse_version,
)
from roost.spec import IMAGES, Release

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / DOCKERFILE).read_text()


# --- the recipe: values -------------------------------------------------------------------------


def test_every_release_has_a_suite() -> None:
    assert set(SUITE) == set(get_args(Release))
    assert ImageSpec("lts").base == "debian:trixie-slim"
    assert ImageSpec("forky").name == f"{IMAGES}:forky"
    assert ImageSpec("forky", "mine:1").name == "mine:1"
    assert ImageSpec("forky", extras=("rclone", "sshfs")).name == f"{IMAGES}:forky-rclone-sshfs"
    assert ImageSpec(extras=("rclone",)).build_args("1")["WITH"] == "rclone"


def test_every_extra_is_installed_and_can_be_asked_for() -> None:
    script = (REPOSITORY / "src/roost/image/extras.sh").read_text()
    cases = re.findall(r"^    ([a-z |]+)\)", script, re.MULTILINE)
    assert sorted(" | ".join(cases).split(" | ")) == sorted(get_args(Extra))
    assert build_command("trixie", ("rclone", "sshfs")) == (
        "roost image build --release trixie --with rclone --with sshfs"
    )


def test_the_dockerfile_knows_every_build_argument() -> None:
    declared = set(re.findall(r"^ARG (\w+)", TEXT, re.MULTILINE))
    assert declared == set(ImageSpec().build_args("0.1.0"))


def test_what_the_dockerfile_copies_is_in_the_context() -> None:
    context = dict(image_build_context())
    for source in re.findall(r"^COPY (src/\S+)", TEXT, re.MULTILINE):
        assert any(name == source or name.startswith(f"{source}/") for name in context)
    assert DOCKERFILE in context
    assert not [name for name in context if "__pycache__" in name]


def image_build_context() -> Mapping[str, tuple[bytes, int]]:
    """The context of this checkout, read as roost reads it from an installed wheel."""
    return context_files(
        dict(image_build._package_files(files("roost_node"))),
        dict(image_build._package_files(files("roost.image"))),
    )


def test_the_context_is_written_alike_every_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    image_build._write(str(first))
    image_build._write(str(second))

    def described(root: Path) -> list[tuple[str, int, float]]:
        found = sorted(root.rglob("*"))
        return [(str(p.relative_to(root)), p.stat().st_mode, p.stat().st_mtime) for p in found]

    assert described(first) == described(second)
    assert (first / "src/roost/image/roost-node").stat().st_mode & 0o777 == 0o755
    assert (first / "src/roost_node/vocab.py").stat().st_mode & 0o777 == 0o644


def test_nothing_in_the_dockerfile_needs_buildkit() -> None:
    assert "--mount" not in TEXT
    assert "<<" not in TEXT
    assert "--chmod" not in TEXT
    assert "# syntax" not in TEXT


def test_podman_keeps_the_health_check() -> None:
    assert "--format" in build_argv("podman", {}, "/context", "/id")
    assert "--format" not in build_argv("docker", {}, "/context", "/id")


def test_only_the_unreleased_suite_may_be_past_its_date() -> None:
    assert any("Check-Valid-Until" in word for word in bootstrap_argv("forky", "x.tar"))
    assert not any("Check-Valid-Until" in word for word in bootstrap_argv("trixie", "x.tar"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["Step 3/9 : FROM x", " ---> 1", "Step 4/9 : RUN y", "\x1b[91mE: broken\x1b[0m", ""],
         "Step 4/9 : RUN y: E: broken"),
        (["STEP 2/9: RUN z", "error: no"], "STEP 2/9: RUN z: error: no"),
        (["#5 [build 2/4] RUN z", "#5 0.2 E: no"], "#5 [build 2/4] RUN z: #5 0.2 E: no"),
        (["no such file: Dockerfile"], "no such file: Dockerfile"),
        ([], "it said nothing"),
    ],
)  # fmt: skip
def test_the_failing_step_is_quoted(lines: list[str], said: str) -> None:
    assert failing_step(lines) == said


def test_only_steps_that_take_time_are_shown() -> None:
    step = "Step 7/21 : RUN install"
    assert begun_step(step, " ---> Running in 1") == step
    assert begun_step(step, " ---> Using cache") == ""
    assert begun_step("STEP 3/9: RUN x", "--> Using cache 12ab") == ""
    assert begun_step("#5 [build 2/4] RUN z", "#5 CACHED") == ""
    assert begun_step("", step) == ""


def test_messages_and_versions_are_understood() -> None:
    assert is_disk_full("write /x: No space left on device")
    assert not is_disk_full("E: Unable to locate package condor")
    assert parse_version("$CondorVersion: 25.14.1 2026-10-16 PackageID: 25.14.1 $") == "25.14.1"
    assert parse_version("sh: condor_version: not found") == ""


# --- the build, on an engine that is a dictionary -------------------------------------------------


class FakeEngine:
    """Builds instantly: an image's id is what it was built from."""

    def __init__(self) -> None:
        self.installed = "23.9.6"
        self.content = "1"
        self.ids: dict[str, dict[str, str]] = {}
        self.names: dict[str, str] = {"debian:trixie-slim": "sha256:base"}
        self.ids["sha256:base"] = {}
        self.can_pull = True
        self.fails_with: list[str] = []
        self.says: str = ""
        self.calls: list[list[str]] = []

    @property
    def builds(self) -> int:
        return sum(call[1] == "build" for call in self.calls)

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.calls.append(list(argv))
        if self.says:
            return Completed(tuple(argv), 1, b"", self.says)
        status, out = self._answer([word for word in argv[1:] if not word.startswith("--")], argv)
        return Completed(tuple(argv), status, out.encode(), "" if status == 0 else "no such image")

    def _answer(self, words: list[str], argv: Sequence[str]) -> tuple[int, str]:
        match words:
            case ["image", "inspect", *wanted]:
                name = wanted[-1]
                if self._id(name) not in self.ids:
                    return 1, ""
                if "--format" in argv:
                    return 0, str(sum(each == self._id(name) for each in self.names.values()))
                return 0, json.dumps([self._entry(self._id(each)) for each in wanted])
            case ["images", *_]:
                return 0, "\n".join(each for each, labels in self.ids.items() if labels)
            case ["pull", name] if self.can_pull:
                self.names[name] = "sha256:base"
                return 0, ""
            case ["run", *_]:
                return 0, f"$CondorVersion: {self.installed} 2026-07-12 $"
            case ["tag", image_id, name]:
                self.names[name] = image_id
                return 0, ""
            case ["rmi", image_id]:
                del self.ids[image_id]
                return 0, ""
            case ["image", "prune", *_]:
                return 0, ""
        return 1, ""

    def _id(self, name: str) -> str:
        return self.names.get(name, name)

    def _entry(self, image_id: str) -> dict[str, Any]:
        tags = [name for name, each in self.names.items() if each == image_id]
        return {"Id": image_id, "RepoTags": tags, "Size": 186_000_000, "Created": "2026-11-22",
                "Config": {"Labels": self.ids[image_id]}}  # fmt: skip

    def stream(self, argv: Sequence[str], **_: Any) -> Iterator[str]:
        self.calls.append(list(argv))
        if self.fails_with:
            yield from self.fails_with
            raise CommandFailed(argv, 1, self.fails_with[-1])
        yield "Step 1/1 : FROM scratch"
        yield " ---> Running in 1"
        args = dict(word.split("=", 1) for word in argv if re.match(r"[A-Z_]+=", word))
        version = args["HTCONDOR_VERSION"]
        image_id = f"sha256:{self.content}-{version}"
        self.ids[image_id] = {
            "roost.version": args["ROOST_VERSION"],
            "roost.release": args["RELEASE"],
            "htcondor.version": version,
        }
        Path(argv[argv.index("--iidfile") + 1]).write_text(image_id)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(_run, "run", fake.run)
    monkeypatch.setattr(_run, "stream", fake.stream)
    return fake


def test_the_label_has_the_version_that_is_installed(engine: FakeEngine) -> None:
    lines: list[str] = []
    built = build("docker", ImageSpec(), lines.append)
    assert (built.tag, built.htcondor_version, built.size) == (
        "roost/htcondor:trixie", "23.9.6", 186_000_000,
    )  # fmt: skip
    assert lines == ["Step 1/1 : FROM scratch"] * 2
    assert "sha256:1-unknown" not in engine.ids


def test_an_unchanged_image_is_built_once_and_not_started(engine: FakeEngine) -> None:
    first = build("docker", ImageSpec())
    engine.calls.clear()
    assert build("docker", ImageSpec()) == first
    assert engine.builds == 1
    assert not [call for call in engine.calls if call[1] in ("run", "tag", "rmi")]


def test_a_changed_image_takes_the_name_and_the_old_one_goes(engine: FakeEngine) -> None:
    old = build("docker", ImageSpec())
    engine.content = "2"
    new = build("docker", ImageSpec())
    assert new.id != old.id
    assert old.id not in engine.ids


def test_a_newer_htcondor_changes_the_label(engine: FakeEngine) -> None:
    build("docker", ImageSpec())
    engine.content, engine.installed = "2", "25.14.1"
    assert build("docker", ImageSpec()).htcondor_version == "25.14.1"


def test_an_old_image_with_another_name_stays(engine: FakeEngine) -> None:
    old = build("docker", ImageSpec())
    engine.names["mine:1"] = old.id
    engine.content = "2"
    build("docker", ImageSpec())
    assert old.id in engine.ids


def test_images_are_listed_by_tag(engine: FakeEngine) -> None:
    assert images("docker") == ()
    build("docker", ImageSpec("trixie", "b"))
    build("docker", ImageSpec("trixie", "a"))
    assert [(image.tag, image.release) for image in images("docker")] == [
        ("a", "trixie"), ("b", "trixie"),
    ]  # fmt: skip


def test_a_missing_base_is_pulled(engine: FakeEngine) -> None:
    engine.names.clear()
    assert build("docker", ImageSpec()).htcondor_version == "23.9.6"
    assert ["docker", "pull", "--quiet", "debian:trixie-slim"] in engine.calls


def test_a_base_that_cannot_be_had_is_said(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.names.clear()
    engine.can_pull = False
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageBuildFailed, match=r"debian:trixie-slim is not here.*mmdebstrap"):
        build("docker", ImageSpec())


def test_a_failed_step_is_quoted_and_nothing_is_left(engine: FakeEngine) -> None:
    engine.fails_with = ["Step 7/21 : RUN install", "E: Unable to locate package condor"]
    with pytest.raises(ImageBuildFailed, match=r"Step 7/21 : RUN install: E: Unable to locate"):
        build("docker", ImageSpec())
    assert f"{IMAGES}:trixie" not in engine.names
    prunes = [call for call in engine.calls if call[1:3] == ["image", "prune"]]
    assert prunes == [["docker", "image", "prune", "--force", "--filter", "label=roost.stage"]]


def test_a_full_disk_is_said(engine: FakeEngine) -> None:
    engine.fails_with = ["Step 7/21 : RUN install", "write /usr/x: no space left on device", "bye"]
    with pytest.raises(DiskFull, match=r"no space is left where docker keeps its images; make"):
        build("docker", ImageSpec())


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
         "docker is not running; start docker"),
        ("permission denied while trying to connect to the Docker daemon socket",
         "this user may not use docker; be in its group, or use sudo"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_serve_is_said(
    engine: FakeEngine, says: str, sentence: str
) -> None:
    engine.says = says
    with pytest.raises(EngineUnavailable, match=re.escape(sentence)):
        build("docker", ImageSpec())


def test_an_engine_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineUnavailable, match="podman is not installed"):
        images("podman")


def test_what_onedata_needs_is_fetched_with_its_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_build._write(str(tmp_path))
    wheels = tmp_path / WHEELS
    pinned = [
        line for line in (wheels / "requirements.txt").read_text().splitlines() if "==" in line
    ]
    assert pinned and all(" --hash=sha256:" in line for line in pinned)
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append(argv)
        return Completed(tuple(argv), 1, b"", "WARNING: x\nERROR: no matching distribution\n")

    monkeypatch.setattr(_run, "run", run)
    with pytest.raises(ImageBuildFailed, match="cannot be fetched: ERROR: no matching") as failed:
        image_build._fetch_wheels(wheels, lambda _: None)
    assert "pip download" in failed.value.advice
    assert {"--require-hashes", "--no-deps"} <= set(asked[0])
