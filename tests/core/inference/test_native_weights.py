import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from kedro.io import DatasetError, Version
from safetensors import safe_open

from supcon_pipeline.core.inference.native_weights import native_weights
from supcon_pipeline.core.models.encoder import build_model, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.datasets.exported import BackboneDataset
from supcon_pipeline.pipelines.export.nodes import export_backbone

CARD = {"num_images": 9, "class_names": ["ant", "bee"], "data_hash": "abc"}
RUN = {"run_id": "first"}
# Each way in which a network differs from that of its library.
MODELS: dict[str, dict[str, Any]] = {
    "timm": {"backbone": "timm/test_resnet", "image_size": 64},
    "timm, neck": {"backbone": "timm/test_efficientnet", "image_size": 64, "embedding_dim": 5},
    "timm, one channel": {"backbone": "timm/test_resnet", "image_size": 64, "channels": 1},
    "timm, small stem": {"backbone": "timm/test_resnet", "stem": "small_image", "image_size": 16},
    "timm, size": {"backbone": "timm/test_vit", "image_size": 32, "embedding_dim": 3},
    "torchvision": {"backbone": "mobilenet_v3_small", "image_size": 64},
    "torchvision, one channel": {"backbone": "mobilenet_v3_small", "image_size": 64, "channels": 1},
    "torchvision, neck": {"backbone": "convnext_tiny", "image_size": 32, "embedding_dim": 4},
    "torchvision, small stem": {
        "backbone": "resnet18",
        "stem": "small_image",
        "image_size": 16,
        "embedding_dim": 6,
        "channels": 1,
    },
    "torchvision, pool": {"backbone": "squeezenet1_1", "stem": "small_image", "image_size": 32},
    "torchvision, average": {"backbone": "alexnet", "stem": "small_image", "image_size": 32},
}
# What another process does with each folder; it finds this project nowhere.
ELSEWHERE = """
import json, pathlib, re, sys
import numpy, timm, torch
for folder in map(pathlib.Path, sys.argv[1:]):
    pixels = torch.from_numpy(numpy.load(folder / "pixels.npy"))
    code = re.search(r"```python\\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(code.replace("model.safetensors", str(folder / "model.safetensors")), names)
    with torch.no_grad():
        numpy.save(folder / "rows.npy", names["embed"](pixels))
        if "local-dir:" in (folder / "README.md").read_text():
            names["network"] = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            numpy.save(folder / "hub_rows.npy", names["embed"](pixels))
assert "supcon_pipeline" not in sys.modules
"""


def encoder_of(channels: int = 3, stem: str = "imagenet", **description: Any) -> NamedTensors:
    """An encoder whose batch-norm statistics are not those of the start."""
    torch.manual_seed(0)
    statistics = {"mean": [0.5, 0.4, 0.3][:channels], "std": [0.2, 0.25, 0.3][:channels]}
    model = {"kind": "contrastive", "stem": stem, **description, **statistics, "hidden_dim": 4, "dim": 2}
    built = build_model(model)
    size = description.get("stored_size", description["image_size"])
    with torch.no_grad():
        built.train()(torch.randint(0, 256, (6, size, size, channels), dtype=torch.uint8))
    return NamedTensors(built.state_dict(), {"model": model, "crop": "stretch"})


def export_card(encoder: NamedTensors) -> str:
    card: str = export_backbone(encoder, CARD, RUN).card
    return card


def export(encoder: NamedTensors, folder: Path) -> Path:
    """The folder that is written for an encoder."""
    dataset = BackboneDataset(str(folder / "backbone"), Version(None, "1"))
    dataset.save(export_backbone(encoder, CARD, RUN))
    return folder / "backbone/1/backbone"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What was exported of each model, with what another process and this one embed."""
    found = {}
    for index, (name, description) in enumerate(MODELS.items()):
        encoder = encoder_of(**description)
        found[name] = export(encoder, tmp_path_factory.mktemp(str(index)))
        size, channels = description["image_size"], description.get("channels", 3)
        images = np.random.default_rng(0).integers(0, 256, (3, size, size, channels), dtype=np.uint8)
        # In the memory layout of the libraries.
        ours = restore_model(encoder).encoder.to(memory_format=torch.contiguous_format)
        with torch.no_grad():
            np.save(found[name] / "expected.npy", ours(torch.from_numpy(images)).numpy())
        np.save(found[name] / "pixels.npy", images.transpose(0, 3, 1, 2) / np.float32(255))
    subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *map(str, found.values())], check=True)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_code_of_the_card_gives_our_embeddings_without_this_project(
    folders: dict[str, Path], name: str
) -> None:
    expected, rows = (np.load(folders[name] / f"{part}.npy") for part in ("expected", "rows"))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["timm", "timm, neck", "timm, one channel", "timm, size"])
def test_timm_reads_the_folder_as_that_of_a_hub(folders: dict[str, Path], name: str) -> None:
    rows, of_hub = (np.load(folders[name] / f"{part}.npy") for part in ("rows", "hub_rows"))
    np.testing.assert_array_equal(of_hub, rows)


def test_the_configuration_says_what_images_must_be(folders: dict[str, Path]) -> None:
    for name, description in MODELS.items():
        config = json.loads((folders[name] / "config.json").read_text())
        size = description["image_size"]
        expected = [description.get("channels", 3), size, size]
        assert config["architecture"] == description["backbone"].removeprefix("timm/")
        assert config["pretrained_cfg"]["input_size"] == expected
        assert config["pretrained_cfg"]["mean"] == [0.5, 0.4, 0.3][: expected[0]]


def test_the_file_says_its_format_and_holds_no_projection_head(folders: dict[str, Path]) -> None:
    with safe_open(folders["timm"] / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(timm.create_model("test_resnet", num_classes=0).state_dict())


def test_a_network_of_this_project_is_said_to_be_one(tmp_path: Path) -> None:
    encoder = encoder_of(backbone="resnet_narrow", stem="small_image", image_size=8, embedding_dim=3)
    folder = export(encoder, tmp_path)
    card = (folder / "README.md").read_text()
    assert "No library but supcon_pipeline has this network" in card
    assert "one more linear layer behind this network" in card
    assert json.loads((folder / "config.json").read_text())["model_args"] == {"stem": "small_image"}


def test_what_is_not_part_of_the_network_is_told() -> None:
    encoder = encoder_of(
        backbone="timm/test_resnet", image_size=64, stored_size=80, center_crop=0.9, mirror_average=True
    )
    weights = native_weights(encoder)
    assert weights.preparation["crop_pct"] == 0.9
    assert "the 72 x 72 in the middle are resized to 64 x 64" in weights.resize
    assert "the mean of the embeddings of an image and of its mirror image" in export_card(encoder)


def test_a_network_of_two_heads_takes_no_third() -> None:
    encoder = encoder_of(backbone="timm/deit_tiny_distilled_patch16_224", image_size=32, embedding_dim=3)
    assert native_weights(encoder).lacks_neck
    assert "one more linear layer behind this network" in export_card(encoder)


def test_this_project_does_not_read_the_folder(folders: dict[str, Path]) -> None:
    dataset = BackboneDataset(str(folders["timm"].parents[1]), Version("1", None))
    with pytest.raises(DatasetError, match=r"must be read as its README\.md says"):
        dataset.load()
