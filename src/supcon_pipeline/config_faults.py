"""Faults in the files of the configuration, told in one line."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kedro.io import DatasetError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError
from yaml.reader import ReaderError

from supcon_pipeline.commands import CommandError, causes
from supcon_pipeline.core.messages import InputError

# Begins the message of Kedro where two files of a folder hold the same name.
_DUPLICATES = "Duplicate keys found in "
# How Kedro words what is wrong with an entry of the catalog.
_ENTRY = re.compile(
    r"An exception occurred when parsing config for dataset '(?P<type>[^']+)':\s*(?P<reason>.+)"
    r"|(?P<argument>.+)\.\s*Dataset '(?P<entry>[^']+)' (?:must only contain|cannot be instantiated).*"
    r"|(?P<value>.+)\.\s*Failed to instantiate dataset '(?P<failed>[^']+)'.*"
    r"|Catalog entry '(?P<whole>[^']+)' is not a valid dataset configuration.*"
    r"|(?P<pattern>(?:Incorrect dataset configuration provided|Multiple catch-all patterns found).+)",
    re.DOTALL,
)
# What a dataset raises that cannot do with its arguments; all else is a fault of the dataset.
_OF_ARGUMENTS = (ValueError, AttributeError, KeyError, ImportError)


def explain_fault(error: Exception, files: Mapping[str, bytes], given: Mapping[str, Any]) -> Exception | None:
    """A fault as `<name> must <contract>, got <value>; <remedy>`; none where it is not one of the files.

    Args:
        error: raised where they were read, merged or resolved.
        files: contents by the names that are shown, in the order in which they are merged.
        given: what the command line gives beside them.
    """
    refusals = [cause for cause in causes(error) if isinstance(cause, InputError)]
    if refusals:
        return refusals[0]
    lines = [f"{name} must {fault}" for name, content in files.items() if (fault := _fault_of(content))]
    if lines:
        return CommandError(lines[0])
    if isinstance(error, OmegaConfBaseException):
        trees = {name: OmegaConf.to_container(_parse(content)) for name, content in files.items()}
        return CommandError(_conflict_of({**trees, "--params": given}) or _unresolved(error))
    if isinstance(error, AttributeError):
        # Kedro expects text, and YAML reads yes, on and 1 as something else.
        for place, content in files.items():
            for key in _parse(content):
                if not isinstance(key, str):
                    return CommandError(f"{place} must have names of text, got {key!r}; write it in quotes")
    if str(error).startswith(_DUPLICATES):
        words = " ".join(str(error).removeprefix(_DUPLICATES).split())
        return CommandError(f"names must stand in one file of a folder, got some twice: {words}; remove one")
    return None


def explain_entry(error: BaseException) -> str | None:
    """What is wrong with an entry of the catalog, as a line; none where the error is another one."""
    if isinstance(error, KeyError) and str(error.args[0]).startswith("Unable to find credentials '"):
        name = str(error.args[0]).split("'")[1]
        return f"credentials in the catalog must be in credentials.yml, got none named {name}; add them there"
    found = _ENTRY.fullmatch(str(error).strip()) if isinstance(error, DatasetError) else None
    if found is None:
        return None
    parts = found.groupdict()
    if parts["pattern"]:
        words = " ".join(parts["pattern"].split())
        return f"catalog must have patterns that fit their entries, got an error: {words}; mend the pattern"
    if parts["whole"]:
        name = parts["whole"]
        return (
            f"{name} in the catalog must have a type and its arguments, got neither; write it as in conf/base"
        )
    if parts["failed"] and not isinstance(error.__cause__, _OF_ARGUMENTS):
        return None
    name = parts["type"] or parts["entry"] or parts["failed"]
    reason = (parts["reason"] or parts["argument"] or parts["value"]).strip()
    # What to install, and hints, follow.
    reason = reason.splitlines()[0].split(". ")[0].rstrip(".")[:200]
    what = "a type" if parts["type"] else "arguments"
    return f"{name} in the catalog must have {what} that can be used, got an error: {reason}; mend its entry"


def _parse(content: bytes) -> Any:
    """A file as Kedro reads it."""
    return OmegaConf.load(io.StringIO(content.decode("utf8")))


def _fault_of(content: bytes) -> str | None:
    """What a file must be and is not, with the remedy."""
    try:
        tree = _parse(content)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return f"be text in UTF-8, got other bytes in line {line}; save it in UTF-8"
    except ReaderError as error:
        place = f"at character {error.position + 1:,}"
        return f"be printable text, got the character U+{error.character:04X} {place}; remove it"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(error.problem).split())
        return f"be YAML, got an error{place}: {problem}; mend what stands there or just before"
    except (YAMLError, OSError) as error:
        return f"be YAML, got an error: {' '.join(str(error).split())}; mend it"
    except OmegaConfBaseException as error:
        return (
            f"have whole references, got an error for {error.full_key}: {_first_line(error)}; mend its ${{}}"
        )
    if not OmegaConf.is_dict(tree):
        return "hold names with values, got a list or a text; write it as name: value"
    return None


def _conflict_of(trees: Mapping[str, Any]) -> str | None:
    """The first name that is a list in one place and holds names in another."""
    seen: dict[str, tuple[str, str]] = {}
    for place, tree in trees.items():
        for name, kind in _kinds(tree, ""):
            first, where = seen.setdefault(name, (kind, place))
            if first != kind:
                return f"{name} must be {first} as in {where}, got {kind} in {place}; write it as it is there"
    return None


def _kinds(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, list):
            yield f"{prefix}{key}", "a list"
        elif isinstance(value, Mapping):
            yield f"{prefix}{key}", "names with values"
            yield from _kinds(value, f"{prefix}{key}.")


def _unresolved(error: OmegaConfBaseException) -> str:
    """A value with a reference that leads nowhere."""
    name = error.full_key or "the configuration"
    return f"{name} must refer to what its folder has, got an error: {_first_line(error)}; mend its ${{}}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
