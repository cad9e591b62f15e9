import pandas as pd


def make_samples(rows):
    return pd.DataFrame(rows, columns=["id", "class_name", "split", "pixel_hash"])


CLEAN = [
    (f"{class_name}/{split}{index}", class_name, split, f"{class_name}{split}{index}")
    for class_name in ("cat", "dog")
    for split in ("train", "validation", "test")
    for index in range(2)
]
