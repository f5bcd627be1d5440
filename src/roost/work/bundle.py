"""The Python that runs this program, to go along with jobs: interpreter, library, named packages.

A pickled function runs only in a Python of the same minor version with the same packages, and the
executors' image has whichever its Debian has. So the program's own goes along, and nothing has to
be equal. Its C library stays behind: the image's must be as new as the one it was built for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import re
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from importlib.resources import files as resources
from pathlib import Path
from typing import Final

from roost._run import run
from roost.errors import BadInput

#: Beside the interpreter in the archive; `bin/python3` starts it.
ROOT: Final = "python"
_VERSION: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_ZIP: Final = f"{sys.platlibdir}/python{sys.version_info[0]}{sys.version_info[1]}.zip"

#: Of the standard library, what no task needs: tests, windows, what builds programs with it.
_NOT_TAKEN: Final = re.compile(
    r"(.*/)?(tests?|.*\.opt-\d\.pyc|idlelib|lib2to3|tkinter|turtledemo|ensurepip"
    r"|pydoc_data|config-[^/]*|site-packages|dist-packages|sitecustomize\.py|EXTERNALLY-MANAGED"
    r"|lib-dynload/(_tkinter|_test|_ctypes_test|_xx|xx)[^/]*)(/.*)?"
)
#: The C library and its parts are the image's.
_OF_THE_SYSTEM: Final = re.compile(
    r"(ld-linux.*|lib(c|m|pthread|dl|rt|util|resolv|nsl|anl))\.so(\.\d+)*|linux-vdso.*"
)


@dataclass(frozen=True)
class Bundle:
    """What goes along."""

    members: tuple[tuple[str, Path | str], ...]
    """Path in the archive → where it is here, or its text."""
    library: tuple[tuple[str, Path], ...]
    """The standard library's modules. They go into one zip, as in Python's own minimal distribution
    for Windows: a thousand files to unpack take longer than most tasks."""

    @cached_property
    def digest(self) -> str:
        """Names it: another interpreter, another package or a changed file give another."""
        digest = hashlib.sha256()
        for name, what in (*self.members, *self.library):
            known = what if isinstance(what, str) else _state(what)
            digest.update(f"{name}\0{known}\0".encode())
        return digest.hexdigest()[:20]

    def archive(self) -> bytes:
        """As a compressed tar archive."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:

            def add(name: str, data: bytes, mode: int = 0o755, mtime: float = 0) -> None:
                member = tarfile.TarInfo(f"{ROOT}/{name}")
                # Compiled files are valid as long as their source has its time.
                member.size, member.mode, member.mtime = len(data), mode, int(mtime)
                archive.addfile(member, io.BytesIO(data))

            for name, what in self.members:
                if isinstance(what, str):
                    add(name, what.encode())
                else:
                    there = what.stat()
                    mode = 0o755 if there.st_mode & 0o100 else 0o644
                    add(name, what.read_bytes(), mode, there.st_mtime)
            add(_ZIP, _compiled(self.library), 0o644)
        return buffer.getvalue()


def bundle(packages: Iterable[str]) -> Bundle:
    """This interpreter, its library and these packages with all that they need.

    A package is named as `pip` or as `import` does; a module of the program's own is one, too.
    Raises BadInput for one that is not here, and where this is no Linux.
    """
    if not sys.platform.startswith("linux"):
        raise BadInput(
            f"tasks cannot take the Python of {sys.platform} along: nodes run Linux",
            advice="run the program on Linux, or submit a script with `roost submit`",
        )
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    there = f"{sys.platlibdir}/{_VERSION}"
    files = dict(_tree(library))
    modules = {name: path for name, path in files.items() if path.suffix == ".py"}
    # By os.py, the interpreter knows its home.
    members: dict[str, Path | str] = {
        f"bin/{_VERSION}": interpreter,
        f"{there}/os.py": files["os.py"],
    }
    members |= {f"{there}/{name}": path for name, path in files.items() if path.suffix == ".so"}
    compiled = [
        path for path in members.values() if isinstance(path, Path) and path.suffix != ".py"
    ]
    members |= {f"{sys.platlibdir}/{path.name}": path for path in _shared_libraries(compiled)}
    for name, path in _packages(packages):
        members[f"{there}/site-packages/{name}"] = path
    ours = resources("roost.work") / "there"
    members["bin/python3"] = (ours / "python3.sh").read_text()
    members[f"{there}/sitecustomize.py"] = (ours / "sitecustomize.py").read_text()
    return Bundle(tuple(sorted(members.items(), key=_name)), tuple(sorted(modules.items())))


