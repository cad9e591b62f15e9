"""Peak memory and time of preparing images, by number of images, each in its own process.

python benchmarks/packing.py --counts 10000 200000

And photographs by how they are stored: bytes and processor time of each, in this process on one thread.
They are the two that come with scikit-learn, repeated, or those of a folder.

python benchmarks/packing.py --counts 10000 --photographs data/01_raw/hymenoptera --num-photographs 1000
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


def list_photographs(folder: Path | None, count: int) -> list[np.ndarray | Path]:
    """So many photographs of a folder or of scikit-learn, repeated as often as it takes."""
    from sklearn.datasets import load_sample_images

    found = sorted(folder.rglob("*.jpg")) if folder else load_sample_images().images
    return [found[index % len(found)] for index in range(count)]


def store_photographs(
    photographs: list[np.ndarray | Path], image_size: int, storage: str
) -> dict[str, float]:
    """Pack, hash and describe photographs stored in one way."""
    from supcon_pipeline.core.data.packing import Packing
    from supcon_pipeline.core.data.packing_store import PackingStore
    from supcon_pipeline.core.data.pixels import channel_statistics, content_hash, pixel_hashes

    packing, count = Packing(image_size, 3, "crop", storage), len(photographs)
    with tempfile.TemporaryDirectory() as folder:
        store, start = PackingStore(Path(folder)), time.process_time()
        images, _ = store.pack(photographs, packing, 0)
        packed = time.process_time()
        pixel_hashes(images)
        channel_statistics(images)
        content_hash(images)
        described = time.process_time()
        store.pack(photographs, packing, 0)
        again = time.process_time()
        return {
            "bytes_per_image": images.nbytes / count,
            "packed_per_second": count / (packed - start),
            "described_per_second": count / (described - packed),
            "again_us_per_image": 1e6 * (again - described) / count,
        }


def compare_storages(folder: Path | None, count: int, image_size: int) -> list[dict]:
    """Photographs in each kind of storage."""
    import cv2

    photographs, num_threads = list_photographs(folder, count), cv2.getNumThreads()
    cv2.setNumThreads(0)
    rows = []
    for storage in ("squares", "encoded"):
        # What is loaded at the first image is no time of any.
        store_photographs(photographs[:8], image_size, storage)
        rows.append({"storage": storage, **store_photographs(photographs, image_size, storage)})
    cv2.setNumThreads(num_threads)
    return rows


def tabulate_storages(rows: list[dict]) -> Table:
    """A row for each kind of storage."""
    table = Table("storage", "KB per image", "packed/s", "hashed and described/s", "again us each")
    for row in rows:
        speeds = (row["packed_per_second"], row["described_per_second"])
        cells = (row["bytes_per_image"] / 1000, *speeds, row["again_us_per_image"])
        table.add_row(row["storage"], *(f"{value:,.0f}" for value in cells))
    return table


def main() -> None:
    """Measure all counts and both kinds of storage, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 200_000])
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("--num-photographs", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=256, help="at which photographs are stored")
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
    storages = compare_storages(arguments.photographs, arguments.num_photographs, arguments.image_size)
    for shown in (table, tabulate_storages(storages)):
        Console(width=100).print(shown)
    result = {"num_workers": arguments.num_workers, "cases": results, "storages": storages}
    print("RESULT", json.dumps(result))


_STEPS = ("pack", "describe", "again")


if __name__ == "__main__":
    main()
