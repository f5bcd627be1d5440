"""`roost image build`, `roost image ls` and `roost image sbom`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

import click

from roost.cli.common import (
    engine_named,
    json_option,
    print_json,
    print_table,
    selecting,
    shown,
)
from roost.data import Extra
from roost.errors import BadInput
from roost.image.build import build as build_image
from roost.image.build import find, images
from roost.image.recipe import ImageSpec
from roost.progress import Detail, Stage
from roost.spec import Release

Word = TypeVar("Word", bound=str)


@click.group()
def image() -> None:
    """Build the image, or list the images that are here."""


@image.command()
@click.option(
    "--release", default="trixie", metavar="R", help="trixie (the default), forky, lts or feature."
)
@click.option(
    "--tag",
    default="",
    metavar="TAG",
    help="Instead of $ROOST_IMAGES:<release>.",
)
@click.option(
    "--with",
    "extras",
    multiple=True,
    metavar="NAME",
    help="Add what mounts data: rclone, sshfs, onedata or oneclient; repeatable.",
)
@selecting
def build(
    name: str | None,  # noqa: ARG001
    engine: str | None,
    release: str,
    tag: str,
    extras: tuple[str, ...],
) -> None:
    """Build the image that every node runs, from cache where nothing changed."""
    releases: tuple[Release, ...] = get_args(Release)
    known: tuple[Extra, ...] = get_args(Extra)
    chosen = _one_of("the release", release, releases)
    with_ = tuple(sorted({_one_of("--with", extra, known) for extra in extras}))
    on = engine_named(engine)
    on.info()  # says what to do where it does not answer
    with shown() as progress:
        progress(Stage(f"building the image for {release}"))
        built = build_image(
            on.name,
            ImageSpec(chosen, tag, with_),
            lambda line: progress(Detail(line)),
        )
    print(f"{built.tag}: HTCondor {built.htcondor_version}, {_megabytes(built.size)}.")


@image.command()
@json_option
@selecting
def ls(name: str | None, engine: str | None, as_json: bool) -> None:  # noqa: ARG001
    """List the images that roost made."""
    on = engine_named(engine)
    on.info()
    found = images(on.name)
    if as_json:
        print_json(found)
    elif not found:
        print("No images; `roost image build` makes one.")
    else:
        head = ("IMAGE", "HTCONDOR", "RELEASE", "SIZE", "CREATED", "ROOST")
        print_table(
            head,
            [
                (image.tag, image.htcondor_version, image.release, _megabytes(image.size),
                 image.created[:16].replace("T", " "), image.roost_version)
                for image in found
            ],
        )  # fmt: skip


@image.command()
@click.option(
    "--release", default="trixie", metavar="R", help="trixie (the default), forky, lts or feature."
)
@click.option("--tag", default="", metavar="TAG", help="The image by name, instead of a release.")
@click.option("--host", is_flag=True, help="Of what roost itself needs here, instead of an image.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
    help="To this file instead of stdout.",
)  # fmt: skip
@selecting
def sbom(
    name: str | None,  # noqa: ARG001
    engine: str | None,
    release: str,
    tag: str,
    host: bool,
    output: Path | None,
) -> None:
    """Print what an image is made of, as CycloneDX: a bill of materials that scanners read."""
    from roost.image import sbom as bill

    if host and tag:
        raise BadInput("--host and --tag name two things", advice="give one of them")
    if host:
        text = bill.of_host()
    else:
        releases: tuple[Release, ...] = get_args(Release)
        wanted = ImageSpec(_one_of("the release", release, releases), tag)
        on = engine_named(engine)
        made = find(on.name, wanted.name)
        text = bill.of_image(made, bill.contents(on.name, made.tag))
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"Wrote {output}.", err=True)


def _one_of(what: str, given: str, known: Sequence[Word]) -> Word:
    """The word of `known` that was given. Raises BadInput."""
    for word in known:
        if word == given:
            return word
    near = difflib.get_close_matches(given, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
    raise BadInput(f"{what} {given!r} is unknown", advice=advice)


def _megabytes(size: int) -> str:
    return f"{size / 10**6:.0f} MB"
