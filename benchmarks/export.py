"""Size, time, largest difference and k-NN accuracy of an encoder as ONNX in each precision.

python benchmarks/export.py --folder <project> --env <experiment>

Of the newest run that has an encoder. Time is that of onnxruntime with one thread: the median over rounds in
which the precisions take turns, so that what else the machine does falls on all of them. The difference is
the largest in any embedding of test images, as a share of the largest value there; k-NN is that of
`export.max_knn_loss`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from kedro.framework.project import settings
from rich.console import Console
from rich.table import Table

from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.inference.export import (
    assemble_outputs,
    convert_to_onnx,
    describe_export,
    open_onnx,
    read_onnx_metadata,
    run_module,
    trace_program,
)
from supcon_pipeline.core.inference.onnx_precision import reduce_precision
from supcon_pipeline.projects import prepare_folder

PRECISIONS = ("float32", "float16", "int8")


def seconds_per_image(models: dict[str, Any], images: np.ndarray, rounds: int) -> dict[str, float]:
    """The median time of each model, in turns; the first round is not counted."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {name: InferenceSession(model.SerializeToString(), options) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds + 1):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"images": images})
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) / len(images) for name, taken in times.items()}


def measure(folder: Path, env: str | None, rounds: int, batch: int) -> list[dict[str, Any]]:
    """A row for each precision."""
    prepare_folder(folder)
    with settings.SESSION_CLASS.create(folder, env=env) as session:
        catalog = session.load_context().catalog
    encoder = catalog.load("encoder")
    data = LabelledImages.of(catalog.load("prepared_images"), catalog.load("samples"))
    module = assemble_outputs(encoder)
    models = {"float32": convert_to_onnx(trace_program(module, describe_export(module, encoder, [])))}
    for name in PRECISIONS[1:]:
        models[name] = reduce_precision(models["float32"], name, data, max_knn_loss=1.0)
    knn = {name: read_onnx_metadata(models[name])["knn"] for name in PRECISIONS[1:]}
    accuracies = {"float32": knn["int8"]["before"], **{name: found["after"] for name, found in knn.items()}}
    images = data.images[spread_evenly(data.indices("test"), batch)]
    expected = run_module(module, images)["embedding"]
    seconds = seconds_per_image(models, images, rounds)
    return [
        {
            "precision": name,
            "megabytes": model.ByteSize() / 1e6,
            "ms_per_image": 1000 * seconds[name],
            "times_float32": seconds[name] / seconds["float32"],
            "difference": float(
                np.abs(open_onnx(model)(images)["embedding"] - expected).max() / np.abs(expected).max()
            ),
            "knn_accuracy": accuracies[name],
            "validation_images": knn["int8"]["num_images"],
        }
        for name, model in models.items()
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="project, or where the package ran")
    parser.add_argument("--env", help="experiment")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16, help="images at once")
    arguments = parser.parse_args()
    rows = measure(arguments.folder.resolve(), arguments.env, arguments.rounds, arguments.batch)
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)
    print("RESULT", json.dumps(rows))


if __name__ == "__main__":
    main()
