"""`roost image build` and `roost image ls`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
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
from roost.image.build import images
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
    help="Add a program that mounts data: rclone or sshfs; repeatable.",
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
