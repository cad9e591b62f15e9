"""Training and inference on a CPU, with and without keeping the memory that is freed.

python benchmarks/memory.py --backbone timm/tf_efficientnet_lite0 --image-size 160

Each is run in a process of its own, in turn, and the best of the rounds counts.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

WAYS = ("returned", "kept")


def measure(backbone: str, image_size: int, batch_size: int) -> dict[str, float]:
    """Images per second, and the share of CPU time that went to the system."""
    import torch

    from supcon_pipeline.core.models.backbones import build_backbone

    network, _ = build_backbone(backbone, "imagenet", image_size=image_size)
    network.to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)

    def train() -> None:
        network.train()(images).sum().backward()

    @torch.inference_mode()
    def infer() -> None:
        network.eval()(images)

    result = {}
    for step in (train, infer):
        step()
        start = time.perf_counter()
        for _ in range(4):
            step()
        result[step.__name__] = 4 * batch_size / (time.perf_counter() - start)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    share = usage.ru_stime / (usage.ru_stime + usage.ru_utime)
    return {**result, "system": share, "peak": usage.ru_maxrss / 2**20}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        if arguments.way == "kept":
            from supcon_pipeline.core.device import keep_freed_memory

            keep_freed_memory()
        print(json.dumps(measure(arguments.backbone, arguments.image_size, arguments.batch_size)))
        return
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
    for _ in range(arguments.rounds):
        for way, results in rounds.items():
            command = [sys.executable, *sys.argv, "--way", way]
            results.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    best = {}
    for way, results in rounds.items():
        speeds = {name: max(result[name] for result in results) for name in ("train", "infer")}
        best[way] = speeds | {name: min(result[name] for result in results) for name in ("system", "peak")}
        print(
            "{way}: training {train:.1f} images/s, inference {infer:.1f} images/s, "
            "{system:.0%} of the CPU time in the system, {peak:.1f} GiB".format(way=way, **best[way])
        )
    print("RESULT", json.dumps(best))


if __name__ == "__main__":
    main()
