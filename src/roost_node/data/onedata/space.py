"""A space of Onedata as files by path: OSErrors instead of the client's own, and a short memory."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

import requests
from onedatafilerestclient import OnedataFileRESTClient, OnedataRESTError
from onedatafilerestclient.errors import (
    NoAvailableProviderForSpaceError,
    OnedataError,
    ReadonlyTokenError,
    SpaceNotFoundError,
)
from onedatafilerestclient.file_attributes import FileAttrKey, FileAttrsJson
from onedatafilerestclient.onedata_file_rest_client import ListChildrenResult

from roost_node.data.onedata import zone

#: For so long attributes are believed; what another client changes is seen after it. In seconds.
FRESH: Final = 5.0
#: No page of a listing is longer.
PAGE: Final = 1000
#: What is asked again when the connection broke, and how long after: in seconds.
_PAUSES: Final = (0.2, 1.0, 3.0)
#: What has taken so long already is not asked again: whoever waits for it should learn that.
_PATIENCE: Final = 30.0
#: Names that are remembered; a job that walks a large tree must not use up its memory.
_MOST: Final = 100_000

# An answer is read in pieces of so much; requests' own are 10 KiB, and cost half of the speed.
requests.models.CONTENT_CHUNK_SIZE = 1 << 20

_T = TypeVar("_T")
_ATTRIBUTES: Final[list[FileAttrKey]] = [
    "fileId",
    "name",
    "type",
    "size",
    "mtime",
    "posixPermissions",
]


@dataclass(frozen=True)
class Attributes:
    """A file or directory."""

    id: str
    name: str
    directory: bool
    size: int
    mtime: int
    mode: int


class Space:
    """One space, or a directory of it, by paths that begin with `/`. Raises OSError."""

    def __init__(self, client: OnedataFileRESTClient, space: zone.Space, root: str = "") -> None:
        self._client = client
        # The client puts it into URLs as it is; the name is there for people, the id decides.
        self._space = f"{quote(space.name, safe='')}@{space.id}"
        self._plain = f"{space.name}@{space.id}"
        self._root = root.strip("/")
        self._known: dict[str, tuple[float, Attributes]] = {}
        self._lock = threading.Lock()

    # --- reading -------------------------------------------------------------------------------

    def attributes(self, path: str) -> Attributes:
        with self._lock:
            until, known = self._known.get(path, (0.0, None))
        if known is not None and until > time.monotonic():
            return known
        ask = self._client.get_attributes
        found = _tried(ask, self._space, attributes=_ATTRIBUTES, **self._named(path))
        return self._remember(path, _attributes(found))

    def listing(self, path: str) -> list[Attributes]:
        """What is in a directory: all of it, page after page."""
        directory = self.attributes(path)
        if not directory.directory:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        found: list[Attributes] = []
        following: str | None = None
        while True:
            page = self._page(directory.id, following)
            found += [_attributes(child) for child in page["children"]]
            if page["isLast"]:
                break
            following = page["nextPageToken"]
        above = path.rstrip("/")
        for child in found:
            self._remember(f"{above}/{child.name}", child)
        return found

    def _page(self, id_: str, following: str | None, limit: int = PAGE) -> ListChildrenResult:
        page: ListChildrenResult = _tried(
            self._client.list_children, self._space, attributes=_ATTRIBUTES, file_id=id_,
            limit=limit, continuation_token=following,
        )  # fmt: skip
        return page

    def content(self, id_: str, start: int, size: int) -> bytes:
        """Exactly these bytes, which the file must have."""

        def whole() -> bytes:
            data: bytes = self._client.get_file_content(
                self._space, offset=start, size=size, file_id=id_
            )
            if len(data) != size:
                raise requests.ConnectionError(f"{len(data)} of {size} bytes came")
            return data

        return _tried(whole)

    # --- writing -------------------------------------------------------------------------------

    def put(self, id_: str, data: bytes, offset: int | None) -> None:
        """These bytes from `offset` on; without one the file has these and no others."""
        _tried(self._client.put_file_content, self._space, data, offset=offset, file_id=id_)

    def create(
        self, path: str, *, directory: bool = False, mode: int = 0, parents: bool = False
    ) -> Attributes:
        made = _once(
            self._client.create_file, self._space, quote(self._full(path)),
            file_type="DIR" if directory else "REG", mode=mode or None,
            create_parents=parents,
        )  # fmt: skip
        name = path.rpartition("/")[2]
        mode = mode or (0o775 if directory else 0o664)
        return self._remember(path, Attributes(made, name, directory, 0, int(time.time()), mode))

    def remove(self, path: str, *, directory: bool = False) -> None:
        found = self.attributes(path)
        if found.directory and not directory:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if directory:
            if not found.directory:
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
            # Onedata would remove all that is in it, too.
            if self._page(found.id, None, limit=1)["children"]:
                raise OSError(errno.ENOTEMPTY, "Directory not empty")
        _once(self._client.remove, self._space, file_id=found.id)
        self.forget(path)

    def move(self, source: str, target: str) -> None:
        # One stands in a document, the other in a URL.
        names = (self._plain, self._full(source), self._plain, quote(self._full(target)))
        _once(self._client.move, *names)
        self.forget(source)
        self.forget(target)

    def change_mode(self, path: str, mode: int) -> None:
        said = {"mode": f"{mode & 0o7777:04o}"}
        _tried(self._client.set_attributes, self._space, said, file_id=self.attributes(path).id)
        self.forget(path)

    # --- memory --------------------------------------------------------------------------------

    def forget(self, path: str) -> None:
        """This path, and all below it."""
        below = path.rstrip("/") + "/"
        with self._lock:
            self._known = {
                known: what
                for known, what in self._known.items()
                if known != path and not known.startswith(below)
            }

    def resized(self, path: str, size: int) -> None:
        """A file has another size now."""
        with self._lock:
            until, known = self._known.get(path, (0.0, None))
            if known is not None:
                changed = replace(known, size=size, mtime=int(time.time()))
                self._known[path] = until, changed

    def _remember(self, path: str, found: Attributes) -> Attributes:
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[path] = time.monotonic() + FRESH, found
        return found

    def _full(self, path: str) -> str:
        return f"{self._root}/{path.strip('/')}".strip("/")

    def _named(self, path: str) -> dict[str, Any]:
        full = self._full(path)
        return {"file_path": quote(full)} if full else {}


def _attributes(said: FileAttrsJson) -> Attributes:
    return Attributes(
        said["fileId"], said["name"], said["type"] == "DIR", int(said["size"] or 0),
        int(said["mtime"]), int(str(said["posixPermissions"]), 8),
    )  # fmt: skip


def _once(call: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """What the client answers. Raises OSError."""
    try:
        return call(*args, **named)
    except (OnedataError, requests.RequestException, TypeError) as error:
        raise fault(error) from None


def _tried(call: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """The same, for what can be asked again if the connection breaks."""
    began = time.monotonic()
    pauses = iter(_PAUSES)
    while True:
        try:
            return _once(call, *args, **named)
        except OSError as error:
            pause = next(pauses, None) if error.errno in _PASSING else None
            if pause is None or time.monotonic() - began > _PATIENCE:
                raise
            time.sleep(pause)


#: What may be otherwise in a moment.
_PASSING: Final = (errno.EHOSTDOWN, errno.ETIMEDOUT)


def fault(error: Exception) -> OSError:
    """What went wrong, as the error that a program gets; its text is a sentence's end."""
    if isinstance(error, OnedataRESTError):
        return _refusal(error)
    for kinds, number, text in _FAULTS:
        if isinstance(error, kinds):
            return OSError(number, text)
    return OSError(errno.EIO, str(error))


