import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from tests.core.inference.small import small_states
from timm.models import maxxvit

from supcon_pipeline.core.inference.comparison import compare_outputs
from supcon_pipeline.core.inference.export import (
    assemble_outputs,
    compare_exports,
    convert_to_onnx,
    describe_export,
    open_onnx,
    read_onnx_metadata,
    run_module,
    trace_program,
)
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import build_model, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors


@pytest.fixture(scope="module")
def states():
    return small_states(num_classes=3)


@pytest.fixture(scope="module")
def module(states):
    return assemble_outputs(*states, temperature=2.5)


@pytest.fixture(scope="module")
def program(states, module):
    return trace_program(module, describe_export(module, states[0], ["cat", "dog", 'a "fox"']))


@pytest.fixture(scope="module")
def model(program):
    return convert_to_onnx(program)


def images(count):
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def test_what_is_exported_is_the_encoder_and_the_classifier_as_they_were_trained(states, module):
    pixels = images(3)
    outputs = run_module(module, pixels)
    with torch.no_grad():
        embedding = restore_model(states[0]).encoder(torch.from_numpy(pixels))
        logits = restore_model(states[1])(embedding)
    np.testing.assert_allclose(outputs["embedding"], embedding.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-5)
    expected = (logits / 2.5).softmax(dim=1)
    np.testing.assert_allclose(outputs["probabilities"], expected.numpy(), atol=1e-5)


def test_the_encoder_alone_gives_its_embedding_alone(states):
    assert run_module(assemble_outputs(states[0]), images(1)).keys() == {"embedding"}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_passes_the_program_and_onnx_with_equal_outputs(module, program, model, count):
    expected = run_module(module, images(count))
    for given in (program.open()(images(count)), open_onnx(model)(images(count))):
        differences = compare_outputs("it", expected, given, tolerance=1e-4)
        assert differences.keys() == {"embedding", "logits", "probabilities"}


def test_onnx_carries_the_labels_and_what_images_must_be(program, model):
    found = read_onnx_metadata(onnx.load_from_string(model.SerializeToString()))
    assert found == json.loads(json.dumps(program.metadata))
    assert found["class_names"] == ["cat", "dog", 'a "fox"']
    assert (found["image_size"], found["num_channels"], found["data_hash"]) == (8, 1, "abc")
    assert found["resize"].startswith("Both sides")
    assert found["temperature"] == 2.5


def test_an_encoder_with_a_neck_that_sees_the_middle_and_its_mirror_image_is_exported_as_it_is():
    description = {"kind": "contrastive", "backbone": "resnet_narrow", "stem": "small_image", "image_size": 8}
    description |= {"mean": [0.5], "std": [0.25], "hidden_dim": 4, "dim": 2}
    description |= {"stored_size": 12, "center_crop": 0.75, "embedding_dim": 5, "mirror_average": True}
    torch.manual_seed(0)
    origin = {"data_hash": "abc", "crop": "pad", "run_id": "first"}
    encoder = NamedTensors(build_model(description).state_dict(), {"model": description, **origin})
    module = assemble_outputs(encoder)
    program = trace_program(module, describe_export(module, encoder, []))
    assert program.metadata["image_size"] == 12
    assert program.metadata["resize"].endswith(
        "takes the 9 x 9 pixels in the middle by itself and sees them as 8 x 8."
        " The model embeds the mirror image too, and gives the mean of both."
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), dtype=np.uint8)
    expected = run_module(module, pixels)
    assert expected["embedding"].shape == (3, 5)
    for run in (program.open(), open_onnx(convert_to_onnx(program))):
        compare_outputs("it", expected, run(pixels), tolerance=1e-4)


def test_an_encoder_without_classifier_has_no_temperature(states):
    assert "temperature" not in describe_export(assemble_outputs(states[0]), states[0], [])


