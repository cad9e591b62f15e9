import shutil
from pathlib import Path

import grimp
import pytest

from supcon_pipeline.core.sources import CORE, imported_sources, source_hash
from supcon_pipeline.core.training.identity import code_hash

PACKAGE = "supcon_pipeline.core"


def module_name(path: Path) -> str:
    return ".".join([PACKAGE, *path.relative_to(CORE).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize(("module", "is_package"), [("training", True), ("data.packing", False)])
def test_the_sources_are_those_of_the_import_graph_and_the_packages_they_are_in(
    module: str, is_package: bool
) -> None:
    graph, name = grimp.build_graph("supcon_pipeline"), f"{PACKAGE}.{module}"
    imported = graph.find_upstream_modules(name, as_package=is_package)
    imported |= {name, *(graph.find_descendants(name) if is_package else ())}
    expected = {each for each in imported if f"{each}.".startswith(f"{PACKAGE}.")}
    packages = {each.rpartition(".")[0] for each in expected} - {"supcon_pipeline"}
    assert {module_name(path) for path in imported_sources(module)} == expected | packages


@pytest.fixture
def core(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CORE, tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_code_of_a_training_is_known_by_its_content_and_not_by_where_it_lies(core: Path) -> None:
    assert source_hash("training", core) == code_hash()


@pytest.mark.parametrize(
    "changed", ["losses/supcon.py", "views/policy.py", "models/stems.py", "training/loop.py", "vectors.py"]
)
def test_a_byte_in_what_training_imports_is_another_training(core: Path, changed: str) -> None:
    (core / changed).write_bytes((core / changed).read_bytes() + b"#")
    assert source_hash("training", core) != code_hash()


@pytest.mark.parametrize(
    "changed", ["pages/report.py", "figures/maps.py", "inference/export.py", "data/packing_store.py"]
)
def test_a_byte_in_what_training_does_not_import_is_the_same_training(core: Path, changed: str) -> None:
    (core / changed).write_bytes((core / changed).read_bytes() + b"#")
    assert source_hash("training", core) == code_hash()


def test_a_file_that_moves_is_another_training_and_is_still_found(core: Path) -> None:
    (core / "losses/supcon.py").rename(core / "losses/contrastive.py")
    for path in core.rglob("*.py"):
        path.write_text(path.read_text().replace("losses.supcon", "losses.contrastive"))
    assert core / "losses/contrastive.py" in imported_sources("training", core)
    assert source_hash("training", core) != code_hash()


@pytest.mark.parametrize(
    ("changed", "is_another"),
    [("data/decoding.py", True), ("data/pixels.py", True), ("losses/supcon.py", False)],
)
def test_a_packing_is_known_by_the_code_that_makes_its_pixels(
    core: Path, changed: str, is_another: bool
) -> None:
    (core / changed).write_bytes((core / changed).read_bytes() + b"#")
    assert (source_hash("data.packing", core) != source_hash("data.packing")) == is_another
