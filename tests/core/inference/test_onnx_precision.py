from collections import Counter

import numpy as np
import onnx
import pytest
from tests.core.inference.small import small_states

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.inference.comparison import LEEWAYS, compare_outputs
from supcon_pipeline.core.inference.export import (
    assemble_outputs,
    convert_to_onnx,
    describe_export,
    open_onnx,
    read_onnx_metadata,
    run_module,
    trace_program,
)
from supcon_pipeline.core.inference.image_encoder import encoder_of_onnx
from supcon_pipeline.core.inference.onnx_precision import compare_knn, reduce_precision
from supcon_pipeline.core.messages import InputError


@pytest.fixture(scope="module")
def module():
    states = small_states(num_classes=2)
    assembled = assemble_outputs(*states, temperature=2.5)
    return assembled, describe_export(assembled, states[0], ["dark", "light"])


@pytest.fixture(scope="module")
def model(module):
    return convert_to_onnx(trace_program(*module))


@pytest.fixture(scope="module")
def data():
    """Dark and light images, twelve of each in train and eight in validation."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = generator.integers(0, 100, (40, 8, 8, 1)) + 150 * labels[:, None, None, None]
    splits = np.array(["train"] * 24 + ["validation"] * 16)
    return LabelledImages(images.astype(np.uint8), labels, splits)


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("float16", 0.52, 0.005), ("int8", 0.3, 0.1)])
def test_a_model_in_fewer_bits_is_smaller_and_gives_nearly_the_same_in_float(
    module, model, data, precision, share, tolerance
):
    before = model.SerializeToString()
    reduced = reduce_precision(model, precision, data, max_knn_loss=0.0)
    assert model.SerializeToString() == before
    assert reduced.ByteSize() < share * len(before)
    expected, given = run_module(module[0], data.images), open_onnx(reduced)(data.images)
    assert {name: values.dtype for name, values in given.items()} == dict.fromkeys(expected, np.float32)
    compare_outputs("it", expected, given, tolerance)
    if precision == "float16":
        compare_outputs("it", expected, given, 1e-3, LEEWAYS[precision])
    knn = {"num_images": 16, "before": 1.0, "after": 1.0}
    assert read_onnx_metadata(reduced) == {**read_onnx_metadata(model), "precision": precision, "knn": knn}
    embeddings = encoder_of_onnx(reduced).embed(list(data.images[:3]))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)


def test_weights_of_convolutions_are_integers_and_those_of_heads_stay_in_float(model, data):
    reduced = reduce_precision(model, "int8", data, max_knn_loss=1.0)
    sizes = Counter()
    for weight in reduced.graph.initializer:
        sizes[weight.data_type] += np.prod(weight.dims, dtype=int)
    assert sizes[onnx.TensorProto.INT8] > 0.95 * sizes.total()
    heads = [node for node in reduced.graph.node if node.op_type == "Gemm"]
    stored = {weight.name: weight.data_type for weight in reduced.graph.initializer}
    assert [stored[node.input[1]] for node in heads] == [onnx.TensorProto.FLOAT]


def test_a_loss_of_knn_accuracy_is_refused_with_one_that_would_be_enough(model, data, monkeypatch):
    accuracies = {"num_images": 1000, "before": 0.9, "after": 0.8938}
    monkeypatch.setattr("supcon_pipeline.core.inference.onnx_precision.compare_knn", lambda *_: accuracies)
    with pytest.raises(InputError, match=r"within 0.5 points, got float16, which .* 0.8938 of 0") as error:
        reduce_precision(model, "float16", data, max_knn_loss=0.005)
    enough = float(str(error.value).rpartition("--params export.max_knn_loss=")[2])
    assert read_onnx_metadata(reduce_precision(model, "float16", data, enough))["knn"] == accuracies


def test_what_onnxruntime_cannot_convert_is_one_line(model, data, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("no kernel\n\nwith many lines")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    message = r"must be one that this network can be converted to, got int8 \(RuntimeError: no kernel with"
    with pytest.raises(InputError, match=message):
        reduce_precision(model, "int8", data, max_knn_loss=1.0)


def test_knn_is_that_of_validation_images_among_train_or_of_unseen_classes_among_themselves():
    """Embeddings are the pixels themselves; by hand, one of three is nearer to the other class."""
    pixels = np.array([[9, 1], [1, 9], [8, 1], [1, 8], [1, 7]], dtype=np.uint8).reshape(5, 2, 1, 1)
    splits = np.array(["train"] * 2 + ["validation"] * 3)

    def run(images):
        return {"embedding": images.reshape(len(images), 2).astype(np.float32)}

    seen = LabelledImages(pixels, np.array([0, 1, 0, 1, 0]), splits)
    found = compare_knn(run, lambda images: {"embedding": np.ones((len(images), 2), np.float32)}, seen)
    assert (found["num_images"], found["before"]) == (3, pytest.approx(2 / 3))
    unseen = LabelledImages(pixels, np.array([0, 1, 2, 3, 3]), splits)
    assert compare_knn(run, run, unseen)["before"] == pytest.approx(2 / 3)
