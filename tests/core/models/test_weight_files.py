import argparse
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from supcon_pipeline.core.atomic import write_checksum
from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.models.weight_files import read_state, read_statistics

STATE = {"conv.weight": torch.ones(2, 3), "norm.weight": torch.ones(2), "norm.bias": torch.zeros(2)}
OTHER = {name: value + 7 for name, value in STATE.items()}


def under(prefix, state=STATE):
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED = {
    "plain": STATE,
    "DataParallel": under("module."),
    "torch.compile": under("_orig_mod."),
    "both": under("module._orig_mod."),
    "a prefix of one's own": {**under("my.net."), "my.head.weight": torch.ones(1)},
    "a key": {"state_dict": STATE, "epoch": 3},
    "key in key": {"model": {"state_dict": STATE}, "optimizer": {}},
    "arguments and numbers beside": {
        "args": argparse.Namespace(temp=0.1),
        "best": np.float64(0.5),
        "model_state_dict": STATE,
    },
    "SupContrast": {"model": {**under("module.encoder."), "module.head.0.weight": torch.ones(1)}, "epoch": 3},
    "lightning": {"state_dict": under("model."), "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
    "solo-learn": {"state_dict": {**under("backbone."), **under("momentum_backbone.", OTHER)}},
    "MoCo": {"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", OTHER)}},
    "timm with an average": {"state_dict": OTHER, "state_dict_ema": STATE},
    "DINO": {"student": under("module.backbone.", OTHER), "teacher": under("module.backbone.")},
    "averaged by torch": {"n_averaged": torch.tensor(3), **under("module.")},
}


def write(path, content):
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_as_other_programs_write_them(tmp_path, kind):
    found = read_state(write(tmp_path / "weights.pth", WRAPPED[kind]), STATE.keys())
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_what_a_file_holds_besides_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "weights.pth", WRAPPED["SupContrast"])
    read_state(path, STATE.keys())
    expected = f"Weights are the 3 tensors of {path}['model'] after 'module.encoder.'; "
    assert f"{expected}left out: module.head.0.weight" in caplog.text


def test_weights_of_a_training_that_diverged_are_refused_by_name(tmp_path):
    name = next(iter(STATE))
    path = write(tmp_path / "weights.pth", under("module.", {**STATE, name: STATE[name] * float("nan")}))
    with pytest.raises(
        InputError, match=rf"must be finite, got .* with nan or inf in {name}; use a checkpoint"
    ):
        read_state(path, STATE.keys())


def test_one_of_two_networks_is_not_chosen_at_random(tmp_path):
    path = write(tmp_path / "weights.pth", {**under("0/encoder."), **under("1/encoder.", OTHER)})
    with pytest.raises(
        InputError, match=r"must hold one network, got .* with several, under 0/encoder., 1/enc"
    ):
        read_state(path, STATE.keys())


class Unpickled:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("pickle-ran"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": STATE, "path": Path("a")},
            r"must hold tensors alone, got .* with a pathlib\.\w+, which",
        ),
        (torch.nn.Linear(1, 1), r"must hold tensors alone, got .* with a torch\.nn\.modules\.linear\.Linear"),
        (
            {"state_dict": STATE, "x": Unpickled()},
            "must hold tensors alone, got .*, which only its own code can",
        ),
        (
            {"weights": STATE, "epoch": 1},
            "must hold a state dict, tensors by name, got .* with weights, epoch;",
        ),
        ({**STATE, "epoch": 1}, r"must hold a state dict, tensors by name, got .*\.pth' with epoch;"),
        ([1, 2], r"must hold a state dict, tensors by name, got .*\.pth'; save the tensors"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_in_one_line_and_runs_no_code(
    tmp_path, monkeypatch, content, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_state(write(tmp_path / "weights.pth", content), STATE.keys())
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert not Path("pickle-ran").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"abc", pickle.dumps({"a": 1}), pickle.dumps(Unpickled())])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(
        InputError, match=r"must (be a .safetensors or .pth file of tensors|hold tensors)"
    ) as error:
        read_state(name, STATE.keys())
    assert "\n" not in str(error.value)
    assert not Path("pickle-ran").exists()


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("stem", ["small_image", "imagenet"])
@pytest.mark.parametrize("name", ["resnet_narrow", "resnet18", "timm/test_resnet"])
def test_an_encoder_of_this_project_is_where_another_starts(tmp_path, name, stem, num_channels):
    description = {"kind": "contrastive", "backbone": name, "stem": stem, "hidden_dim": 4, "dim": 2}
    channels = {"mean": [0.5] * num_channels, "std": [0.2] * num_channels}
    tensors = build_model({**description, **channels}).state_dict()
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "encoder.safetensors")
    network, _ = build_backbone(name, stem, num_channels, weights=str(tmp_path / "encoder.safetensors"))
    for key, value in network.state_dict().items():
        assert torch.equal(value, tensors[f"encoder.backbone.{key}"]), key


@pytest.mark.parametrize("name", ["timm/test_convnext", "timm/test_vit", "resnet18"])
def test_a_file_of_another_network_is_refused_by_its_first_names(tmp_path, name):
    path = write(tmp_path / "weights.pth", torchvision.models.mobilenet_v3_small().state_dict())
    with pytest.raises(InputError, match=f"weights must fit {name}, got a file (without|of other)") as error:
        build_backbone(name, "imagenet", weights=path, image_size=64)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_prefix_is_taken_off_for_a_network_of_timm_too(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    path = write(tmp_path / "weights.pth", {"state_dict": under("model.backbone.", state)})
    network, _ = build_backbone("timm/test_resnet", "imagenet", weights=path)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("file", "config", "expected"),
    [
        ("model.safetensors", {"architecture": "resnet18"}, ([0.1], [0.2])),
        ("model.safetensors", {"architecture": "resnet18.mine"}, ([0.1], [0.2])),
        ("model.safetensors", {"architecture": "resnet50"}, None),
        ("model.safetensors", {"architecture": None}, None),
        ("model.safetensors", {}, None),
        ("model.safetensors", [], None),
        ("other.safetensors", {"architecture": "resnet18"}, None),
    ],
)
def test_statistics_are_those_of_a_config_of_that_network_beside_the_weights(
    tmp_path, file, config, expected
):
    save_file(STATE, tmp_path / file)
    assert read_statistics(str(tmp_path / file), "resnet18") is None
    if config:
        config = {**config, "pretrained_cfg": {"mean": [0.1], "std": [0.2]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_statistics(str(tmp_path / file), "resnet18") == expected


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_weights_and_what_is_beside_them_are_refused_where_their_checksum_differs(tmp_path, name):
    save_file(STATE, tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.1], "std": [0.2]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / name
    write_checksum(path, checksum_of(path))
    weights = str(tmp_path / "model.safetensors")
    assert read_statistics(weights, "resnet18") == ([0.1], [0.2])
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"weights and .* must be as it was saved, got other .*{name}'; rest"
    ):
        read_statistics(weights, "resnet18")


def test_a_config_that_is_cut_short_does_not_change_how_images_are_normalised(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretr')
    with pytest.raises(
        InputError, match=r"config.json beside .* must be JSON, got one .*; restore"
    ) as refused:
        read_statistics(str(tmp_path / "model.safetensors"), "resnet18")
    assert "\n" not in str(refused.value)
