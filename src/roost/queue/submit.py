"""What a submit file needs beside it, decided from the job ads that HTCondor itself makes of it.

A submission has a private directory on the access point, `~/roost/<id>`. In it the submitter's
path is mirrored (`/here/a.sub` becomes `~/roost/<id>/here/a.sub`), so that relative names, `..`
included, mean the same on both sides and HTCondor's complaints name the submitter's own files.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from roost.ads import sentence
from roost.errors import BadInput, JobError

#: Attribute of a job ad → the submit command that sets it.
COMMANDS: Final = {
    "Cmd": "executable", "In": "input", "TransferInput": "transfer_input_files",
    "x509userproxy": "x509userproxy", "JarFiles": "jar_files", "Iwd": "initialdir",
    "Out": "output", "Err": "error", "UserLog": "log",
    "TransferOutputRemaps": "transfer_output_remaps",
}  # fmt: skip
_INPUTS: Final = ("Cmd", "In", "TransferInput", "x509userproxy", "JarFiles")
_OUTPUTS: Final = ("Out", "Err", "UserLog", "TransferOutputRemaps")
#: A status above it: condor_submit was killed, and with it most probably its container.
KILLED: Final = 128
#: What condor_submit says when it is the access point's fault, not the submit file's.
UNANSWERED: Final = re.compile(
    r"schedd|queue manager|connect|authenticat|commit job submission", re.IGNORECASE
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True)
class Submitted:
    """A cluster in the queue."""

    cluster: int
    procs: int
    directory: str
    """Its directory on the access point."""
    warnings: tuple[str, ...] = ()
    """What condor_submit remarked, such as a command that it does not know."""
    stays: tuple[str, ...] = ()
    """Outputs that will not come back: they lie outside the submit file's directory."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.cluster}.{proc}" for proc in range(self.procs))


@dataclass(frozen=True, order=True)
class Named:
    """A file that an attribute of a job ad names."""

    path: str
    """Absolute, on the access point."""
    attribute: str
    name: str
    """As the submit file names it, macros expanded."""


@dataclass(frozen=True)
class Needs:
    """What the jobs read, and where they write."""

    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]
    directories: tuple[Named, ...]
    """The jobs' initial directories."""


def read_ads(dump: str) -> tuple[dict[str, str | bool], ...]:
    """The strings and truth values in what `condor_submit -dump` writes, one dict per job.

    A proc's ad says only what differs from its cluster's first.
    """
    ads: list[dict[str, str | bool]] = []
    first: dict[str, str | bool] = {}
    for block in re.split(r"\n\s*\n", dump.strip()):
        ad: dict[str, str | bool] = {}
        for line in block.splitlines():
            name, _, value = line.partition("=")
            if match := _STRING.fullmatch(value.strip()):
                ad[name.strip()] = re.sub(r"\\(.)", r"\1", match[1])
            elif value.strip().lower() in ("true", "false"):
                ad[name.strip()] = value.strip().lower() == "true"
        if re.search(r"^ClusterId\s*=", block, re.MULTILINE):
            first = ad
        if ad or first:
            ads.append(first | ad)
    return tuple(ads)


def needs(ads: Iterable[dict[str, str | bool]]) -> Needs:
    """Every file and directory that the ads name, each once."""
    inputs: dict[Named, None] = {}
    outputs: dict[Named, None] = {}
    directories: dict[Named, None] = {}
    for ad in ads:
        iwd = str(ad.get("Iwd", "/"))
        directories[Named(iwd, "Iwd", iwd)] = None
        for found, attributes in ((inputs, _INPUTS), (outputs, _OUTPUTS)):
            for attribute in attributes:
                for name in _names(attribute, ad):
                    path = os.path.normpath(PurePosixPath(iwd, name))
                    found[Named(path, attribute, name)] = None
    return Needs(tuple(inputs), tuple(outputs), tuple(directories))


def _names(attribute: str, ad: dict[str, str | bool]) -> Iterator[str]:
    """The file names in one attribute; no URLs, and nothing that only the match will decide."""
    switches = {"Cmd": "TransferExecutable", "In": "TransferIn", "Out": "TransferOut",
                "Err": "TransferErr"}  # fmt: skip
    value = ad.get(attribute)
    # condor_submit sets TransferIn, -Out, -Err to false for /dev/null as well
    if not isinstance(value, str) or ad.get(switches.get(attribute, "")) is False:
        return
    if attribute in ("TransferInput", "JarFiles"):
        names = value.split(",")
    elif attribute == "TransferOutputRemaps":
        names = [pair.partition("=")[2] for pair in value.split(";")]
    else:
        names = [value]
    for name in (text.strip() for text in names):
        if name and name != "/dev/null" and "$$" not in name and not _URL.match(name):
            yield name


