"""Peak memory and time of preparing images, by number of images, each in its own process.

python benchmarks/packing.py --counts 10000 200000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

SIZE = 32


class MadeFiles(Sequence[bytes]):
    """PNG files of noise, made on demand, so that they take no memory."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bytes:
        import cv2

        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1])


def prepare(count: int, num_workers: int) -> dict[str, float]:
    """Pack, hash and describe the images as `data_prep` does."""
    from supcon_pipeline.core.data.packing import Packing
    from supcon_pipeline.core.data.packing_store import PackingStore
    from supcon_pipeline.core.data.pixels import channel_statistics, content_hash, pixel_hashes

    packing = Packing(SIZE, 3, "pad")
    with tempfile.TemporaryDirectory() as folder:
        store, files = PackingStore(Path(folder)), MadeFiles(count)
        store.pack(MadeFiles(64), packing, num_workers)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        images, _ = store.pack(files, packing, num_workers)
        packed = time.perf_counter()
        pixel_hashes(images)
        channel_statistics(images)
        content_hash(images)
        described = time.perf_counter()
        store.pack(files, packing, num_workers)
        again = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "mib": (peak - before) / 1024,
        "resident_mib": peak / 1024,
        "pack_us_per_image": 1e6 * (packed - start) / count,
        "describe_us_per_image": 1e6 * (described - packed) / count,
        "again_us_per_image": 1e6 * (again - described) / count,
    }


def main() -> None:
    """Measure all counts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 200_000])
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(prepare(arguments.case, arguments.num_workers)))
        return
    table = Table(
        "images", "peak MiB", "above the start", "pack us each", "describe us each", "again us each"
    )
    results = []
    for count in arguments.counts:
        command = [
            sys.executable,
            __file__,
            "--case",
            str(count),
            "--num-workers",
            str(arguments.num_workers),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        results.append({"images": count, **found})
        cells = (found["resident_mib"], found["mib"], *(found[f"{name}_us_per_image"] for name in _STEPS))
        table.add_row(f"{count:,}", *(f"{value:,.1f}" for value in cells))
    Console(width=100).print(table)
    print("RESULT", json.dumps({"num_workers": arguments.num_workers, "cases": results}))


_STEPS = ("pack", "describe", "again")


if __name__ == "__main__":
    main()
