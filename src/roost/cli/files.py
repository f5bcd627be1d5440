"""Commands that write files: render, schema."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import click

from roost import specfile
from roost.cli.common import selecting
from roost.engines.compose import FILE as COMPOSE_FILE
from roost.engines.compose import ComposeRenderer, mode_of, secret_files
from roost.engines.kubernetes_manifests import KubernetesRenderer
from roost.engines.kubernetes_manifests import secret_files as kubernetes_secrets
from roost.engines.marathon import MarathonRenderer, apps
from roost.errors import BadInput
from roost.kept import last
from roost.plan import Keyless, plan
from roost.security import PoolKeys
from roost.spec import MarathonVersion, PoolSpec
from roost.specfile import Overrides
from roost_node.vocab import DEFAULT_POOL


@click.group()
def render() -> None:
    """Write the pool as files for another tool; nothing is started."""


@render.command()
@click.argument("file", required=False, metavar="[POOL.yaml]", type=click.Path(path_type=Path))
@click.option(
    "-o", "directory", type=click.Path(path_type=Path), metavar="DIR",
    help="Write compose.yaml and the secret files there, instead of compose.yaml to stdout.",
)  # fmt: skip
@selecting
def compose(
    name: str | None, engine: str | None, file: Path | None, directory: Path | None
) -> None:
    """Render the pool for Compose: what `roost up` would make.

    Without POOL.yaml the pool is as it was asked for last, else the default one.
    """
    spec = _wanted(name, engine, file)
    if directory is None:
        # What is printed holds no secret, so keys that live for a moment will do.
        with TemporaryDirectory(prefix="roost-") as home:
            rendered = ComposeRenderer().render(plan(spec, PoolKeys(spec.name, Path(home))))
        print(rendered[COMPOSE_FILE], end="")
        return
    _free(directory)
    target = plan(spec, PoolKeys(spec.name))
    texts = {path: text.encode() for path, text in ComposeRenderer().render(target).items()}
    secrets = {path: secret.reveal() for path, secret in secret_files(target).items()}
    _write_all(directory, texts, lambda _path: 0o644)
    _write_all(directory, secrets, mode_of)
    print(f"Wrote {len(texts) + len(secrets)} files to {directory}; "
          "the first lines of compose.yaml say how to start.")  # fmt: skip


@render.command()
@click.argument("file", required=False, metavar="[POOL.yaml]", type=click.Path(path_type=Path))
@click.option(
    "--marathon-version", "version", type=click.Choice(get_args(MarathonVersion)),
    metavar="V", help="In whose words: 1.1 (and older), 1.4 (from 1.2) or 1.5+.",
)  # fmt: skip
@click.option(
    "-o", "directory", type=click.Path(path_type=Path), metavar="DIR",
    help="Write a file for each role and group there, instead of all apps to stdout.",
)  # fmt: skip
@selecting
def marathon(
    name: str | None,
    engine: str | None,
    file: Path | None,
    version: MarathonVersion | None,
    directory: Path | None,
) -> None:
    """Render the pool as Marathon's app definitions.

    Without POOL.yaml the pool is as it was asked for last, else the default one.
    """
    spec = _wanted(name, engine, file)
    settings = spec.marathon.model_copy(update={"version": version} if version else {})
    target = plan(spec, Keyless())
    if directory is None:
        print(json.dumps(list(apps(target, settings).values()), indent=2))
        return
    texts = MarathonRenderer(settings).render(target)
    _free(directory)
    _write_all(directory, {path: text.encode() for path, text in texts.items()}, lambda _: 0o644)
    print(
        f"Wrote {len(texts)} files to {directory}; start each, the master first, with: "
        "curl -XPOST -H 'Content-Type: application/json' MARATHON:8080/v2/apps -d @FILE"
    )


@render.command()
@click.argument("file", required=False, metavar="[POOL.yaml]", type=click.Path(path_type=Path))
@click.option(
    "-o", "directory", type=click.Path(path_type=Path), metavar="DIR",
    help="Write pool.yaml and the secret files there, instead of pool.yaml to stdout.",
)  # fmt: skip
@selecting
def kubernetes(
    name: str | None, engine: str | None, file: Path | None, directory: Path | None
) -> None:
    """Render the pool as Kubernetes manifests.

    Without POOL.yaml the pool is as it was asked for last, else the default one.
    """
    spec = _wanted(name, engine, file)
    target = plan(spec, Keyless())
    texts = KubernetesRenderer(spec.kubernetes).render(target)
    if directory is None:
        for text in texts.values():
            print(text, end="")
        return
    _free(directory)
    secrets = {path: secret.reveal() for path, secret in kubernetes_secrets(target).items()}
    _write_all(directory, {path: text.encode() for path, text in texts.items()}, lambda _: 0o644)
    _write_all(directory, secrets, lambda _: 0o600)
    print(f"Wrote {len(texts) + len(secrets)} files to {directory}; "
          f"the first lines of {KubernetesRenderer.FILE} say how to start.")  # fmt: skip


def _wanted(name: str | None, engine: str | None, file: Path | None) -> PoolSpec:
    """The pool that is meant: of the file, else as it was asked for last, else the default one."""
    if file is None:
        file = last(name or os.environ.get("ROOST_POOL") or DEFAULT_POOL)
    spec = specfile.load(file, environ=os.environ, overrides=Overrides(name=name, engine=engine))
    if spec.hosts:
        raise BadInput(
            f"the pool {spec.name!r} has hosts, and what is rendered is for one tool on its own",
            advice="leave `hosts` out",
        )
    return spec


def _free(directory: Path) -> None:
    """Raise BadInput if something of the user's is there already."""
    try:
        taken = next(directory.iterdir(), None) if directory.exists() else None
    except OSError as error:
        raise BadInput(f"{directory} cannot be used: {error.strerror}") from None
    if taken is not None:
        raise BadInput(
            f"{directory} is not empty: {taken.name} is there already",
            advice="name a new directory, or empty this one",
        )


def _write_all(
    directory: Path, content: Mapping[str, bytes], mode_of: Callable[[str], int]
) -> None:
    """Write each file with its mode; directories that are made are for their owner alone."""
    for name, data in content.items():
        path = directory / name
        try:
            for parent in reversed(path.parents):
                if not parent.exists():
                    parent.mkdir(mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                # Compose mounts the files with these modes, so the umask has no say.
                os.fchmod(descriptor, mode_of(name))
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from None


@click.command()
def schema() -> None:
    """Print the JSON Schema of pool.yaml, for editors and checkers."""
    print(json.dumps(specfile.schema(), indent=2))
