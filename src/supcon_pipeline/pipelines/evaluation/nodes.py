"""Nodes of `evaluation`."""

from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import SPLITS, rows_of
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters

# Height and width of the images whose pixels are compared.
PIXEL_SIZE = 32


def embed_samples(
    encoder: Any,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> Any:
    """Embedding and projection of every image of every split, in the order of the samples."""
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by
    from supcon_pipeline.core.named_tensors import NamedTensors, require_origin

    # Other data may have put into test what this encoder was trained on.
    require_origin("encoder", encoder, "data_hash", dataset_card["data_hash"], "run stage1 on this data")
    embeddings = embed_by(encoder, prepared_images, params.batch_size, pick_device())
    origin = {"checkpoint": _checkpoint(encoder), "sample_ids": samples["id"].tolist()}
    return NamedTensors(embeddings.tensors, {**embeddings.metadata, **origin})


def score_features(embeddings: Any, samples: pd.DataFrame, params: EvaluationParameters) -> dict[str, Any]:
    """Retrieval, clustering and k-NN metrics of both features: test images searched among training images."""
    from supcon_pipeline.core.metrics.features import feature_metrics
    from supcon_pipeline.core.named_tensors import require_order

    require_order(embeddings, samples["id"])
    labels = samples["label"].to_numpy()
    train, test = rows_of(samples, "train"), rows_of(samples, "test")
    within, scores = params.within(len(train)), {}
    for name in sorted(embeddings.tensors.keys() & {"projection", "embedding"}):
        rows = embeddings.tensors[name].numpy()
        scores[name] = feature_metrics(
            rows[test],
            labels[test],
            rows[train],
            labels[train],
            within.ks,
            within.knn.k,
            within.knn.temperature,
            **params.bootstrap.model_dump(),
        )
    return scores


def find_neighbours(embeddings: Any, samples: pd.DataFrame, params: EvaluationParameters) -> pd.DataFrame:
    """The nearest training images of each test image, by cosine similarity of the embeddings."""
    from supcon_pipeline.core.named_tensors import require_order
    from supcon_pipeline.core.search.neighbours import search_neighbours

    require_order(embeddings, samples["id"])
    rows = embeddings.tensors["embedding"].numpy()
    train, test = rows_of(samples, "train"), rows_of(samples, "test")
    num_neighbours = params.within(len(train)).num_neighbours
    similarities, nearest = search_neighbours(rows[test], rows[train], num_neighbours)
    return pd.DataFrame(
        {
            "query": test.repeat(num_neighbours),
            "rank": np.tile(np.arange(num_neighbours), len(test)),
            "reference": train[nearest].ravel(),
            "similarity": similarities.ravel(),
        }
    )


def find_suspicious_labels(
    embeddings: Any, samples: pd.DataFrame, dataset_card: dict[str, Any], params: EvaluationParameters
) -> pd.DataFrame:
    """The images of any split whose nearest training images have another label, most suspicious first."""
    from supcon_pipeline.core.metrics.label_errors import suspicious_labels
    from supcon_pipeline.core.named_tensors import require_order

    require_order(embeddings, samples["id"])
    in_use = rows_of(samples, *SPLITS)
    known, rows = samples.iloc[in_use], embeddings.tensors["embedding"].numpy()[in_use]
    train = rows_of(known, "train")
    # An image of train is no neighbour of its own.
    votes = params.within(len(train) - 1).knn.model_dump()
    labels, limit = known["label"].to_numpy(), params.num_suspicious
    found = suspicious_labels(rows, labels, train, **votes, limit=limit)
    table: pd.DataFrame = known.iloc[found["sample"]].reset_index(drop=True)
    table.insert(0, "sample", in_use[found["sample"]])
    names = np.array(dataset_card["class_names"])[found["suggested"]]
    columns = {"suggested": found["suggested"], "suggested_class": names, "suspicion": found["suspicion"]}
    return table.assign(**columns)


def list_confused_pairs(classifier_metrics: dict[str, Any], dataset_card: dict[str, Any]) -> pd.DataFrame:
    """The mistakes of the linear classifier on the test images, by pair of classes."""
    from supcon_pipeline.core.metrics.classification import confused_pairs

    names = np.array(dataset_card["class_names"])
    pairs = confused_pairs(classifier_metrics["confusion_matrix"])
    return pd.DataFrame({**pairs, "label": names[pairs["label"]], "predicted": names[pairs["predicted"]]})


def score_pixels(
    prepared_images: np.ndarray, samples: pd.DataFrame, params: EvaluationParameters
) -> dict[str, Any]:
    """The nearest neighbour on raw pixels, by Euclidean distance: what there was before learning."""
    from supcon_pipeline.core.data.pixels import shrink_images
    from supcon_pipeline.core.metrics.intervals import mean_intervals
    from supcon_pipeline.core.search.neighbours import find_nearest

    labels = samples["label"].to_numpy()
    train, test = rows_of(samples, "train"), rows_of(samples, "test")
    # Photographs would take as long as a training, and their fine grain tells nothing of the class.
    pixels = shrink_images(prepared_images, PIXEL_SIZE).reshape(len(prepared_images), -1)
    is_right = labels[test] == labels[find_nearest(pixels, test, train)]
    intervals = mean_intervals({"precision_at_1": is_right}, **params.bootstrap.model_dump())
    return {"precision_at_1": float(is_right.mean()), "intervals": intervals}


def predict_samples(
    classifier: Any, embeddings: Any, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the classifier says, with the probability."""
    from supcon_pipeline.core.named_tensors import require_order

    require_order(embeddings, samples["id"])
    logits = _classify(classifier, embeddings, rows_of(samples, "test"))
    return _tabulate(logits, samples, dataset_card)


def predict_baseline(
    baseline_embeddings: Any, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the baseline says, with the probability."""
    from supcon_pipeline.core.named_tensors import require_order

    require_order(baseline_embeddings, samples["id"])
    logits = baseline_embeddings.tensors["logits"][rows_of(samples, "test")]
    return _tabulate(logits, samples, dataset_card)


def score_classifier(
    classifier: Any,
    embeddings: Any,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the linear classifier on the test images, calibrated on the validation images."""
    from supcon_pipeline.core.named_tensors import require_order

    require_order(embeddings, samples["id"])
    rows = _held_out(np.arange(len(samples)), samples)
    logits = {split: _classify(classifier, embeddings, chosen).numpy() for split, chosen in rows.items()}
    return _score_logits(logits, samples, dataset_card, params)


def score_baseline_classifier(
    baseline_embeddings: Any,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the baseline on the test images, calibrated on the validation images."""
    from supcon_pipeline.core.named_tensors import require_order

    require_order(baseline_embeddings, samples["id"])
    logits = baseline_embeddings.tensors["logits"].numpy()
    return _score_logits(_held_out(logits, samples), samples, dataset_card, params)


def score_knn(
    embeddings: Any, samples: pd.DataFrame, dataset_card: dict[str, Any], params: EvaluationParameters
) -> dict[str, Any]:
    """Metrics of weighted k-NN among the training embeddings, calibrated on the validation images."""
    from supcon_pipeline.core.named_tensors import require_order
    from supcon_pipeline.core.search.knn import neighbour_log_votes

    require_order(embeddings, samples["id"])
    rows, train = embeddings.tensors["embedding"].numpy(), rows_of(samples, "train")
    labels, num_classes = samples["label"].to_numpy()[train], len(dataset_card["class_names"])
    votes = {"num_classes": num_classes, **params.within(len(train)).knn.model_dump()}
    logits = {
        split: neighbour_log_votes(queries, rows[train], labels, **votes)
        for split, queries in _held_out(rows, samples).items()
    }
    return _score_logits(logits, samples, dataset_card, params)


def collect_metrics(
    embeddings: Any,
    baseline_embeddings: Any,
    classifier: Any,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    **scores: dict[str, Any],
) -> dict[str, Any]:
    """All metrics on test without their tables, and what they speak of."""
    from supcon_pipeline.core.metrics.classification import without_tables
    from supcon_pipeline.core.training.budget import budget_differences

    checkpoints = {
        "encoder": embeddings.metadata["checkpoint"],
        "classifier": _checkpoint(classifier),
        "baseline": baseline_embeddings.metadata["checkpoint"],
    }
    trainings = (checkpoints[model]["parameters"] for model in ("encoder", "baseline"))
    features, baseline_features = scores["feature_metrics"], scores["baseline_feature_metrics"]
    kinds = ("classifier", "knn", "baseline_classifier")
    classifiers = {kind: without_tables(scores[f"{kind}_metrics"]) for kind in kinds}
    return {
        "run_id": run_record["run_id"],
        "data_hash": dataset_card["data_hash"],
        "checkpoint": checkpoints,
        "num_images": sum(dataset_card["counts"]["test"].values()),
        "baseline_differs": budget_differences(*trainings),
        **features,
        "pixels": scores["pixel_metrics"],
        "baseline": {**baseline_features, "classifier": classifiers.pop("baseline_classifier")},
        **classifiers,
    }


def _classify(classifier: Any, embeddings: Any, rows: np.ndarray) -> Any:
    """The logits of the samples at these rows, by the classifier that belongs to their encoder."""
    from supcon_pipeline.core.models.encoder import restore_model
    from supcon_pipeline.core.named_tensors import require_origin

    encoder_hash, remedy = embeddings.metadata["model_hash"], "run stage2 and its swa on this encoder"
    require_origin("classifier", classifier, "encoder_hash", encoder_hash, remedy)
    return restore_model(classifier)(embeddings.tensors["embedding"][rows]).detach()


def _score_logits(
    logits: dict[str, np.ndarray],
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    from supcon_pipeline.core.metrics.classification import classification_metrics

    labels = _held_out(samples["label"].to_numpy(), samples)
    return classification_metrics(
        logits["test"],
        labels["test"],
        logits["validation"],
        labels["validation"],
        dataset_card["class_names"],
        **params.bootstrap.model_dump(),
    )


def _tabulate(logits: Any, samples: pd.DataFrame, dataset_card: dict[str, Any]) -> pd.DataFrame:
    """The test samples with the likeliest class of each and its probability."""
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    names = np.array(dataset_card["class_names"])
    return samples.iloc[rows_of(samples, "test")].assign(
        predicted=predicted.numpy(),
        predicted_class=names[predicted.numpy()],
        probability=probability.numpy(),
    )


def _held_out(rows: np.ndarray, samples: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows of validation and of test."""
    return {split: rows[rows_of(samples, split)] for split in ("validation", "test")}


def _checkpoint(state: Any) -> dict[str, Any]:
    """Which run, epochs and parameters a model comes from."""
    epochs = sorted(member["epoch"] for member in state.metadata["averaged"])
    origin = {name: state.metadata[name] for name in ("run_id", "parameters")}
    return {**origin, "averaged_epochs": epochs}
