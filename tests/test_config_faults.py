"""Files of the configuration with faults, as people make them."""

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from kedro.io import AbstractDataset, DataCatalog

from supcon_pipeline.accidents import raise_in_one_line
from supcon_pipeline.commands import CommandError
from supcon_pipeline.config import ExperimentConfigLoader
from tests.conftest import TINY, make_project


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project") / "conf"


def read(conf: Path, key: str = "parameters", **given: Any) -> Any:
    """A part of the configuration of the tiny experiment."""
    loader = ExperimentConfigLoader(
        str(conf),
        **{"env": "tiny", "base_env": "base", "default_run_env": "local", "runtime_params": given},
        merge_strategy={"parameters": "soft"},
    )
    return loader[key]


FILE = "conf/tiny/parameters.yml must "
FAULTS = {
    b"data_prep: {image_size: 8": FILE
    + r"be YAML, got an error in line 1, column 26: expected ',' or '}'.*; mend",
    b"data_prep:\n\timage_size: 8\n": FILE
    + r"be YAML, got an error in line 2, column 1: found character '\\t'",
    b"seed: 1\nseed: 2\n": FILE + "be YAML, got an error in line 2, column 1: found duplicate key seed; mend",
    b"seed: *one": FILE + "be YAML, got an error in line 1, column 7: found undefined alias",
    b"seed: !seed 1": FILE + r"be YAML, got an error in line 1, column 7: could not determine a constructor",
    b"seed: 1\n# gr\xfc\xdf\n": FILE + r"be text in UTF-8, got other bytes in line 2; save it in UTF-8$",
    "seed: 1".encode("utf-16"): FILE + r"be text in UTF-8, got other bytes in line 1; save it in UTF-8$",
    b"seed: 1 \x01": FILE + r"be printable text, got the character U\+0001 at character 9; remove it$",
    b"- seed": FILE + r"hold names with values, got a list or a text; write it as name: value$",
    b"stage1: {lr: '${rate'}": FILE
    + r"have whole references, got an error for stage1\.lr: no viable .*; mend",
    b"stage1: {lr: '${rate}'}": r"stage1\.lr must refer to what .* key 'rate' not found; mend its",
    b"stage1: {transforms: {name: Flip}}": r"stage1\.transforms must be a list as in conf/base/"
    r"parameters_stage1\.yml, got names with values in conf/tiny/parameters\.yml; write it as it is there$",
    b"stage1: {optimizer: [sgd]}": r"stage1\.optimizer must be names with values .*, got a list in",
}


@pytest.mark.parametrize("content", FAULTS)
def test_a_fault_of_a_file_is_one_line_that_says_where_and_what_to_do(content: bytes, conf: Path) -> None:
    (conf / "tiny/parameters.yml").write_bytes(content)
    with pytest.raises(CommandError, match=f"^{FAULTS[content]}") as refused:
        read(conf)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["catalog", "globals"])
def test_the_other_files_are_told_of_likewise(name: str, conf: Path) -> None:
    (conf / f"tiny/{name}.yml").write_text("raw_images: [")
    with pytest.raises(CommandError, match=rf"^conf/tiny/{name}\.yml must be YAML, got an error in line 1"):
        read(conf, "catalog")


@pytest.mark.parametrize("name", ["catalog", "globals"])
def test_a_name_that_yaml_reads_as_something_else_is_one_line(name: str, conf: Path) -> None:
    (conf / f"tiny/{name}.yml").write_text("yes: data")
    with pytest.raises(
        CommandError, match=rf"^conf/tiny/{name}\.yml must have names of text, got True; write it in quotes$"
    ):
        read(conf, name)


def test_what_the_command_line_gives_must_fit_the_files(conf: Path) -> None:
    with pytest.raises(
        CommandError, match=r"^stage1\.transforms must be a list .* got names .* in --params;"
    ):
        read(conf, stage1={"transforms": {"name": "x"}})


def test_a_name_in_two_files_of_a_folder_is_one_line(conf: Path) -> None:
    (conf / "tiny/parameters_more.yml").write_text("data_prep: {image_size: 8}")
    with pytest.raises(CommandError, match=r"twice: .*: data_prep\.image_size; remove one$") as refused:
        read(conf)
    assert "\n" not in str(refused.value)


