"""HTCondor's file-transfer plugin for `onedata://`: the way to a space without FUSE.

    onedata://johns-space/in/f.txt      the pool file's `data:` entry, and the path in it
    onedata://HOST/SPACE/in/f.txt       any space, where the pool permits such URLs

HTCondor calls it as the job's user, with a file of transfers to do and one to fill with what came
of them; the job's tokens lie in `_CONDOR_CREDS`. That it knows these URLs it says elsewhere: see
onedata-plugin in roost/image/extras.sh.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from roost_node.data import entries
from roost_node.data.entries import Offer, token_name
from roost_node.data.onedata.files import AHEAD, BLOCK, Reader
from roost_node.data.onedata.space import Space
from roost_node.data.shape import Entry, Refused, service
from roost_node.errors import BadInput

#: The pool's offer, where a node puts it for its jobs (roost_node.data.job).
_OFFER: Final = Path("/run/roost/data.json")


@dataclass(frozen=True)
class Transfer:
    """One file to bring or to take away."""

    url: str
    file: str


@dataclass(frozen=True)
class Place:
    """What a URL means."""

    entry: Entry
    path: str


def asked(text: str) -> list[Transfer]:
    """The transfers in HTCondor's file, an ad each."""
    found = []
    for ad in re.split(r"\]\s*|\n\s*\n", text):
        attributes = re.findall(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"', ad)
        values = {name.lower(): re.sub(r"\\(.)", r"\1", value) for name, value in attributes}
        if "url" in values and "localfilename" in values:
            found.append(Transfer(values["url"], values["localfilename"]))
    return found


def place(url: str, offer: Offer) -> Place:
    """What the URL means in this pool. Raises Refused."""
    scheme, _, rest = url.partition("://")
    name, _, path = rest.partition("/")
    if scheme != "onedata" or not name or not path:
        raise Refused(f"{url} is not a file's URL; write onedata://NAME/PATH")
    entry = offer.entries.get(name)
    if entry is not None:
        if entry.type != "onedata":
            raise Refused(f"{name} is no space of Onedata, but of type {entry.type}")
        return Place(entry, path)
    if "onedata" not in offer.urls:
        known = ", ".join(key for key, each in offer.entries.items() if each.type == "onedata")
        raise Refused(f"this pool has no space {name!r}; it has: {known or 'none'}")
    space, _, path = path.partition("/")
    if not path:
        raise Refused(f"{url} names no file; write onedata://HOST/SPACE/PATH")
    return Place(Entry(url, "onedata", {"host": name, "space": space}, token=True), path)


def main(argv: Sequence[str]) -> int:
    """`-infile F -outfile F [-upload]`; 0 if all is transferred."""
    words = dict(itertools.pairwise(argv))
    transfers = asked(Path(words["-infile"]).read_text())
    upload = "-upload" in argv
    results = [_result(transfer, upload) for transfer in transfers]
    Path(words["-outfile"]).write_text("".join(map(_ad, results)))
    return 0 if all(result["TransferSuccess"] for result in results) else 1


def _result(transfer: Transfer, upload: bool) -> dict[str, Any]:
    began = time.time()
    size, error = 0, ""
    try:
        size = _transfer(transfer, upload)
    except (Refused, BadInput) as refused:
        error = str(refused)
    except OSError as failed:
        error = failed.strerror or str(failed)
    result: dict[str, Any] = {
        "TransferSuccess": not error, "TransferProtocol": "onedata",
        "TransferType": "upload" if upload else "download", "TransferFileName": transfer.file,
        "TransferUrl": transfer.url, "TransferFileBytes": size, "TransferTotalBytes": size,
        "TransferStartTime": int(began), "TransferEndTime": int(time.time()),
    }  # fmt: skip
    return {**result, "TransferError": f"{transfer.url}: {error}"} if error else result


def _ad(values: Mapping[str, Any]) -> str:
    """As an ad; JSON's words for values are ClassAds', too."""
    return (
        "[ " + "; ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + " ]\n"
    )


def _transfer(transfer: Transfer, upload: bool) -> int:
    """How many bytes it had. Raises Refused, OSError."""
    try:
        offer = entries.read(_OFFER.read_text(), str(_OFFER))
    except OSError:
        raise Refused("this executor was not told of the pool's data") from None
    found = place(transfer.url, offer)
    if upload and found.entry.read_only:
        raise Refused(f"this pool does not let jobs write to {found.entry.name}")
    with tempfile.TemporaryDirectory() as work:
        space = _space(found.entry, Path(work), write=upload)
        return (
            _up(space, found.path, transfer.file)
            if upload
            else _down(space, found.path, transfer.file)
        )


def _space(entry: Entry, work: Path, *, write: bool) -> Space:
    from roost_node.data.onedata import serve
    from roost_node.data.types import onedata

    name = token_name(entry)
    token = Path(os.environ.get("_CONDOR_CREDS", "/nonexistent"), f"{service(name)}.use")
    if not token.exists():
        raise Refused(f"the job has no token for {name}; store one with `roost data login {name}`")
    return serve.opened(onedata.told(entry, token, work, write=write, target=""))


def _down(space: Space, path: str, file: str) -> int:
    found = space.attributes(f"/{path}")
    if found.directory:
        raise Refused("this is a directory; name the files in it")
    with ThreadPoolExecutor(AHEAD) as pool, Path(file).open("wb") as out:
        reader = Reader(lambda start, size: space.content(found.id, start, size), pool)
        for offset in range(0, found.size, BLOCK):
            out.write(reader.read(offset, BLOCK, found.size))
    return found.size


def _up(space: Space, path: str, file: str) -> int:
    with Path(file).open("rb") as source:
        try:
            id_ = space.attributes(f"/{path}").id
        except FileNotFoundError:
            id_ = space.create(f"/{path}", parents=True).id
        offset = 0
        for block in _blocks(source):
            space.put(id_, block, offset or None)  # the first replaces what was there
            offset += len(block)
    return offset


def _blocks(source: Any) -> Iterator[bytes]:
    """A file in pieces; an empty one is one empty piece."""
    block = source.read(BLOCK)
    yield block
    while block := source.read(BLOCK):
        yield block