def parsed_with(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the submit language itself reads: names of files, and patterns after `matching`.

    Only what stands there literally; a name that is made by macros shows itself when HTCondor
    misses the file.
    """
    files: list[str] = []
    patterns: list[str] = []
    joined = re.sub(r"\\\r?\n", " ", text)
    for match in re.finditer(
        r"^[ \t]*include[ \t]*(?:ifexist[ \t]*)?:[ \t]*(.+?)[ \t]*$", joined, re.M | re.I
    ):
        if not match[1].endswith("|"):
            files.append(match[1].strip("\"'"))
    for match in re.finditer(r"^[ \t]*queue\b(.*)$", joined, re.M | re.I):
        if (source := re.search(r"\bfrom\s+([^\s(|][^|]*)$", match[1], re.I)) is not None:
            files.append(re.sub(r"^\[[^\]]*\]\s*", "", source[1].strip()))
        pattern = re.search(r"\bmatching\b\s*(?:files|dirs|any)?\s*(.*)$", match[1], re.I)
        if pattern is not None:
            rest = pattern[1]
            if rest.startswith("("):
                rest = joined[match.start(1) + match[1].rindex(rest) + 1 :].partition(")")[0]
            patterns += re.sub(r"^\[[^\]]*\]\s*", "", rest).replace(",", " ").split()
    return (
        tuple(name for name in files if "$(" not in name),
        tuple(name for name in patterns if "$(" not in name),
    )


@dataclass(frozen=True)
class Mirror:
    """Where the submit file is here, and where it is on the access point."""

    submit_file: Path
    """Absolute."""
    root: str
    """The submission's directory on the access point."""

    @property
    def directory(self) -> str:
        """The submit file's directory on the access point."""
        return self.there(self.submit_file.parent)

    def there(self, path: Path) -> str:
        return f"{self.root}{path}"

    def here(self, path: str) -> Path | None:
        """The submitter's file for one on the access point; None if it lies outside the mirror."""
        inside = path == self.root or path.startswith(f"{self.root}/")
        return Path(path[len(self.root) :] or "/") if inside else None

    def place(self, attribute: str, name: str) -> str:
        """`a.sub:3: executable`: where the submit file sets an attribute."""
        command = COMMANDS[attribute]
        setting = re.compile(rf"\s*\+?(?:{command}|{attribute})\s*=\s*(.*)", re.IGNORECASE)
        lines = self.submit_file.read_text(errors="replace").splitlines()
        found = [
            (number, match[1])
            for number, line in enumerate(lines, 1)
            if (match := setting.match(line))
        ]
        exact = [number for number, value in found if name in value]
        at = exact or [number for number, _ in found]
        return f"{self.submit_file.name}:{at[0]}: {command}" if at else self._bare(command)

    def _bare(self, command: str) -> str:
        return f"{self.submit_file.name}: {command}"

    def complaint(self, stderr: str) -> str:
        """condor_submit's own sentence, with the submitter's file, line and paths."""
        said = re.split(r"ERROR: Failed to parse command file", stderr)[0]
        said = sentence(said.replace(f"{self.root}/", "/"))
        # an included file is reported as: Submit:-1:Error "x", Line 0, Include Depth 1: …
        said = re.sub(r"Submit:-1:Error \"[^\"]*\", Line \d+, Include Depth \d+: ", "", said)
        # older releases say `submit file`, newer ones the file's name
        match = re.match(r"on Line (\d+) of (?:submit file|\S.*?):\s*(.*)", said, re.DOTALL)
        if match is None:
            return f"{self.submit_file.name}: {said}"
        reason = match[2] or "HTCondor does not understand this line"
        return f"{self.submit_file.name}:{match[1]}: {reason}"


def missing_for_parsing(stderr: str) -> str | None:
    """The file that the submit language wanted to read and did not find."""
    match = re.search(r"can't open file (.+?): No such file or directory", stderr)
    return match[1] if match else None


@dataclass(frozen=True)
class Cargo:
    """What goes along: host paths to be mirrored, and what only the access point can have."""

    paths: tuple[Path, ...]
    directories: tuple[Path, ...]
    """Wanted as places to write to, without what is in them."""
    elsewhere: tuple[Named, ...]
    """Inputs with absolute names: the access point's own files."""
    stays: tuple[str, ...]


def cargo(wanted: Needs, mirror: Mirror) -> Cargo:
    """Check every name against this machine. Raises BadInput for the first that is missing."""
    paths: dict[Path, None] = {}
    directories: dict[Path, None] = {}
    elsewhere: list[Named] = []
    for named in wanted.directories:
        here = mirror.here(named.path)
        if here is not None and not here.is_dir():
            raise BadInput(
                f"{mirror.place('Iwd', here.name)}: there is no directory {here}",
                advice="make it, or name another",
            )
        if here is not None:
            directories[here] = None
    for named in wanted.inputs:
        here = mirror.here(named.path)
        if here is None:
            elsewhere.append(named)
        elif not here.exists():
            raise BadInput(
                f"{mirror.place(named.attribute, named.name)}: {here} does not exist",
                advice=f"names are relative to {mirror.submit_file.parent}",
            )
        elif not os.access(here, os.R_OK):
            raise BadInput(f"{mirror.place(named.attribute, named.name)}: {here} is not readable")
        else:
            paths[here] = None
    stays: dict[str, None] = {}
    for named in wanted.outputs:
        here = mirror.here(named.path)
        if here is None or not here.is_relative_to(mirror.submit_file.parent):
            stays[named.name] = None
        if here is not None:
            if not here.parent.is_dir():
                raise BadInput(
                    f"{mirror.place(named.attribute, named.name)}: "
                    f"there is no directory {here.parent}",
                    advice="make it before submitting",
                )
            directories[here.parent] = None
    return Cargo(tuple(paths), tuple(directories), tuple(elsewhere), tuple(stays))


def pack(
    paths: Sequence[Path], *, directories: Sequence[Path] = (), names_only: Sequence[Path] = ()
) -> bytes:
    """A tar archive that holds `paths` (directories with all they contain), mirrored from `/`.

    Modes and times are kept; links are followed, but not those to directories inside a directory,
    which could lead in circles. `names_only` become empty files.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        added: set[Path] = set()
        for path in directories:
            _add(archive, path, added)
        for path in paths:
            _add(archive, path, added)
            if path.is_dir():
                for folder, subfolders, files in os.walk(path, onerror=_raise):
                    for name in (*subfolders, *files):
                        inner = Path(folder, name)
                        if not (inner.is_symlink() and not inner.is_file()):
                            _add(archive, inner, added)
        for path in names_only:
            if path not in added:
                member = tarfile.TarInfo(str(path).lstrip("/"))
                member.type = tarfile.DIRTYPE if path.is_dir() else tarfile.REGTYPE
                member.mode = 0o755 if path.is_dir() else 0o644
                archive.addfile(member)
    return buffer.getvalue()


def _raise(error: OSError) -> None:
    raise BadInput(f"cannot read {error.filename}: {error.strerror}") from error


def _add(archive: tarfile.TarFile, path: Path, added: set[Path]) -> None:
    if path in added or path == Path("/"):
        return
    added.add(path)
    try:
        real = path.stat()
        member = tarfile.TarInfo(str(path).lstrip("/"))
        member.mtime = real.st_mtime
        member.mode = real.st_mode & 0o777
        if path.is_dir():
            member.type = tarfile.DIRTYPE
            member.mode |= 0o700  # or nothing could be put into it
            archive.addfile(member)
        elif path.is_file():
            member.size = real.st_size
            with path.open("rb") as content:
                archive.addfile(member, content)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def unpack(archive: bytes, into: Path) -> tuple[Path, ...]:
    """Extract an archive that came from a node, below `into` and nowhere else.

    Raises JobError when a member is anything but a plain file below `into`.
    """
    written: list[Path] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            for member in members:
                content = members.extractfile(member) if member.isfile() else None
                if content is None:
                    raise JobError(f"{member.name!r} came back as something else than a file")
                written.append(_below(into, member.name))
                written[-1].parent.mkdir(parents=True, exist_ok=True)
                with written[-1].open("wb") as file:
                    shutil.copyfileobj(content, file)
                written[-1].chmod(member.mode & 0o755 | 0o600)
                os.utime(written[-1], (member.mtime, member.mtime))
    except tarfile.TarError as error:
        raise JobError(f"the outputs did not arrive whole: {error}") from error
    except OSError as error:
        raise JobError(f"cannot write {error.filename or into}: {error.strerror}") from error
    return tuple(sorted(written))


def _below(into: Path, name: str) -> Path:
    """Where a member goes. Raises JobError if that is not below `into`, by a link on the way, too.

    tarfile's own filter does this from Python 3.11.4 on; Debian 12 has 3.11.2.
    """
    path = into / os.path.normpath(name.lstrip("/"))
    if not path.resolve().is_relative_to(into.resolve()):
        raise JobError(f"an output was refused, because it would leave {into}: {name!r}")
    return path
