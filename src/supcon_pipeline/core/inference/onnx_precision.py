"""ONNX models in half precision and in 8-bit integers, which must hold the accuracy of k-NN."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.inference.comparison import Arrays
from supcon_pipeline.core.inference.export import (
    open_onnx,
    read_onnx_metadata,
    refusing,
    with_metadata,
)
from supcon_pipeline.core.messages import InputError, require_extra
from supcon_pipeline.core.search.knn import knn_probabilities
from supcon_pipeline.core.search.neighbours import search_gallery

Run = Callable[[UInt8[np.ndarray, "some h w c"]], Arrays]
# Weighted k-NN as `evaluation` has it by default.
_K, _TEMPERATURE = 20, 0.07
# At most so many validation images are classified, among so many of train.
_MAX_QUERIES, _MAX_REFERENCES = 1000, 2000
# Training images whose activations give the ranges of the integers.
_NUM_CALIBRATED = 200
_BATCH_SIZE = 32
# The heads stay in float: they are small, and the outputs keep their digits.
_IN_INTEGERS = ("Conv", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool")


def reduce_precision(model: Any, precision: str, data: LabelledImages, max_knn_loss: float) -> Any:
    """An ONNX model in fewer bits, with the k-NN accuracies before and after in its metadata.

    Its inputs and outputs have the types that they had.

    Args:
        model: as `convert_to_onnx` gives it.
        precision: `float16` or `int8`.
        data: `train`, by which integers are calibrated, and `validation`.
        max_knn_loss: how much of the k-NN accuracy on validation images may be lost, from 0 to 1.

    Raises:
        InputError: where onnxruntime cannot convert the network, or too much is lost.
    """
    require_extra("onnx", "onnx", "onnxruntime")
    start = f"export.onnx_precision must be one that this network can be converted to, got {precision}"
    with refusing(start, "leave it out"):
        if precision == "float16":
            reduced = _to_float16(model)
        else:
            train = spread_evenly(data.indices("train"), _NUM_CALIBRATED)
            reduced = _to_int8(model, _batches(data.images, train))
        run = open_onnx(reduced)
    knn = compare_knn(open_onnx(model), run, data)
    loss = knn["before"] - knn["after"]
    if loss > max_knn_loss:
        raise InputError(
            "export.onnx_precision must hold the accuracy of k-NN on validation images within "
            f"{100 * max_knn_loss:.3g} points, got {precision}, which makes {knn['after']:.4f} of "
            f"{knn['before']:.4f} on {knn['num_images']} images; leave it out, or if that is good enough, "
            f"add --params export.max_knn_loss={np.ceil(1000 * loss) / 1000:.3f}"
        )
    return with_metadata(reduced, {**read_onnx_metadata(model), "precision": precision, "knn": knn})


def _copy(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _to_float16(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # Of each weight that is too small for it and becomes zero.
        warnings.simplefilter("ignore")
        return convert_float_to_float16(_copy(model), keep_io_types=True)


def _to_int8(model: Any, batches: Iterator[UInt8[np.ndarray, "some h w c"]]) -> Any:
    """Weights and activations as integers, whose ranges are those that batches of images give."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Batches(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    copy = _copy(model)
    # It is what the preparation makes that onnxruntime would recommend.
    add_pre_process_metadata(copy)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            copy,
            path,
            Batches(),
            op_types_to_quantize=list(_IN_INTEGERS),
            per_channel=True,
            # Seven bits of weights: with eight, a processor without VNNI overflows where others do not.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(str(path))


def _batches(images: StoredImages, rows: Int[np.ndarray, " m"]) -> Iterator[UInt8[np.ndarray, "some h w c"]]:
    for start in range(0, len(rows), _BATCH_SIZE):
        yield np.ascontiguousarray(images[rows[start : start + _BATCH_SIZE]])


def compare_knn(model: Run, reduced: Run, data: LabelledImages) -> dict[str, Any]:
    """The k-NN accuracy on validation images of two models that give embeddings.

    At most a thousand validation images, evenly spread, are classified among at most two thousand of train;
    or among one another, where train lacks their classes.

    Returns:
        `num_images`, and from 0 to 1 `before`, of the first model, and `after`, of the other.
    """
    queries = spread_evenly(data.indices("validation"), _MAX_QUERIES)
    train = spread_evenly(data.indices("train"), _MAX_REFERENCES)
    gallery = queries if data.has_unseen_classes else train
    before, after = (_knn_accuracy(run, data, queries, gallery) for run in (model, reduced))
    return {"num_images": len(queries), "before": before, "after": after}


def _knn_accuracy(
    run: Run,
    data: LabelledImages,
    queries: Int[np.ndarray, " q"],
    gallery: Int[np.ndarray, " m"],
) -> float:
    """The share of queries that are of the class that the images of a gallery say, without themselves."""
    rows = np.union1d(queries, gallery)
    labels, own = data.labels[rows], np.arange(len(rows))
    query_places, gallery_places = (np.searchsorted(rows, of) for of in (queries, gallery))
    embeddings = np.concatenate([run(batch)["embedding"] for batch in _batches(data.images, rows)])
    similarities, found = search_gallery(embeddings, query_places, gallery_places, _K, (own,))
    votes = knn_probabilities(similarities, labels[found], int(labels.max()) + 1, _TEMPERATURE)
    return float((votes.argmax(axis=1) == data.labels[queries]).mean())
