"""Nodes of `evaluation`."""

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from supcon_pipeline.core.data.images import LabelledEmbeddings, rows_of
from supcon_pipeline.core.named_tensors import NamedTensors, require_order, require_origin
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters

# Height and width of the images whose pixels are compared.
PIXEL_SIZE = 32


def embed_samples(
    encoder: NamedTensors,
    prepared_images: np.ndarray,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> NamedTensors:
    """Embedding and projection of every image of every split, in the order of the samples."""
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by

    # Other data may have put into test what this encoder was trained on.
    remedy = "type: kedro run --pipelines stage1,stage1_swa,stage2,stage2_swa,baseline,baseline_swa"
    require_origin("encoder", encoder.metadata, "data_hash", dataset_card["data_hash"], remedy)
    embeddings = embed_by(encoder, prepared_images, params.batch_size, pick_device())
    origin = {"checkpoint": _checkpoint(encoder), "sample_ids": samples["id"].tolist()}
    return NamedTensors(embeddings.tensors, {**embeddings.metadata, **origin})


def score_features(
    embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters
) -> dict[str, Any]:
    """Retrieval, clustering and k-NN metrics of both features: test images searched among training images."""
    from supcon_pipeline.core.metrics.features import feature_metrics

    labelled = LabelledEmbeddings.of(embeddings, samples)
    within = params.within(len(labelled.rows_of("train")))
    return {
        name: feature_metrics(
            *labelled.select(name, "test"),
            *labelled.select(name, "train"),
            within.ks,
            within.knn.k,
            within.knn.temperature,
            **params.bootstrap.model_dump(),
        )
        for name in ("embedding", "projection")
        if name in labelled.outputs
    }


def score_learning_curve(
    embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters
) -> pd.DataFrame:
    """Accuracy on the test images of classifiers that know few training embeddings of each class, and all."""
    from supcon_pipeline.core.metrics.learning_curve import learning_curve

    labelled = LabelledEmbeddings.of(embeddings, samples)
    return pd.DataFrame(
        learning_curve(
            *labelled.select("embedding", "test"),
            *labelled.select("embedding", "train"),
            params.learning_curve.counts,
            params.learning_curve.num_draws,
            params.knn.k,
            params.knn.temperature,
            **params.bootstrap.model_dump(),
        )
    )


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


def score_published(
    published_embeddings: NamedTensors,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the weights that the encoder started from, as of the encoder; empty if from scratch."""
    from supcon_pipeline.core.metrics.published import require_start

    backbone = embeddings.metadata["checkpoint"]["parameters"]["backbone"]
    require_start(published_embeddings.metadata.get("backbone"), backbone)
    if not published_embeddings.tensors:
        return {}
    return {
        **score_features(published_embeddings, samples, params),
        "classifier": _score_own_logits(published_embeddings, samples, dataset_card, params),
    }


def predict_samples(
    classifier: NamedTensors, embeddings: NamedTensors, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the classifier predicts, with the probability."""
    from supcon_pipeline.core.inference.predictions import classify_embeddings, tabulate_predictions

    labelled = LabelledEmbeddings.of(embeddings, samples)
    rows, _ = labelled.select("embedding", "test")
    logits = classify_embeddings(classifier, rows, embeddings.metadata["model_hash"])
    tested = samples.iloc[labelled.rows_of("test")]
    return tabulate_predictions(tested, logits, dataset_card["class_names"])


def predict_baseline(
    baseline_embeddings: NamedTensors, samples: pd.DataFrame, dataset_card: dict[str, Any]
) -> pd.DataFrame:
    """One row per test image: its label and what the baseline predicts, with the probability."""
    from supcon_pipeline.core.inference.predictions import tabulate_predictions

    test = LabelledEmbeddings.of(baseline_embeddings, samples).rows_of("test")
    logits = baseline_embeddings.tensors["logits"][test]
    return tabulate_predictions(samples.iloc[test], logits, dataset_card["class_names"])


def score_classifier(
    classifier: NamedTensors,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the linear classifier on the test images, calibrated on the validation images."""
    from supcon_pipeline.core.inference.predictions import classify_embeddings

    labelled = LabelledEmbeddings.of(embeddings, samples)
    logits = {}
    for split in ("validation", "test"):
        rows, _ = labelled.select("embedding", split)
        logits[split] = classify_embeddings(classifier, rows, embeddings.metadata["model_hash"]).numpy()
    return _score_logits(logits, labelled, dataset_card, params)


def score_baseline_classifier(
    baseline_embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the baseline's classifier on the test images, calibrated on the validation images."""
    return _score_own_logits(baseline_embeddings, samples, dataset_card, params)


def score_knn(
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of weighted k-NN among the training embeddings, calibrated on the validation images."""
    from supcon_pipeline.core.search.knn import neighbour_log_votes

    labelled = LabelledEmbeddings.of(embeddings, samples)
    references, labels = labelled.select("embedding", "train")
    votes = {
        "num_classes": len(dataset_card["class_names"]),
        **params.within(len(references)).knn.model_dump(),
    }
    logits = {
        split: neighbour_log_votes(labelled.select("embedding", split)[0], references, labels, **votes)
        for split in ("validation", "test")
    }
    return _score_logits(logits, labelled, dataset_card, params)


def score_without_near_duplicates(
    embeddings: NamedTensors,
    classifier: NamedTensors,
    samples: pd.DataFrame,
    embedding_duplicates: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics on the test images that are no duplicates of training images; empty if all are, or none is."""
    from supcon_pipeline.core.metrics.classification import without_tables

    require_order(embeddings, samples["id"])
    in_train = samples.loc[samples["split"] == "train", "duplicate_group"]
    is_alike = samples["duplicate_group"].isin(in_train)
    is_alike |= samples.index.isin(embedding_duplicates["first"])
    is_left_out = (samples["split"] == "test") & is_alike
    others = samples.assign(split=samples["split"].mask(is_left_out, "left out"))
    num_images = int((others["split"] == "test").sum())
    if not num_images or not is_left_out.any():
        return {}
    scores = score_classifier(classifier, embeddings, others, dataset_card, params)
    return {
        "num_images": num_images,
        "num_left_out": int(is_left_out.sum()),
        **score_features(embeddings, others, params),
        "classifier": without_tables(scores),
    }


def _score_own_logits(
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """The metrics of the logits that stand beside the embeddings."""
    labelled = LabelledEmbeddings.of(embeddings, samples)
    logits = {split: labelled.select("logits", split)[0] for split in ("validation", "test")}
    return _score_logits(logits, labelled, dataset_card, params)


def _score_logits(
    logits: dict[str, np.ndarray],
    labelled: LabelledEmbeddings,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> dict[str, Any]:
    """The metrics of logits on test and validation, by split."""
    from supcon_pipeline.core.metrics.classification import classification_metrics

    return classification_metrics(
        logits["test"],
        labelled.labels[labelled.rows_of("test")],
        logits["validation"],
        labelled.labels[labelled.rows_of("validation")],
        dataset_card["class_names"],
        **params.bootstrap.model_dump(),
    )


def collect_metrics(
    embeddings: NamedTensors,
    baseline_embeddings: NamedTensors,
    classifier: NamedTensors,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    **scores: dict[str, Any],
) -> dict[str, Any]:
    """All metrics on test without their tables, and what they speak of."""
    from supcon_pipeline.core.training.budget import budget_differences

    checkpoints = {
        "encoder": embeddings.metadata["checkpoint"],
        "classifier": _checkpoint(classifier),
        "baseline": baseline_embeddings.metadata["checkpoint"],
    }
    trainings = (checkpoints[model]["parameters"] for model in ("encoder", "baseline"))
    models, groups = {"encoder": embeddings, "baseline": baseline_embeddings}, _group_scores(scores)
    return {
        "run_id": run_record["run_id"],
        "data_hash": dataset_card["data_hash"],
        "checkpoint": checkpoints,
        "num_images": sum(dataset_card["counts"]["test"].values()),
        "baseline_differs": budget_differences(*trainings),
        "warnings": _list_warnings(models, groups),
        **groups,
    }


def _list_warnings(models: dict[str, NamedTensors], groups: dict[str, Any]) -> list[str]:
    """What a reader of the metrics has to know first."""
    from supcon_pipeline.core.metrics.features import collapse_warnings
    from supcon_pipeline.core.metrics.published import start_warnings

    collapsed = (
        collapse_warnings(name, model.tensors["embedding"].numpy()) for name, model in models.items()
    )
    return [*chain.from_iterable(collapsed), *start_warnings(groups)]


def _checkpoint(state: NamedTensors) -> dict[str, Any]:
    """Which run, epochs and parameters a model comes from."""
    epochs = sorted(member["epoch"] for member in state.metadata["averaged"])
    origin = {name: state.metadata[name] for name in ("run_id", "parameters")}
    return {**origin, "averaged_epochs": epochs}


def _group_scores(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The metrics by features and classifier, those of the baseline in a group of their own."""
    from supcon_pipeline.core.metrics.classification import without_tables

    kinds = ("classifier", "knn", "baseline_classifier")
    classifiers = {kind: without_tables(scores[f"{kind}_metrics"]) for kind in kinds}
    baseline = {**scores["baseline_feature_metrics"], "classifier": classifiers.pop("baseline_classifier")}
    without = scores["near_duplicate_metrics"]
    published = scores["published_metrics"]
    if published:
        published = {"published": {**published, "classifier": without_tables(published["classifier"])}}
    return {
        **scores["feature_metrics"],
        "pixels": scores["pixel_metrics"],
        **published,
        **({"without_near_duplicates": without} if without else {}),
        "baseline": baseline,
        **classifiers,
    }
