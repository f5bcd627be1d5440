"""Makes an image: its base, the build, its labels; lists the images that roost made."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from roost import _run
from roost.errors import (
    CommandFailed,
    DiskFull,
    EngineUnavailable,
    ImageBuildFailed,
    ImageMissing,
    RoostError,
)
from roost.image import recipe
from roost.image.recipe import (
    LABEL_HTCONDOR_VERSION,
    LABEL_RELEASE,
    LABEL_ROOST_VERSION,
    LABEL_STAGE,
    ImageSpec,
)

Progress = Callable[[str], None]

#: The time of every file in a context, in seconds since 1970: it must not depend on the checkout.
_LONG_AGO: Final = 946684800
_BASE_ADVICE: Final = (
    "pull it where there is a network, or install mmdebstrap and debian-archive-keyring, "
    "with which roost makes it itself"
)


@dataclass(frozen=True)
class BuiltImage:
    """An image that roost made."""

    tag: str
    id: str
    size: int
    """In bytes."""
    htcondor_version: str
    roost_version: str
    release: str
    created: str
    """In ISO 8601."""


def build(engine: str, spec: ImageSpec, progress: Progress = lambda _line: None) -> BuiltImage:
    """Build the image of `spec` with `docker` or `podman`; from cache if nothing changed.

    Each step that is really made goes to `progress`. Raises EngineUnavailable, DiskFull or
    ImageBuildFailed; what a failed build had made without a name is gone then.
    """
    before = _inspect(engine, spec.name)
    _need_base(engine, spec, progress)
    # HTCondor's version is known once it is installed, so that label is a guess at first: right
    # whenever the image was built before, else the last step is built again.
    guess = before.htcondor_version if before else "unknown"
    image_id = _build(engine, spec, guess, progress)
    if before is None or image_id != before.id:
        found = _installed_version(engine, image_id)
        replaced = [before.id] if before else []
        if found != guess:
            replaced.append(image_id)
            image_id = _build(engine, spec, found, progress)
        _run.run([engine, "tag", image_id, spec.name]).check()
        # Only now: Podman takes along what has no name and shares layers with what it removes.
        for old in replaced:
            _drop(engine, old)
    built = _inspect(engine, spec.name)
    if built is None:
        raise ImageBuildFailed(f"{engine} built {spec.name} and does not have it")
    return built


def find(engine: str, name: str) -> BuiltImage:
    """The image of that name. Raises EngineUnavailable and ImageMissing."""
    found = _inspect(engine, name)
    if found is None:
        raise ImageMissing(
            f"the image {name} is not here", advice="`roost image ls` shows which are"
        )
    return found


def images(engine: str) -> tuple[BuiltImage, ...]:
    """The images on this engine that roost made, by tag. Raises EngineUnavailable."""
    argv = [engine, "images", "--quiet", "--no-trunc", "--filter", f"label={LABEL_ROOST_VERSION}"]
    ids = sorted(set(_ask(argv).text.split()))
    if not ids:
        return ()
    entries: Sequence[Mapping[str, Any]] = json.loads(_ask([engine, "image", "inspect", *ids]).text)
    found = [_image(entry, tag) for entry in entries for tag in entry.get("RepoTags") or ()]
    return tuple(sorted(found, key=lambda image: image.tag))


def _image(entry: Mapping[str, Any], tag: str) -> BuiltImage:
    """An engine's description of an image, as a value."""
    labels: Mapping[str, str] = (entry.get("Config") or {}).get("Labels") or {}
    return BuiltImage(
        tag=tag.removeprefix("localhost/"),
        # Podman leaves out what kind of digest it is.
        id=entry["Id"] if entry["Id"].startswith("sha256:") else f"sha256:{entry['Id']}",
        size=int(entry["Size"]),
        htcondor_version=labels.get(LABEL_HTCONDOR_VERSION, ""),
        roost_version=labels.get(LABEL_ROOST_VERSION, ""),
        release=labels.get(LABEL_RELEASE, ""),
        created=str(entry["Created"]),
    )


def _inspect(engine: str, name: str) -> BuiltImage | None:
    """The image of that name, if it is here. Raises EngineUnavailable."""
    done = _ask([engine, "image", "inspect", name], may_fail=True)
    return _image(json.loads(done.text)[0], name) if done.status == 0 else None


def _ask(argv: Sequence[str], *, may_fail: bool = False) -> _run.Completed:
    """Ask the engine something. Raises EngineUnavailable when it does not answer."""
    try:
        done = _run.run(argv, timeout=60)
    except CommandFailed as error:
        raise EngineUnavailable(
            f"{argv[0]} does not answer: {error.stderr}",
            advice="install it, or name another engine with --engine",
        ) from error
    said = done.stderr.lower()
    if "permission denied" in said:
        raise EngineUnavailable(
            f"this user may not use {argv[0]}", advice="be in its group, or use sudo"
        )
    if "cannot connect" in said or "is the docker daemon running" in said:
        raise EngineUnavailable(f"{argv[0]} is not running", advice=f"start {argv[0]}")
    return done if may_fail else done.check()


