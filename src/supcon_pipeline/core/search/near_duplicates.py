"""Near-duplicates: one photograph twice, encoded again, resized, slightly cropped, shifted or brightened."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from supcon_pipeline.core.data.encoded_images import StoredImages, seen_at
from supcon_pipeline.core.data.pixels import pixel_hashes, read_chunks
from supcon_pipeline.core.data.subsets import limit_rows
from supcon_pipeline.core.search.neighbours import search_other_neighbours
from supcon_pipeline.core.vectors import unit_rows

# Height and width that images are hashed at, and the low frequencies that are kept of each axis.
_HASH_SIZE, _NUM_FREQUENCIES = 32, 8
# Of the images most like an image, the first few are looked at; how alike the last is tells what is usual.
_NUM_CANDIDATES, _NUM_USUAL = 8, 32
# A candidate is half as far away as what is usual, or closer than this.
_ALIKE = 0.95
# Of pairs that are given, those less alike than this are not compared.
_MAYBE_ALIKE = 0.8
# Height and width that images are compared at, and the margin that a crop may have lost.
_COMPARED_SIZE, _MARGIN = 64, 6
# Encoded images are decoded no larger than this, from which they are shrunk by area.
_SEEN_SIZE = 2 * _COMPARED_SIZE
# Coarser than this, in pixels, is light and background, which different photographs share.
_DETAIL = _COMPARED_SIZE / 8
# Most that a copy is scaled, sheared or moved: two crops of 5 % at each side.
_MAX_CHANGE, _MAX_SHIFT = 0.13, 0.09
# More images than this that look alike are of one kind, and no copies: blank pages, parts under one camera.
MAX_GROUP = 100


def near_duplicate_pairs(
    images: StoredImages,
    similarity: float | None,
    max_compared: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The pairs of images that show one photograph, the most similar first.

    Candidates are found by the low frequencies of the discrete cosine transform, from which the perceptual
    hash pHash is made; here they are not rounded to bits, which would lose shifted copies. Each candidate is
    then aligned to its partner and compared by its detail. The time grows with the square of the number of
    images, at some seconds for 50,000, up to `max_compared`; memory grows by 256 bytes per image.

    Args:
        images: may be memory-mapped; of identical ones, the first stands for all.
        similarity: least correlation of the detail of two images, in (0, 1]; `None` finds no pair.
        max_compared: of more images, so many are compared with all others; all if not given.
        seed: draws them.

    Returns:
        `first` and `second`, rows of the images, and `similarity`.

    Source:
        Zauner 2010, "Implementation and benchmarking of perceptual image hash functions" (pHash); Evangelidis
        and Psarakis 2008, doi:10.1109/TPAMI.2008.113 (alignment).
    """
    if similarity is None:
        return pd.DataFrame({"first": [], "second": [], "similarity": []}).astype(
            {"first": int, "second": int}
        )
    images = seen_at(images, _SEEN_SIZE)
    different = np.flatnonzero(~pd.Series(pixel_hashes(images)).duplicated().to_numpy())
    descriptors = _low_frequencies(images, different)
    # What is nearly of one colour has no detail, and is like everything.
    is_textured = descriptors.any(axis=1)
    rows = different[is_textured]
    queries = _draw_compared(len(rows), max_compared, seed)
    pairs = rows[_find_candidates(descriptors[is_textured], queries)]
    found = np.array(
        [detail_similarity(images[first], images[second]) for first, second in pairs], dtype=float
    )
    table = pd.DataFrame({"first": pairs[:, 0], "second": pairs[:, 1], "similarity": found})
    table = table[found >= similarity]
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def verified_pairs(
    images: StoredImages, pairs: Int[np.ndarray, "m 2"], similarity: float | None
) -> pd.DataFrame:
    """Those of the given pairs of images that show one photograph, perhaps mirrored, the most similar first.

    Args:
        images: may be memory-mapped.
        pairs: rows of the images.
        similarity: least correlation of the detail of two images, in (0, 1]; `None` finds no pair.

    Returns:
        As `near_duplicate_pairs`, and `is_mirrored`.
    """
    if similarity is None or not len(pairs):
        pairs = np.empty((0, 2), dtype=np.int64)
    images = seen_at(images, _SEEN_SIZE)
    rows, places = np.unique(pairs, return_inverse=True)
    first, second = _low_frequencies(images, rows)[places.reshape(-1, 2)].transpose(1, 0, 2)
    # Mirroring changes the sign of every other horizontal frequency.
    signs = np.tile(np.float32(-1) ** np.arange(_NUM_FREQUENCIES), _NUM_FREQUENCIES)
    scores = np.zeros((len(pairs), 2))
    for is_mirrored, sign in enumerate((np.ones_like(signs), signs)):
        for place in np.flatnonzero(np.einsum("ij,ij,j->i", first, second, sign) >= _MAYBE_ALIKE):
            one, other = images[pairs[place, 0]], images[pairs[place, 1]]
            other = np.ascontiguousarray(other[:, ::-1]) if is_mirrored else other
            scores[place, is_mirrored] = detail_similarity(one, other)
    table = pd.DataFrame({"first": pairs[:, 0], "second": pairs[:, 1], "similarity": scores.max(axis=1)})
    table["is_mirrored"] = scores.argmax(axis=1) == 1
    table = table[table["similarity"] >= (similarity or 1)]
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def _low_frequencies(images: StoredImages, chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
    """The low frequencies of each image at unit length, without its brightness; zeros where it has none."""
    from scipy.fft import dctn

    found = np.empty((len(chosen), _NUM_FREQUENCIES**2), dtype=np.float32)
    for row, image in zip(found, _iterate(images, chosen), strict=True):
        low = dctn(_shrink(image, _HASH_SIZE), norm="ortho")[:_NUM_FREQUENCIES, :_NUM_FREQUENCIES]
        row[:] = low.ravel()
    found[:, 0] = 0
    # A deviation of less than one of 255 levels is noise.
    found[np.linalg.norm(found, axis=1) < _HASH_SIZE] = 0
    return unit_rows(found)


def _iterate(images: StoredImages, chosen: Int[np.ndarray, " m"]) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    for chunk in read_chunks(images, chosen):
        yield from chunk


def _shrink(image: UInt8[np.ndarray, "h w c"], size: int) -> Float[np.ndarray, "size size"]:
    """The image in gray at one size, float32."""
    import cv2

    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[-1] == 3 else image[..., 0]
    interpolation = cv2.INTER_AREA if len(gray) >= size else cv2.INTER_CUBIC
    shrunk: np.ndarray = cv2.resize(gray, (size, size), interpolation=interpolation)
    return shrunk.astype(np.float32)


def _draw_compared(count: int, limit: int | None, seed: int) -> Int[np.ndarray, " q"]:
    """Which of the images are compared with all others."""
    rows, what = np.arange(count), "images are compared with all others for near-duplicates"
    if limit is None:
        return rows
    return limit_rows(rows, np.zeros(count), limit, seed, what, "data_prep.max_compared")


def _find_candidates(
    rows: Float[np.ndarray, "n dim"], queries: Int[np.ndarray, " q"]
) -> Int[np.ndarray, "m 2"]:
    """Pairs of a query and a row far more similar than is usual among these images, each once, in order."""
    if len(rows) < 2:
        return np.empty((0, 2), dtype=np.int64)
    num_usual = min(_NUM_USUAL, len(rows) - 1)
    similarities, found = search_other_neighbours(rows, np.arange(len(rows)), num_usual, queries)
    least = np.minimum(_ALIKE, (1 + similarities[:, -1:]) / 2)
    query, rank = np.nonzero(similarities[:, :_NUM_CANDIDATES] >= least)
    pairs = np.sort(np.stack([queries[query], found[query, rank]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def detail_similarity(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """The correlation of the details of two images after the best small alignment; 0 where there is none."""
    import cv2

    details = [_detail(_shrink(image, _COMPARED_SIZE)) for image in (first, second)]
    masks = [_content_mask(image) for image in (first, second)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-5)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, found = cv2.findTransformECC(
            details[0], details[1], start, cv2.MOTION_AFFINE, criteria, masks[0], 5
        )
    except cv2.error:
        return 0.0
    alignment = np.asarray(found)
    if not _is_small(alignment):
        return 0.0
    size, flags = (_COMPARED_SIZE, _COMPARED_SIZE), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(details[1], alignment, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    is_common = (masks[0] & cv2.warpAffine(masks[1], alignment, size, flags=flags)) == 255
    return _correlation(details[0][is_common], np.asarray(aligned)[is_common])


def _correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    if len(first) < _COMPARED_SIZE or min(first.std(), second.std()) < 1e-3:
        return 0.0
    return float(np.corrcoef(np.stack([first, second]))[0, 1])


def _content_mask(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "size size"]:
    """255 where an image is compared: not at its margin, nor where its first or last line was repeated."""
    mask = np.zeros((_COMPARED_SIZE, _COMPARED_SIZE), dtype=np.uint8)
    bounds = []
    for lines in (image, image.swapaxes(0, 1)):
        is_new = (lines[1:] != lines[:-1]).any(axis=(1, 2))
        repeated = (is_new.argmax(), is_new[::-1].argmax())
        before, after = (_MARGIN + int(np.ceil(count * _COMPARED_SIZE / len(lines))) for count in repeated)
        bounds.append(slice(before, _COMPARED_SIZE - after))
    mask[bounds[0], bounds[1]] = 255
    return mask


def _detail(gray: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    import cv2

    detail: np.ndarray = gray - cv2.GaussianBlur(gray, (0, 0), _DETAIL)
    return detail


def _is_small(alignment: Any) -> bool:
    """Whether an affine map leaves an image about where it was."""
    centre = np.full(2, _COMPARED_SIZE / 2)
    shift = alignment @ np.append(centre, 1) - centre
    change = alignment[:, :2] - np.eye(2)
    return bool(np.abs(change).max() < _MAX_CHANGE and np.abs(shift).max() < _MAX_SHIFT * _COMPARED_SIZE)


def tabulate_pairs(pairs: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the id, the class and the split of both images.

    Args:
        pairs: as `near_duplicate_pairs` gives them.
        samples: `id`, `class_name` and `split` of each image.
    """
    table = pairs.copy()
    for side in ("first", "second"):
        own = samples.iloc[pairs[side]].reset_index(drop=True)
        table = table.assign(
            **{f"{side}_{name.removesuffix('_name')}": own[name] for name in ("id", "class_name", "split")}
        )
    return table


def group_duplicates(hashes: pd.Series, pairs: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """A number for each image, the same for images that are identical or near-duplicates of one another.

    Groups of more than `MAX_GROUP` different images are taken apart: they are of one kind, and no copies.

    Args:
        hashes: hash of the pixels of each image.
        pairs: as `near_duplicate_pairs` gives them.
    """
    codes, _ = pd.factorize(hashes)
    edges = codes[pairs[["first", "second"]].to_numpy(dtype=np.int64)]
    groups = _connect(edges, codes.max() + 1)
    is_group = np.bincount(groups)[groups[edges[:, 0]]] <= MAX_GROUP
    return _connect(edges[is_group], codes.max() + 1)[codes]


def _connect(edges: Int[np.ndarray, "m 2"], count: int) -> Int[np.ndarray, " count"]:
    """The number of the connected component of each node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    groups: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups
