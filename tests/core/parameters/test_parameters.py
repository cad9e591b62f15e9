import copy

import pytest
from pydantic import ValidationError

from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.core.parameters.evaluation import EvaluationParameters
from supcon_pipeline.core.parameters.inference import (
    IndexParameters,
    InferenceParameters,
    OutOfDistributionParameters,
)
from supcon_pipeline.core.parameters.stages import (
    BaselineParameters,
    LrFinderParameters,
    Stage1Parameters,
    Stage2Parameters,
    SwaParameters,
)
from supcon_pipeline.core.parameters.visualization import VisualizationParameters
from supcon_pipeline.core.views.presets import PRESETS

SCHEDULED = {
    "seed": 0,
    "transforms": [{"name": "HorizontalFlip", "args": {"p": 0.5}}],
    "mixing": {"name": "both", "alpha": 1.0, "probability": 1.0},
    "loader": {
        "batch_size": 4, "num_workers": 0, "sampler": "class_balanced", "images_per_class": 2,
        "within_category": True,
    },
    "optimizer": {
        "name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "nesterov": True, "betas": None,
        "sync_period": None, "slow_step_size": None,
    },
    "schedule": {
        "name": "cosine", "num_epochs": 2, "warmup_epochs": 1, "milestones": None, "decay_factor": None,
        "patience": None,
    },
    "ema": {"decay_per_epoch": 0.5, "is_raw_validated": False},
    "max_grad_norm": None,
    "precision": "auto",
    "compile": False,
    "early_stopping": {"patience": 1},
    "max_minutes": 0.5,
    "processes": "auto",
    "validation_batch_size": 1,
    "validation_interval": 1,
    "progress_minutes": 0.0,
}  # fmt: skip
MEMORY = {"size": 9, "warmup_epochs": 0}
VALID = {
    DataPrepParameters: {
        "image_size": 8, "split_by": "image", "num_channels": 3, "validation_fraction": 0.2,
        "test_fraction": 0.2, "seed": 0, "crop": "pad", "num_workers": 0, "max_rejected": 0,
        "storage": "encoded", "on_leakage": "refuse", "near_duplicate_similarity": None, "max_compared": 1,
    },
    Stage1Parameters: {
        **SCHEDULED,
        "backbone": {"name": "resnet18", "stem": "small_image", "pretrained": False, "weights": None},
        "finetune": {
            "layer_decay": 1.0, "head_lr_factor": 0.5, "freeze_epochs": 0, "freeze_batch_norm": True,
            "drop_path": 0.0, "start_images": 0, "start_classes": 0, "lora": None,
        },
        "view_size": 8, "view_sizes": (8, 4096), "center_crop": 1.0,
        "embedding_dim": 2, "unseen_embedding_dim": 2, "mirror_average": False,
        "projection": {"hidden_dim": 1, "dim": 2},
        "loss": {"name": "supcon", "temperature": 0.1, "classifier_weight": 0.0, "label_smoothing": 0.0,
                 "logit_adjustment": 0.0, "class_averaged": False, "memory": None},
        "num_views": 2,
        "micro_batch_size": 1, "max_validation_queries": 1,
        "checkpoints": {"metric": "embedding.ami", "top_k": 1},
    },
    SwaParameters: {"batch_size": 2},
    Stage2Parameters: {
        **SCHEDULED, "label_smoothing": 0.0, "logit_adjustment": 0.0,
        "checkpoints": {"metric": "accuracy", "top_k": 1},
    },
    BaselineParameters: {
        "label_smoothing": 0.0, "logit_adjustment": 0.0, "optimizer": SCHEDULED["optimizer"],
        "checkpoints": {"metric": "log_loss", "top_k": 1},
    },
    LrFinderParameters: {"min_lr": 1e-5, "max_lr": 1.0, "num_steps": 10, "smoothing": 0.0},
    EvaluationParameters: {
        "batch_size": 1, "ks": (1,), "recall_ks": (1,), "knn": {"k": 1, "temperature": 0.1},
        "max_queries": 1, "max_compared": 1,
        "num_neighbours": 1, "num_suspicious": 1, "learning_curve": {"counts": (1,), "num_draws": 1},
        "bootstrap": {"num_resamples": 10, "seed": 0},
        "verification": {
            "false_match_rate": 0.01, "false_match_rates": (0.1,), "false_accept_rate": 0.05,
        },
        "reranking": {"k1": 2, "k2": 2, "weight": 0.0}, "query_expansion": {"k": 1, "alpha": 0.0},
    },
    VisualizationParameters: {
        "tsne": {"perplexity": 2, "num_iterations": 500, "seeds": [0], "max_points": 10, "num_jobs": 1},
        "gallery": {"num_right": 1, "num_wrong": 1, "num_references": 1, "num_suspicious": 1,
                    "num_near_duplicates": 1, "seed": 0},
    },
}  # fmt: skip