def _name(member: tuple[str, object]) -> str:
    return member[0]


def _state(path: Path) -> str:
    there = path.stat()
    return f"{path} {there.st_size} {there.st_mtime_ns}"


def _compiled(library: Iterable[tuple[str, Path]]) -> bytes:
    """A zip of these modules, compiled."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, path in library:
            ready = Path(importlib.util.cache_from_source(str(path), optimization=""))
            try:
                code = ready.read_bytes()
            except OSError:
                try:
                    made = compile(path.read_bytes(), name, "exec", dont_inherit=True)
                except (SyntaxError, ValueError):
                    continue  # an example of what does not compile
                code = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(made)
            archive.writestr(f"{name}c", code)
    return buffer.getvalue()


def _taken(name: str) -> bool:
    return _NOT_TAKEN.fullmatch(name) is None


def _tree(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `root`, by its relative name, but what is never taken."""
    for folder, subfolders, files in os.walk(root):
        prefix = os.path.relpath(folder, root)
        prefix = "" if prefix == "." else f"{prefix}/"
        subfolders[:] = [name for name in subfolders if _taken(f"{prefix}{name}")]
        for name in files:
            if _taken(f"{prefix}{name}") and (path := Path(folder, name)).is_file():
                yield f"{prefix}{name}", path


def _shared_libraries(compiled: Sequence[Path]) -> Iterator[Path]:
    """What these are linked with, but the C library."""
    said = run(["ldd", *map(str, compiled)], timeout=60).text
    for name, path in sorted(set(re.findall(r"^\s*(\S+) => (/\S+)", said, re.M))):
        if not _OF_THE_SYSTEM.fullmatch(name):
            yield Path(path).parent / name


def _packages(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """The files of these packages and of all that they need, by their place in site-packages."""
    todo, done = list(names), set[str]()
    while todo:
        name = todo.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in done:
            continue
        done.add(key)
        found = _distribution(name) or _imported_as(name)
        if found is None or not (files := list(_files(found))):
            yield from _module(name)
        else:
            yield from files
        if found is not None:
            todo += [needed for needed in _needs(found) if _distribution(needed)]


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _imported_as(module: str) -> metadata.Distribution | None:
    """The distribution that `import module` takes, if one does: PyYAML for yaml."""
    names = metadata.packages_distributions().get(module)
    return metadata.distribution(names[0]) if names else None


def _files(found: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """What is importable of it; nothing of one that is installed as a link to its source."""
    if '"editable": true' in (found.read_text("direct_url.json") or ""):
        return
    for file in found.files or ():
        path = Path(str(file.locate()))
        if not file.parts[0].startswith("..") and path.is_file():
            yield str(file), path


def _needs(found: metadata.Distribution) -> Iterator[str]:
    """Names of what it requires, extras left out. Whether a marker holds does not matter: what it
    excludes is not here."""
    for requirement in found.requires or ():
        head, _, marker = requirement.partition(";")
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", head)
        if name and "extra" not in marker:
            yield name[0]


def _module(name: str) -> Iterator[tuple[str, Path]]:
    """A module or package by the name that imports it."""
    top = name.replace("-", "_")
    try:
        spec = importlib.util.find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin in (None, "built-in", "frozen"):
        raise BadInput(
            f"there is no package {name!r} in this Python",
            advice="name what `pip list` shows or what `import` takes",
        )
    path = Path(str(spec.origin))
    if not spec.submodule_search_locations:
        yield path.name, path
        return
    for inner, file in _tree(path.parent):
        yield f"{path.parent.name}/{inner}", file
