import pandas as pd


def make_samples(rows):
    samples = pd.DataFrame(rows, columns=["id", "class_name", "split", "pixel_hash"])
    return samples.assign(duplicate_group=pd.factorize(samples["pixel_hash"])[0])


CLEAN = [
    (f"{class_name}/{split}{index}", class_name, split, f"{class_name}{split}{index}")
    for class_name in ("cat", "dog")
    for split in ("train", "validation", "test")
    for index in range(2)
]
