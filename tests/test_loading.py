"""Models from files, which may come from anywhere."""

import os
import re
import zipfile
from pathlib import Path

import pytest
import torch

from supcon_pipeline import load_encoder
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from tests.datasets.kinds import VALUES, open_artifact


class _Running:
    """What runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch it_ran",)


def test_a_pt2_is_opened_only_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(_Running(), tmp_path / "model.pt2")
    with pytest.raises(InputError) as refused:
        load_encoder(tmp_path / "model.pt2")
    assert str(refused.value) == (
        "trust must be true for a .pt2, because PyTorch runs code that is in the file, got false for "
        "'model.pt2'; load the .onnx of the same model, which holds no code, or, if you know who made the "
        f"file, type: load_encoder('{tmp_path / 'model.pt2'}', trust=True)"
    )
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.pt2"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<!doctype html>", b"0" * 999, b"zip"])
def test_a_file_that_is_no_model_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if content == b"zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    with pytest.raises(InputError, match="^" + re.escape(f"{path} must be a file of its kind")) as refused:
        load_encoder(path, trust=True)
    assert str(refused.value).isprintable()
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("exported.OnnxDataset", "metadata of artifact.onnx must have outputs, image_size"),
        (
            "exported.ProgramDataset",
            "metadata of artifact.pt2 must have .* got no image_size, num",
        ),
        (
            "named_tensors.NamedTensorsDataset",
            "artifact.safetensors must hold the weights of an encoder, got those of no model",
        ),
    ],
)
def test_another_model_is_refused_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    dataset, path = open_artifact(kind, tmp_path)
    dataset.save(VALUES[kind]())
    with pytest.raises(InputError, match=f"^{message}"):
        load_encoder(path, trust=True)


def test_the_weights_of_a_classifier_are_no_encoder(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    model = {"kind": "classifier", "num_features": 2, "num_classes": 2}
    NamedTensorsDataset(str(path)).save(NamedTensors({"weight": torch.ones(2, 2)}, {"model": model}))
    with pytest.raises(
        InputError,
        match=r"^classifier.safetensors must hold the weights of an encoder, got those of classifier",
    ):
        load_encoder(path)