def changed(model, path, value):
    values = copy.deepcopy(VALID[model])
    *parents, last = path.split(".")
    section = values
    for name in parents:
        section = section[name]
    section[last] = value
    return values


@pytest.mark.parametrize("model", VALID)
def test_parameters_at_the_edge_of_their_ranges_are_taken_as_they_are(model):
    assert model.model_validate(VALID[model]).model_dump() == VALID[model]


@pytest.mark.parametrize("model", VALID)
def test_a_name_that_is_not_a_parameter_is_refused(model):
    with pytest.raises(ValidationError, match=r"sed\n +Extra inputs are not permitted"):
        model.model_validate({**VALID[model], "sed": 1})


@pytest.mark.parametrize(
    ("model", "path", "value", "message"),
    [
        (DataPrepParameters, "image_size", 7, "greater than or equal to 8"),
        (DataPrepParameters, "num_channels", 4, "should be 1 or 3"),
        (DataPrepParameters, "validation_fraction", 0, "greater than 0"),
        (DataPrepParameters, "test_fraction", 1, "less than 1"),
        (
            DataPrepParameters,
            "test_fraction",
            0.8,
            r"validation_fraction \+ test_fraction must be below 1, got 1",
        ),
        (DataPrepParameters, "seed", 2**32, "less than 4294967296"),
        (Stage1Parameters, "seed", -1, "greater than or equal to 0"),
        (
            Stage1Parameters,
            "backbone.name",
            "resnet81",
            "must be one of .*, got 'resnet81'; did you mean 'resnet18'",
        ),
        (Stage1Parameters, "backbone.stem", "tiny", "should be 'small_image' or 'imagenet'"),
        (Stage1Parameters, "projection.dim", 1, "greater than or equal to 2"),
        (Stage1Parameters, "projection.hiden_dim", 1, "Extra inputs are not permitted"),
        (Stage1Parameters, "loss.temperature", 0, "greater than 0"),
        (
            Stage1Parameters,
            "loss.name",
            "supercon",
            "should be 'supcon', 'sincere', 'simclr' or 'proxy_anchor'",
        ),
        (Stage1Parameters, "loss.classifier_weight", -0.1, "greater than or equal to 0"),
        (Stage1Parameters, "loss.label_smoothing", 1, "less than 1"),
        (
            Stage1Parameters,
            "loss.label_smoothing",
            0.1,
            "must be 0 without classifier_weight",
        ),
        (
            Stage1Parameters,
            "loss.logit_adjustment",
            1.0,
            "logit_adjustment must be 0 without classifier_weight, got 1.0; .* set logit_adjustment=0",
        ),
        (Stage2Parameters, "logit_adjustment", -0.1, "greater than or equal to 0"),
        (BaselineParameters, "logit_adjustment", -0.1, "greater than or equal to 0"),
        (Stage1Parameters, "loader.images_per_class", 4, r"must be below batch_size \(4\)"),
        (Stage1Parameters, "micro_batch_size", 0, "greater than or equal to 1"),
        (Stage1Parameters, "max_validation_queries", 0, "greater than or equal to 1"),
        (EvaluationParameters, "max_queries", 0, "greater than or equal to 1"),
        (EvaluationParameters, "max_compared", 0, "greater than or equal to 1"),
        (DataPrepParameters, "max_compared", 0, "greater than or equal to 1"),
        (Stage1Parameters, "finetune.layer_decay", 0, "greater than 0"),
        (Stage1Parameters, "finetune.layer_decay", 1.1, "less than or equal to 1"),
        (Stage1Parameters, "finetune.head_lr_factor", 0, "greater than 0"),
        (Stage1Parameters, "finetune.drop_path", 1, "less than 1"),
        (
            Stage1Parameters,
            "finetune.freeze_epochs",
            2,
            r"freeze_epochs must be fewer than num_epochs \(2\), got 2; set finetune.freeze_epochs=1",
        ),
        (Stage1Parameters, "view_size", 7, "greater than or equal to 8"),
        (Stage1Parameters, "view_sizes", (64, 4097), "less than or equal to 4096"),
        (Stage1Parameters, "center_crop", 0, "greater than 0"),
        (Stage1Parameters, "embedding_dim", 1, "greater than or equal to 2"),
        (Stage1Parameters, "unseen_embedding_dim", 1, "greater than or equal to 2"),
        (Stage1Parameters, "finetune.start_images", -1, "greater than or equal to 0"),
        (Stage1Parameters, "finetune.start_classes", -1, "greater than or equal to 0"),
        (Stage1Parameters, "max_grad_norm", 0, "greater than 0"),
        (Stage1Parameters, "precision", "float64", "should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        (Stage1Parameters, "early_stopping.patience", 0, "greater than or equal to 1"),
        (Stage1Parameters, "progress_minutes", -1, "greater than or equal to 0"),
        (Stage1Parameters, "optimizer.name", "sdg", "should be 'sgd', 'adam'"),
        (Stage1Parameters, "optimizer.betas", [0.9, 0.99], "betas must be null with sgd"),
        (Stage1Parameters, "schedule.name", "linear", "should be 'cosine', 'onecycle'"),
        (Stage1Parameters, "max_minutes", 0, "greater than 0"),
        (Stage1Parameters, "schedule.patience", 3, "patience must be null with cosine, got 3"),
        (BaselineParameters, "checkpoints.metric", "embedding.ami", "should be 'accuracy' or 'log_loss'"),
        (LrFinderParameters, "max_lr", 1e-5, r"max_lr must be above min_lr \(1e-05\), got 1e-05"),
        (LrFinderParameters, "num_steps", 9, "greater than or equal to 10"),
        (LrFinderParameters, "smoothing", 1, "less than 1"),
        (
            Stage1Parameters,
            "transforms",
            "small_imag",
            "name of a preset, got 'small_imag'; did you mean 'small_image'",
        ),
        (
            Stage1Parameters,
            "transforms",
            ["photo"],
            "name of a preset, got 'photo'; did you mean 'photograph'",
        ),
        (
            Stage1Parameters,
            "loss",
            {**VALID[Stage1Parameters]["loss"], "name": "sincere", "class_averaged": True},
            "class_averaged must be false with sincere, got true; .* set class_averaged=false",
        ),
        (
            Stage1Parameters,
            "loss",
            {**VALID[Stage1Parameters]["loss"], "class_averaged": True, "memory": MEMORY},
            "memory must be null with class_averaged, got 9 projections; .* set memory=null",
        ),
        (
            Stage1Parameters,
            "loss.memory",
            MEMORY,
            "loss.memory must be null with mixing, got 9 projections; .* set mixing=null",
        ),
        (Stage1Parameters, "loss.memory", {**MEMORY, "size": 0}, "greater than or equal to 1"),
        (Stage1Parameters, "mixing.name", "mixed", "should be 'mixup', 'cutmix' or 'both'"),
        (Stage1Parameters, "mixing.alpha", 0, "greater than 0"),
        (Stage2Parameters, "mixing.probability", 0, "greater than 0"),
        (Stage2Parameters, "mixing.probability", 1.1, "less than or equal to 1"),
        (
            Stage1Parameters,
            "loss.name",
            "sincere",
            "mixing must be null with sincere, got both; only supcon",
        ),
        (Stage1Parameters, "loss.name", "simclr", "mixing must be null with simclr"),
        (Stage1Parameters, "num_views", 0, "greater than or equal to 1"),
        (Stage1Parameters, "loader.sampler", "balanced", "should be 'shuffled' or 'class_balanced'"),
        (
            Stage1Parameters,
            "loader.sampler",
            "shuffled",
            "images_per_class must be null with shuffled, got 2",
        ),
        (
            Stage1Parameters,
            "loader",
            {"batch_size": 4, "num_workers": 0, "within_category": True},
            "within_category must be false with shuffled, got true; .* set within_category=false",
        ),
        (Stage1Parameters, "loader.images_per_class", None, "must be set with class_balanced, got None"),
        (
            Stage1Parameters,
            "loader.images_per_class",
            3,
            r"batch_size must be a multiple of images_per_class \(3\), got 4; set batch_size=6",
        ),
        # A batch of 8 would be of one class, which is refused next.
        (
            Stage1Parameters,
            "loader.images_per_class",
            8,
            r"batch_size must be a multiple of images_per_class \(8\), got 4; set batch_size=16",
        ),
        (
            Stage1Parameters,
            "loader.images_per_class",
            4,
            r"images_per_class must be below batch_size \(4\), got 4; .* no negatives: set batch_size=8",
        ),
        (Stage1Parameters, "transforms", [{"name": "HorizontalFlop"}], "did you mean 'HorizontalFlip'"),
        (
            Stage1Parameters,
            "transforms",
            [{"name": "HorizontalFlip", "args": {"q": 1}}],
            "args of HorizontalFlip",
        ),
        (Stage1Parameters, "loader.batch_size", 1, "greater than or equal to 2"),
        (Stage1Parameters, "loader.num_workers", -1, "greater than or equal to 0"),
        (Stage1Parameters, "optimizer.lr", 0, "greater than 0"),
        (Stage1Parameters, "optimizer.momentum", 1, "less than 1"),
        (
            Stage1Parameters,
            "optimizer.momentum",
            0,
            "momentum must be above 0 with nesterov, got 0.0; set nesterov",
        ),
        (Stage1Parameters, "optimizer.weight_decay", -0.1, "greater than or equal to 0"),
        (Stage1Parameters, "schedule.num_epochs", 0, "greater than or equal to 1"),
        (
            Stage1Parameters,
            "schedule.warmup_epochs",
            2,
            r"warmup_epochs must be fewer than num_epochs \(2\), got 2",
        ),
        (Stage1Parameters, "ema.decay_per_epoch", 1, "less than 1"),
        (Stage1Parameters, "checkpoints.metric", "accuracy", "should be 'embedding.precision_at_1'"),
        (Stage1Parameters, "checkpoints.top_k", 0, "greater than or equal to 1"),
        (SwaParameters, "batch_size", 1, "greater than or equal to 2"),
        (Stage2Parameters, "label_smoothing", 1, "less than 1"),
        (Stage2Parameters, "loader.batch_size", 0, "greater than or equal to 1"),
        (Stage2Parameters, "checkpoints.metric", "embedding.ami", "should be 'accuracy' or 'log_loss'"),
        (EvaluationParameters, "bootstrap.num_resamples", 9, "greater than or equal to 10"),
        (EvaluationParameters, "ks", (0,), "greater than or equal to 1"),
        (EvaluationParameters, "knn.k", 0, "greater than or equal to 1"),
        (EvaluationParameters, "knn.temperature", 0, "greater than 0"),
        (VisualizationParameters, "tsne.perplexity", 1, "greater than 1"),
        (VisualizationParameters, "tsne.num_iterations", 499, "greater than or equal to 500"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_path(model, path, value, message):
    with pytest.raises(ValidationError, match=message) as refusal:
        model.model_validate(changed(model, path, value))
    place = ".".join(str(part) for part in refusal.value.errors()[0]["loc"])
    # A rule between two values is told at their section.
    assert path.startswith(place) or place.startswith(path)


@pytest.mark.parametrize("model", VALID)
def test_every_value_without_a_default_must_be_given(model):
    for name in (name for name in VALID[model] if model.model_fields[name].is_required()):
        values = {key: value for key, value in VALID[model].items() if key != name}
        with pytest.raises(ValidationError, match=rf"{name}\n +Field required"):
            model.model_validate(values)


@pytest.mark.parametrize("name", ["ema", "early_stopping", "micro_batch_size", "mixing", "progress_minutes"])
def test_what_may_be_left_out_is_left_out_with_null(name):
    assert getattr(Stage1Parameters.model_validate(changed(Stage1Parameters, name, None)), name) is None


def test_a_preset_stands_for_the_list_or_for_an_entry_of_it():
    whole = Stage1Parameters.model_validate(changed(Stage1Parameters, "transforms", "crop_and_flip"))
    assert [spec.model_dump() for spec in whole.transforms] == PRESETS["crop_and_flip"]
    rotate = {"name": "Rotate", "args": {"limit": 10}}
    mixed = Stage1Parameters.model_validate(changed(Stage1Parameters, "transforms", [rotate, "small_image"]))
    assert [spec.model_dump() for spec in mixed.transforms] == [rotate, *PRESETS["small_image"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": None, "loss": {"name": "simclr"}}, "num_views must be at least 2 with simclr, got 1"),
        (
            {"loader": {"images_per_class": 1}},
            "loader.images_per_class must be at least 2 .*, got 1",
        ),
    ],
)
def test_a_loss_without_positives_is_refused(changes, message):
    values = changed(Stage1Parameters, "num_views", 1)
    assert Stage1Parameters.model_validate(values).num_views == 1
    for section, change in changes.items():
        values[section] = change and {**values[section], **change}
    with pytest.raises(ValidationError, match=message):
        Stage1Parameters.model_validate(values)


def test_a_loss_by_proxies_needs_one_view_of_single_images():
    values = changed(Stage1Parameters, "num_views", 1)
    values["loader"] = {**values["loader"], "images_per_class": 1}
    values["loss"] = {**values["loss"], "name": "proxy_anchor"}
    values["mixing"] = None
    assert Stage1Parameters.model_validate(values).loader.images_per_class == 1


def test_nothing_is_changed_after_it_was_read():
    params = Stage1Parameters.model_validate(VALID[Stage1Parameters])
    with pytest.raises(ValidationError, match="frozen"):
        params.optimizer.lr = 1.0


@pytest.mark.parametrize(
    ("count", "ks", "k", "listed"), [(100, (1, 5, 20), 20, 10), (19, (1, 5), 19, 10), (4, (1,), 4, 4)]
)
def test_no_more_neighbours_are_evaluated_than_there_are(count, ks, k, listed):
    params = EvaluationParameters(
        batch_size=8, ks=(1, 5, 20), knn={"k": 20, "temperature": 0.07}, num_neighbours=10, num_suspicious=5,
        learning_curve={"counts": (1,), "num_draws": 1}, bootstrap={"num_resamples": 10, "seed": 0},
    )  # fmt: skip
    capped = params.within(count)
    assert (capped.ks, capped.knn.k, capped.num_neighbours) == (ks, k, listed)
    assert (capped.knn.temperature, capped.num_suspicious) == (0.07, 5)


def test_no_more_neighbours_of_new_images_are_asked_for_than_there_are():
    params = InferenceParameters(
        path=None, batch_size=8, num_neighbours=5, knn={"k": 20, "temperature": 0.07}, distance_k=10,
        max_gallery_images=9,
        num_workers=0,
    )  # fmt: skip
    assert params.within(20) == params
    with pytest.raises(
        ValueError, match=r"query_expansion must be null with reranking, got both; .* set reranking=null"
    ):
        InferenceParameters(**params.model_dump() | {"reranking": {}, "query_expansion": {}})
    capped = params.within(4)
    assert (capped.num_neighbours, capped.knn.k, capped.distance_k) == (4, 4, 4)


@pytest.mark.parametrize(("count", "distance_k"), [(20, 10), (10, 10), (4, 4)])
def test_images_of_another_kind_are_as_far_as_the_farthest_where_there_are_few(count, distance_k):
    params = OutOfDistributionParameters(path=None, num_workers=0, batch_size=8, distance_k=10)
    assert params.within(count) == params.model_copy(update={"distance_k": distance_k})


def test_the_recall_of_an_index_is_measured_over_no_more_images_than_it_holds():
    hnsw = {"num_links": 8, "ef_construction": 40, "ef_search": 64}
    params = IndexParameters(hnsw_above=100, hnsw=hnsw, recall_k=10, num_queries=50)
    assert params.within(10) == params
    assert params.within(4) == params.model_copy(update={"recall_k": 4})


def test_a_memory_that_is_never_used_is_refused():
    values = {**changed(Stage1Parameters, "loss.memory", {"size": 9, "warmup_epochs": 1}), "mixing": None}
    assert Stage1Parameters.model_validate(values).loss.memory.warmup_epochs == 1
    values["loss"]["memory"]["warmup_epochs"] = 2
    with pytest.raises(ValidationError, match=r"must be fewer than num_epochs \(2\), got 2; set .*epochs=1"):
        Stage1Parameters.model_validate(values)