#: What the client raises beside refusals, the first that fits.
_FAULTS: Final = (
    (ReadonlyTokenError, errno.EROFS, "the token permits reading only"),
    (SpaceNotFoundError, errno.ENOENT, "the token does not reach the space any more"),
    (NoAvailableProviderForSpaceError, errno.EHOSTDOWN, "no provider can be reached"),
    (requests.Timeout, errno.ETIMEDOUT, "the provider does not answer"),
    (requests.RequestException, errno.EHOSTDOWN, "the connection to the provider broke"),
    # The client stumbles over its own log where a request without a body is forbidden.
    (TypeError, errno.EACCES, "the provider forbids it"),
)

#: Of answers that name no errno.
_STATUS: Final = {
    403: errno.EACCES, 404: errno.ENOENT, 409: errno.EEXIST,
    502: errno.EHOSTDOWN, 503: errno.EHOSTDOWN, 504: errno.ETIMEDOUT,
}  # fmt: skip


def _refusal(error: OnedataRESTError) -> OSError:
    details = error.details if isinstance(error.details, dict) else {}
    name = str(details.get("errno", "")).upper()
    number = getattr(errno, name, None) if name else None
    if isinstance(number, int):
        return OSError(number, str(error.description or name))
    token = zone.problem({"id": error.category, "details": details})
    if token or error.http_code == 401:
        return OSError(errno.EKEYEXPIRED, token or "Onedata does not accept the token")
    return OSError(_STATUS.get(error.http_code, errno.EIO), str(error))