def test_the_metadata_say_that_images_were_stored_encoded_and_nothing_of_squares(states, module):
    encoder = states[0]
    assert "storage" not in describe_export(module, encoder, [])
    stored = NamedTensors(encoder.tensors, {**encoder.metadata, "storage": "encoded"})
    assert describe_export(module, stored, [])["storage"] == "encoded"


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_windows_is_exported_for_batches_of_any_size(monkeypatch):
    # One stage with windows and a grid, as all four have, and with two heads, whose order in memory is the
    # kernel's; the first stage has one.
    whole = maxxvit.model_cfgs["test_maxvit"]
    stage = replace(whole, embed_dim=whole.embed_dim[1:2], depths=whole.depths[1:2])
    monkeypatch.setitem(maxxvit.model_cfgs, "test_maxvit", stage)
    description = {
        "kind": "contrastive",
        "backbone": "timm/test_maxvit",
        "stem": "imagenet",
        "image_size": 64,
    }
    description |= {"mean": [0.5] * 3, "std": [0.25] * 3, "hidden_dim": 4, "dim": 2}
    origin = {"data_hash": "abc", "crop": "pad", "run_id": "first"}
    tensors = build_model(description).state_dict()
    encoder = NamedTensors(tensors, {"model": description, **origin})
    module = assemble_outputs(encoder)
    program = trace_program(module, describe_export(module, encoder, []))
    runs = program.open(), open_onnx(convert_to_onnx(program))
    for count in (1, 2, 5):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        expected = run_module(module, pixels)
        for run in runs:
            compare_outputs("it", expected, run(pixels), tolerance=1e-4)


def test_a_convolutional_network_is_exported_for_images_of_any_size(states, module):
    metadata = {**describe_export(module, states[0], ["a", "b", "c"]), "image_size": 24}
    program = trace_program(module, metadata, True)
    model = convert_to_onnx(program)
    assert read_onnx_metadata(model)["dynamic_resolution"] is True
    for height, width in ((24, 24), (48, 36), (19, 61)):
        pixels = np.random.default_rng(height).integers(0, 256, (3, height, width, 1), dtype=np.uint8)
        expected = run_module(module, pixels)
        for run in (program.open(), open_onnx(model)):
            compare_outputs("it", expected, run(pixels), tolerance=1e-4)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 1), dtype=np.uint8)
    found = compare_exports("classifier", module, program, model, pixels, tolerance=1e-4)
    files = ["classifier_program.pt2", "classifier_onnx.onnx"]
    assert list(found) == [*files, *(f"{file} at 48 x 36" for file in files)]


@pytest.mark.filterwarnings("ignore")
def test_a_network_with_positions_of_one_size_is_exported_for_no_other():
    description = {"kind": "contrastive", "backbone": "timm/vit_tiny_patch16_224", "stem": "imagenet"}
    description |= {"image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "hidden_dim": 4, "dim": 2}
    origin = {"data_hash": "abc", "crop": "pad", "run_id": "first"}
    encoder = NamedTensors(build_model(description).state_dict(), {"model": description, **origin})
    module = assemble_outputs(encoder)
    message = r"^export.dynamic_resolution must be false for a network that is made for one size, got true \("
    with pytest.raises(InputError, match=message) as refused:
        trace_program(module, describe_export(module, encoder, []), True)
    assert "\n" not in str(refused.value)


def test_a_program_that_gives_other_outputs_at_another_size_is_refused(states, module, monkeypatch):
    metadata = {**describe_export(module, states[0], []), "image_size": 24}
    monkeypatch.setattr("supcon_pipeline.core.inference.export.run_module", lambda *_: {"embedding": 1})
    with pytest.raises(InputError, match=r"^export.dynamic_resolution must .* outputs of the program must"):
        trace_program(module, metadata, True)


def test_a_network_that_torch_cannot_export_is_refused_in_one_line(module, program, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("exporter gave up\n\nwith a hundred lines")

    monkeypatch.setattr("torch.onnx.export", fail)
    monkeypatch.setattr("torch.export.export", fail)
    message = (
        r"must be a network that torch can export {}, got one it cannot \(RuntimeError: exporter gave up"
    )
    with pytest.raises(InputError, match=message.format("to ONNX")) as error:
        convert_to_onnx(program)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=message.format("as a program")):
        trace_program(module, program.metadata)


def test_the_tolerance_that_is_suggested_is_enough_for_all_outputs():
    expected = {"embedding": np.ones((2, 3)), "probabilities": np.ones((2, 3))}
    given = {"embedding": np.full((2, 3), 1.01), "probabilities": np.full((2, 3), 1.05)}
    with pytest.raises(InputError, match=r"^embedding of x .*export\.tolerance=5\.5e-02$"):
        compare_outputs("x", expected, given, 1e-3)
    assert compare_outputs("x", expected, given, 5.5e-2)["probabilities"] == pytest.approx(0.05)
