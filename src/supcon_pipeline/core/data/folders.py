"""The image files in a folder."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".avif", ".heic", ".heif", ".hif"),
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_TABLES = (".csv", ".tsv", ".parquet")
# What network drives, photograph managers and operating systems keep beside the files of their users.
_SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "icon\r"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "synoindex_media_info"),
        *("@recycle", "@recently-snapshot", "@__thumb"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        "lost+found",
    )
)
_SYSTEM_STARTS = ("synophoto_", "synofile_", "synovideo_")


def walk_images(top: str | os.PathLike[str], ignored: Counter[str]) -> Iterator[str]:
    """The image files in a folder, sorted by name, then those of each subfolder.

    Links are followed, and each real folder is read once. A folder that cannot be read is yielded like an
    image: decoding it gives the reason, so nothing is lost silently.

    Args:
        top: the folder.
        ignored: receives the number of entries left out, by kind.
    """
    seen, waiting = set(), [os.fspath(top)]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            ignored["links to a folder already read"] += 1
            continue
        seen.add(real)
        folders = []
        try:
            entries = list_entries(folder, ignored)
        except OSError:
            yield folder
            continue
        for entry in entries:
            ending = os.path.splitext(entry.name)[1].lower()
            if is_folder(entry):
                folders.append(entry.path)
            elif ending in ENDINGS:
                yield entry.path
            else:
                ignored[f"{decode_name(ending)} files" if ending else "files without an ending"] += 1
        waiting += reversed(folders)


def list_entries(folder: str | os.PathLike[str], ignored: Counter[str]) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; hidden ones and the system's are left out and counted."""
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    own = [entry for entry in entries if not _is_of_system(entry.name)]
    shown = [entry for entry in own if not entry.name.startswith(".")]
    ignored["of the system or a network drive"] += len(entries) - len(own)
    ignored["hidden"] += len(own) - len(shown)
    return shown


def describe_missing(path: Path) -> str:
    """What is where a folder of images should be, and what to do about it."""
    if not path.exists():
        return "which does not exist"
    if path.name.lower().endswith(_ARCHIVES):
        return "which is an archive; unpack it and give the folder"
    if path.suffix.lower() in _TABLES:
        return "which is a table; name it as filepath of an ImageTableDataset in the catalog (docs/images.md)"
    return "which is a file; give the folder that it is in"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_of_system(name: str) -> bool:
    """Whether a file or folder is none of the user's: thumbnails, bins, indices."""
    name = name.lower()
    return name in _SYSTEM_NAMES or name.startswith(_SYSTEM_STARTS)


def decode_name(name: str | os.PathLike[str]) -> str:
    """A file name as text, with bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
