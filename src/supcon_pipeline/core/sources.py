"""The source files that a module of this library depends on, and their hash."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

CORE = Path(__file__).parent
# Prefix of the modules of this library in an import.
_PREFIX = f"{__package__}."


def source_hash(module: str, core: Path = CORE) -> str:
    """SHA-256 of a module and everything it imports from this library, as 64 hexadecimal digits.

    Covers the path below `core` and the content of each file; files that are not imported do not count.

    Args:
        module: name below `core`, such as `training`; a package stands for all its modules.
        core: folder of the library.
    """
    digest = sha256()
    for path in imported_sources(module, core):
        digest.update(f"{path.relative_to(core).as_posix()}\n".encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def imported_sources(module: str, core: Path = CORE) -> list[Path]:
    """The files of a module and of everything it imports from this library, directly or not, sorted.

    Imports inside functions count too.
    """
    found: set[Path] = set()
    waiting = list(_files_of(module, core, is_whole=True))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for name in _imported_names(path.read_bytes()):
                waiting += _files_of(name, core)
    return sorted(found)


@cache
def _imported_names(source: bytes) -> tuple[str, ...]:
    """Names below `core` that a source imports; some are members of a module.

    Kept, as every stage of a run asks for those of the same files.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += (name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))
    return tuple(found)


def _files_of(module: str, core: Path, is_whole: bool = False) -> Iterator[Path]:
    """The file of a module or package and of the packages around it; nothing for any other name."""
    place = core.joinpath(*module.split("."))
    if place.is_dir():
        yield from place.rglob("*.py") if is_whole else [place / "__init__.py"]
    elif place.with_suffix(".py").is_file():
        yield place.with_suffix(".py")
    else:
        return
    for parent in place.relative_to(core).parents:
        yield core / parent / "__init__.py"
