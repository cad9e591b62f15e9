import copy

import pytest

from supcon_pipeline.core.training.budget import budget_differences


@pytest.fixture
def parameters():
    return {
        "seed": 0,
        "backbone": {"name": "resnet18", "pretrained": False},
        "transforms": [{"name": "HorizontalFlip", "args": {"p": 0.5}}],
        "num_views": 2,
        "mixing": None,
        "loader": {"batch_size": 128, "num_workers": 0},
        "schedule": {"name": "cosine", "num_epochs": 20},
        "early_stopping": None,
        "ema": {"decay_per_epoch": 0.3, "is_raw_validated": True},
        "optimizer": {"lr": 0.1},
        "loss": {"temperature": 0.1},
    }


def test_trainings_that_differ_in_what_is_their_own_have_the_same_budget(parameters):
    other = {**parameters, "optimizer": {"lr": 0.3}, "label_smoothing": 0.05}
    other["loader"] = {**parameters["loader"], "num_workers": 4}
    other["ema"] = {**parameters["ema"], "is_raw_validated": False}
    del other["loss"]
    assert budget_differences(parameters, other) == []


@pytest.mark.parametrize(
    ("name", "value", "differences"),
    [
        ("schedule", {"name": "cosine", "num_epochs": 40}, ["schedule.num_epochs"]),
        (
            "schedule",
            {"name": "step", "num_epochs": 20, "milestones": [0.5]},
            ["schedule.name", "schedule.milestones"],
        ),
        ("loader", {"batch_size": 64, "num_workers": 2}, ["loader.batch_size"]),
        ("backbone", {"name": "resnet18", "pretrained": True}, ["backbone.pretrained"]),
        ("transforms", [], ["transforms"]),
        ("mixing", {"name": "mixup", "alpha": 1.0}, ["mixing"]),
        ("early_stopping", {"patience": 3}, ["early_stopping"]),
        ("num_views", 1, ["num_views"]),
        ("ema", None, ["ema"]),
        ("ema", {"decay_per_epoch": 0.9, "is_raw_validated": True}, ["ema.decay_per_epoch"]),
        ("seed", 1, ["seed"]),
    ],
)
def test_what_differs_is_named_whichever_training_comes_first(parameters, name, value, differences):
    other = {**copy.deepcopy(parameters), name: value}
    assert budget_differences(parameters, other) == differences
    assert sorted(budget_differences(other, parameters)) == sorted(differences)


def test_a_training_that_lacks_a_part_differs_in_it(parameters):
    other = {key: value for key, value in parameters.items() if key != "schedule"}
    assert budget_differences(parameters, other) == ["schedule"]