def test_a_refusal_while_a_path_of_the_catalog_is_resolved_keeps_its_words(conf: Path) -> None:
    (conf / "tiny/parameters.yml").write_text("seed: [")
    (conf / "tiny/catalog.yml").write_text(
        "raw_images: {type: json.JSONDataset, filepath: '${parameter:seed}'}"
    )
    with pytest.raises(CommandError, match=r"^conf/tiny/parameters\.yml must be YAML"):
        read(conf, "catalog")


def test_a_byte_order_mark_is_no_fault(conf: Path) -> None:
    (conf / "tiny/parameters.yml").write_text("seed: 7", encoding="utf-8-sig")
    assert read(conf)["seed"] == 7


def test_a_damaged_file_is_read_or_refused_in_one_line(conf: Path) -> None:
    rng, ends = random.Random(0), Counter[str]()
    for _ in range(60):
        content = bytearray(TINY["parameters.yml"].encode())
        place = rng.randrange(len(content))
        damage = rng.choice([b"", b"\t", b"\xfc", b"{", b"${", b"\0", b"'", b": "])
        content[place : place + rng.randrange(9)] = damage
        (conf / "tiny/parameters.yml").write_bytes(bytes(content))
        try:
            read(conf)
            ends["read"] += 1
        except click.ClickException as error:
            is_line = re.fullmatch(r"[^\n]+ must [^\n]+, got [^\n]+; [^\n]+", error.message)
            ends["refused" if is_line else error.message] += 1
    assert set(ends) == {"read", "refused"}


CSV = "supcon_pipeline.datasets.tables.CSVDataset"
ENTRIES: dict[str, Any] = {
    "a in the catalog must have a type and its arguments, got neither; write": None,
    "a in the catalog must have a type that .*, got an error: No module named 'supcn'; mend": {
        "type": "supcn.Data"
    },
    r"a in the catalog must have a type .*: Dataset 'CSVDat' not found in 'supcon_pipeline\.datasets": {
        "type": "supcon_pipeline.datasets.CSVDat"
    },
    "a in the catalog must have a type .*: 'type' is missing from": {"filepath": "a"},
    "a in the catalog must have arguments .* got an unexpected keyword argument 'pth'; mend": {
        **{"type": CSV, "filepath": "a", "pth": 1}
    },
    "a in the catalog must have arguments .*: it has no colours; mend": {
        "type": "tests.test_config_faults.Odd"
    },
    "credentials in the catalog must be in credentials.yml, got none named mine; add": {
        **{"type": CSV, "filepath": "a", "credentials": "mine"}
    },
    "filepath must be a path or an address in quotes, got None; mend": {"type": CSV, "filepath": None},
    r"filepath must be a path or an address in quotes, got \['a'\]; mend": {
        "type": "supcon_pipeline.datasets.packing.PackingDataset",
        "filepath": ["a"],
    },
}


class Odd(AbstractDataset[Any, Any]):
    """A dataset that cannot be made: of wrong arguments, or since it is wrong itself."""

    def __init__(self, error: type[Exception] = ValueError):
        raise error("it has no colours")

    def load(self) -> Any:
        """Nothing."""

    def save(self, data: Any) -> None:
        """Nothing."""

    def _describe(self) -> dict[str, Any]:
        return {}


def get_entry(entry: Any) -> Any:
    return DataCatalog.from_config({"a": entry}).get("a")


@pytest.mark.parametrize("line", ENTRIES)
def test_a_fault_of_an_entry_of_the_catalog_is_one_line(line: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        get_entry(ENTRIES[line])
    with pytest.raises(CommandError, match=f"^{line}") as refused:
        raise_in_one_line(raised.value)
    assert "\n" not in refused.value.message


def test_a_pattern_that_does_not_fit_its_entry_is_one_line() -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        DataCatalog.from_config({"{a}_b": {"type": CSV, "filepath": "{c}"}})
    with pytest.raises(CommandError, match=r"^catalog must have patterns that fit .*'\{c\}'.*; mend the"):
        raise_in_one_line(raised.value)


def test_a_fault_of_a_dataset_itself_keeps_its_traceback() -> None:
    with pytest.raises(Exception, match="Failed to instantiate") as raised:
        get_entry({"type": "tests.test_config_faults.Odd", "error": RuntimeError})
    raise_in_one_line(raised.value)