def _need_base(engine: str, spec: ImageSpec, progress: Progress) -> None:
    """The base image is here, or is pulled, or is bootstrapped under the same name."""
    if _ask([engine, "image", "inspect", spec.base], may_fail=True).status == 0:
        return
    # Podman may be set up to ask which registry is meant, so it is told.
    name = f"docker.io/library/{spec.base}" if engine == "podman" else spec.base
    progress(f"pulling {spec.base}")
    pulled = _run.run([engine, "pull", "--quiet", name], timeout=900)
    if pulled.status == 0:
        return
    if recipe.is_disk_full(pulled.stderr):
        raise _disk_full(engine)
    progress(f"{spec.base} cannot be pulled: bootstrapping it with mmdebstrap")
    _need_mmdebstrap(spec.base, progress)
    with tempfile.TemporaryDirectory(prefix="roost-") as scratch:
        tar = f"{scratch}/base.tar"
        _follow(recipe.bootstrap_argv(spec.suite, tar), progress, f"bootstrapping {spec.base}")
        imported = _run.run([engine, "import", tar, name])
        if imported.status != 0:
            if recipe.is_disk_full(imported.stderr):
                raise _disk_full(engine)
            raise ImageBuildFailed(f"importing {spec.base} failed: {imported.stderr.strip()}")


def _need_mmdebstrap(base: str, progress: Progress) -> None:
    """mmdebstrap is installed, or gets installed by root on a Debian. Raises ImageBuildFailed."""
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ImageBuildFailed(f"{base} is not here and cannot be pulled", advice=_BASE_ADVICE)
    progress("installing mmdebstrap")
    apt = ["apt-get", "install", "-qq", "-y", "--no-install-recommends"]
    packages = ["mmdebstrap", "debian-archive-keyring"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A machine that was never updated knows no packages yet.
    if _run.run([*apt, *packages], env=env).status != 0:
        _run.run(["apt-get", "update", "-qq"], env=env)
        done = _run.run([*apt, *packages], env=env)
        if done.status != 0:
            last = (done.stderr.strip().splitlines() or ["apt-get said nothing"])[-1]
            raise ImageBuildFailed(f"mmdebstrap cannot be installed: {last}", advice=_BASE_ADVICE)


def _build(engine: str, spec: ImageSpec, htcondor_version: str, progress: Progress) -> str:
    """Build, untagged; the image's id."""
    args = spec.build_args(version("roost"), htcondor_version)
    with tempfile.TemporaryDirectory(prefix="roost-") as scratch:
        context, id_file = f"{scratch}/context", Path(scratch, "id")
        _write(context)
        if "onedata" in spec.extras:
            _fetch_wheels(Path(context, recipe.WHEELS), progress)
        argv = recipe.build_argv(engine, args, context, str(id_file))
        try:
            _follow(argv, progress, f"building {spec.name}")
        except RoostError:
            _prune(engine)
            raise
        return id_file.read_text().strip()


def _fetch_wheels(directory: Path, progress: Progress) -> None:
    """What Debian does not have, as pip is set up to fetch it here. Raises ImageBuildFailed."""
    progress("fetching what onedata needs")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(directory),
            "--requirement", str(directory / "requirements.txt")]  # fmt: skip
    done = _run.run(argv, timeout=600)
    if done.status != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ImageBuildFailed(
            f"what onedata needs cannot be fetched: {last}",
            advice=f"see whether `{Path(sys.executable).name} -m pip download mfusepy` works here",
        )
    for file in directory.iterdir():
        os.utime(file, (_LONG_AGO, _LONG_AGO))
    os.utime(directory, (_LONG_AGO, _LONG_AGO))


def _write(context: str) -> None:
    """The context's files in a directory: the same on every machine, installed or checked out."""
    contents = recipe.context_files(
        dict(_package_files(files("roost_node"))), dict(_package_files(files("roost.image")))
    )
    for name, (data, mode) in contents.items():
        path = Path(context, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    for directory in [*Path(context).rglob("*")]:
        if directory.is_dir():
            directory.chmod(0o755)
            os.utime(directory, (_LONG_AGO, _LONG_AGO))


def _package_files(root: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Every file of an installed package by its relative name, but not what Python compiled."""
    for entry in root.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _package_files(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _follow(argv: Sequence[str], progress: Progress, doing: str) -> None:
    """Run a command that takes its time. Raises DiskFull or ImageBuildFailed."""
    lines = [""]
    try:
        for line in _run.stream(argv):
            if step := recipe.begun_step(lines[-1], line):
                progress(step)
            lines.append(line)
    except CommandFailed as error:
        if recipe.is_disk_full("\n".join(lines)):
            raise _disk_full(argv[0]) from error
        raise ImageBuildFailed(f"{doing} failed at {recipe.failing_step(lines)}") from error


def _disk_full(engine: str) -> DiskFull:
    return DiskFull(
        f"no space is left where {engine} keeps its images",
        advice=f"make room there, about 1 GB for an image; `{engine} system df` shows what is used",
    )


def _installed_version(engine: str, image_id: str) -> str:
    """The version of the HTCondor that is in an image. Raises ImageBuildFailed."""
    argv = [engine, "run", "--rm", "--network", "none", "--entrypoint", "condor_version", image_id]
    done = _run.run(argv, timeout=120)
    found = recipe.parse_version(done.text)
    if not found:
        raise ImageBuildFailed(f"HTCondor does not start in the image: {done.stderr.strip()}")
    return found


def _drop(engine: str, image_id: str) -> None:
    """Remove an image that lost its last name, unless a container still uses it."""
    done = _run.run([engine, "image", "inspect", "--format", "{{len .RepoTags}}", image_id])
    if done.text.strip() == "0":
        _run.run([engine, "rmi", image_id])


def _prune(engine: str) -> None:
    """Remove the layers that a failed build of ours left without a name, and no one else's."""
    with suppress(CommandFailed):
        _run.run([engine, "image", "prune", "--force", "--filter", f"label={LABEL_STAGE}"])
