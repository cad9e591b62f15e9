"""Nodes of `evaluation`."""

from itertools import chain
from typing import Any

import pandas as pd

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.data.images import LabelledEmbeddings, rows_of
from supcon_pipeline.core.named_tensors import NamedTensors, require_origin
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.pipelines.evaluation.classifiers import score_classifier, score_own_logits
from supcon_pipeline.pipelines.evaluation.features import score_features
from supcon_pipeline.pipelines.evaluation.limits import (
    lacks_classes,
    limit_paired,
    limit_queries,
    limit_warnings,
    limited_search,
)

# Height and width of the images whose pixels are compared.
PIXEL_SIZE = 32


def embed_samples(
    encoder: NamedTensors,
    prepared_images: StoredImages,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> NamedTensors:
    """Embedding and projection of every image of every split, in the order of the samples.

    Logits, of which there may be thousands for an image, are those of validation and test, which are scored.
    """
    from supcon_pipeline.core.device import pick_device
    from supcon_pipeline.core.models.embed import embed_by

    # Other data may have put into test what this encoder was trained on.
    remedy = "type: kedro run --pipelines stage1,stage1_swa,stage2,stage2_swa,baseline,baseline_swa"
    require_origin("encoder", encoder.metadata, "data_hash", dataset_card["data_hash"], remedy)
    held_out = rows_of(samples, "validation", "test")
    embeddings = embed_by(encoder, prepared_images, params.batch_size, pick_device(), held_out)
    origin = {"checkpoint": _checkpoint(encoder), "sample_ids": samples["id"].tolist()}
    return NamedTensors(embeddings.tensors, {**embeddings.metadata, **origin})


def score_verification(
    embeddings: NamedTensors, samples: pd.DataFrame, params: EvaluationParameters
) -> dict[str, Any]:
    """Whether the similarity of two test images says that they are of one class.

    Where train lacks classes, also whether that of the nearest image says that one is of an unknown class.
    """
    from supcon_pipeline.core.metrics.same_class import unknown_report, verification_report

    paired = limit_paired(samples, params, "validation", "test")
    labelled, rates = LabelledEmbeddings.of(embeddings, paired), params.verification
    rows, labels, copies = labelled.outputs["embedding"], labelled.labels, labelled.copies
    splits = labelled.rows_of("validation"), labelled.rows_of("test")
    asked, bootstrap = (rates.false_match_rate, rates.false_match_rates), params.bootstrap.model_dump()
    report = verification_report(rows, labels, *splits, copies, *asked, **bootstrap)
    if labelled.has_unseen_classes:
        asked_rate = rates.false_accept_rate
        report["unknown"] = unknown_report(rows, labels, *splits, copies, asked_rate, **bootstrap)
    return report


def score_pixels(
    prepared_images: StoredImages, samples: pd.DataFrame, params: EvaluationParameters
) -> dict[str, Any]:
    """The nearest neighbour on raw pixels, by Euclidean distance: what there was before learning."""
    from supcon_pipeline.core.data.pixels import shrink_images
    from supcon_pipeline.core.metrics.intervals import mean_intervals
    from supcon_pipeline.core.metrics.unseen import unseen_pixel_metrics
    from supcon_pipeline.core.search.neighbours import find_nearest

    # Photographs would take as long as a training, and their fine grain tells nothing of the class.
    pixels = shrink_images(prepared_images, PIXEL_SIZE).reshape(len(prepared_images), -1)
    labels, bootstrap = samples["label"].to_numpy(), params.bootstrap.model_dump()
    if lacks_classes(samples):
        return unseen_pixel_metrics(pixels, labels, limited_search(samples, params), **bootstrap)
    train, test = rows_of(samples, "train"), rows_of(limit_queries(samples, params, "test"), "test")
    is_right = labels[test] == labels[find_nearest(pixels, test, train)]
    intervals = mean_intervals({"precision_at_1": is_right}, **bootstrap)
    return {"precision_at_1": float(is_right.mean()), "intervals": intervals}


def score_published(
    published_embeddings: NamedTensors,
    embeddings: NamedTensors,
    samples: pd.DataFrame,
    dataset_card: dict[str, Any],
    params: EvaluationParameters,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics of the weights that the encoder started from, and of each query; both empty if from scratch."""
    from supcon_pipeline.core.metrics.published import require_start

    backbone = embeddings.metadata["checkpoint"]["parameters"]["backbone"]
    require_start(published_embeddings.metadata.get("backbone"), backbone)
    if not published_embeddings.tensors:
        return {}, pd.DataFrame()
    scores = score_own_logits(published_embeddings, samples, dataset_card, params)
    features, queries = score_features(published_embeddings, samples, params)
    verification = score_verification(published_embeddings, samples, params)
    return {**features, **_present({"classifier": scores, "verification": verification})}, queries


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

    if LabelledEmbeddings.of(embeddings, samples).has_unseen_classes:
        # A copy is never found among the other test images.
        return {}
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
        **score_features(embeddings, others, params)[0],
        "classifier": without_tables(scores),
    }


def collect_metrics(
    embeddings: NamedTensors,
    baseline_embeddings: NamedTensors,
    classifier: NamedTensors,
    samples: pd.DataFrame,
    query_scores: pd.DataFrame,
    dataset_card: dict[str, Any],
    run_record: dict[str, Any],
    params: EvaluationParameters,
    **scores: dict[str, Any],
) -> dict[str, Any]:
    """All metrics on test without their tables, and what they speak of."""
    from supcon_pipeline.core.metrics.published import untrained_warnings
    from supcon_pipeline.core.training.budget import budget_differences

    checkpoints = _list_checkpoints(embeddings, classifier, baseline_embeddings)
    trainings = (checkpoints[model]["parameters"] for model in ("encoder", "baseline"))
    models, groups = {"encoder": embeddings, "baseline": baseline_embeddings}, _group_scores(scores)
    limited = limit_warnings(samples, params, run_record["experiment"])
    warnings = [*untrained_warnings(checkpoints), *_list_warnings(models, groups), *limited]
    return {
        "run_id": run_record["run_id"],
        "data_hash": dataset_card["data_hash"],
        "checkpoint": checkpoints,
        "num_images": sum(dataset_card["counts"]["test"].values()),
        "num_queries": len(query_scores),
        "baseline_differs": budget_differences(*trainings),
        "warnings": warnings,
        **groups,
    }


def _list_checkpoints(
    embeddings: NamedTensors, classifier: NamedTensors, baseline_embeddings: NamedTensors
) -> dict[str, Any]:
    """Which run, epochs and parameters each model comes from."""
    return {
        "encoder": embeddings.metadata["checkpoint"],
        # There is none of classes that train lacks.
        **({"classifier": _checkpoint(classifier)} if classifier.tensors else {}),
        "baseline": baseline_embeddings.metadata["checkpoint"],
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

    beside = {kind: scores[f"baseline_{kind}_metrics"] for kind in ("classifier", "verification")}
    groups = {
        **scores["feature_metrics"],
        "pixels": scores["pixel_metrics"],
        "published": scores["published_metrics"],
        "without_near_duplicates": scores["near_duplicate_metrics"],
        "gains": scores["gains"],
        "baseline": {**scores["baseline_feature_metrics"], **_present(beside)},
        **{kind: scores[f"{kind}_metrics"] for kind in ("classifier", "knn", "verification")},
    }
    return without_tables(_present(groups))


def _present(groups: dict[str, Any]) -> dict[str, Any]:
    return {name: group for name, group in groups.items() if group}
