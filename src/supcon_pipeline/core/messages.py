"""Parts of messages: errors for unusable input, the nearest known name, the first few of many names."""

import difflib
import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

# All but line breaks, of which a message with several mistakes is made.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class InputError(ValueError):
    """Input that cannot be used; reads `<name> must <contract>, got <value>; <remedy>`.

    For what the user can fix; shown as that line alone. Any other exception is a bug and is shown with its
    traceback. Control characters, which a value from a file may have, are written out: a terminal would obey.
    """

    def __init__(self, *words: object):
        super().__init__(
            *(_CONTROLS.sub(_written_out, word) if isinstance(word, str) else word for word in words)
        )


class DivergenceError(InputError, FloatingPointError):
    """A training that is no longer finite; other parameters may prevent it."""


def require_extra(extra: str, *modules: str) -> None:
    """Refuse to go on without the modules of an optional extra.

    Args:
        extra: its name in pyproject.toml.
        modules: what is imported next.

    Raises:
        InputError: where one of them is not installed.
    """
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        raise InputError(
            f"{', '.join(absent)} must be installed for this, got no such module; "
            f"type pip install 'supcon_pipeline[{extra}]'"
        )


def nearest_names(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` known names that resemble `name`, nearest first; may be empty."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)


def suggest(name: str, known: Iterable[str], most: int = 1) -> str:
    """The remedy for an unknown name: the nearest known names, or the first 20 if none is near.

    Example:
        >>> suggest("supconn", ["supcon", "simclr"])
        "did you mean 'supcon'?"
    """
    known = list(known)
    nearest = nearest_names(name, known, most)
    return (
        f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"known are {name_some(known, 20)}"
    )


def show(value: Any, most: int = 120) -> str:
    """The value as a message shows it: in one line, and cut in the middle where it is long.

    Example:
        >>> show("a" * 99, 20)
        "'aaaaaaaaaa...aaaaa'"
    """
    text, end = repr(value), most // 3
    return text if len(text) <= most else f"{text[: most - 3 - end]}...{text[-end:]}"


def printable(text: str) -> str:
    """The text with line breaks, escape codes and other letters that cannot be seen written out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def format_bytes(count: float) -> str:
    """A number of bytes in words.

    Example:
        >>> format_bytes(1_500_000)
        '1.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def name_some(names: Iterable[Any], most: int = 3) -> str:
    """The first few names, and whether there are more.

    Example:
        >>> name_some("abcd")
        'a, b, c, and others'
    """
    names = list(names)
    return ", ".join(map(str, names[:most])) + (", and others" if len(names) > most else "")
