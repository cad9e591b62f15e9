import numpy as np


def at_degrees(*angles, length=1.0):
    return length * np.array([[np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))] for angle in angles])


def retrieval_by_loop(queries, query_labels, references, reference_labels, k=1):
    """Musgrave et al. 2020, section 3.2, and the sums of textbooks, one query and one rank at a time."""
    scores = []
    for query, label in zip(queries, query_labels, strict=True):
        cosines = [query @ r / np.linalg.norm(query) / np.linalg.norm(r) for r in references]
        ranked = [reference_labels[index] == label for index in np.argsort(cosines)[::-1]]
        num_positives = sum(ranked)
        hits, precisions, within_r = 0, 0.0, (0, 0.0)
        for rank, is_hit in enumerate(ranked, start=1):
            hits += is_hit
            precisions += is_hit * hits / rank
            within_r = (hits, precisions) if rank == num_positives else within_r
        scores.append(
            [
                ranked[0],
                sum(ranked[:k]) / k,
                *(np.array([*within_r, precisions]) / num_positives),
                1 / (1 + ranked.index(True)),
            ]
        )
    names = [
        "precision_at_1",
        f"precision_at_{k}",
        "r_precision",
        "mean_average_precision_at_r",
        "mean_average_precision",
        "mean_reciprocal_rank",
    ]
    return {
        name: np.array(column, float) for name, column in zip(names, zip(*scores, strict=True), strict=True)
    }
