import pytest
from tests.core.training.trainings import read_parameters

from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.options import OPTIMIZERS, SCHEDULES, complete_options
from supcon_pipeline.core.parameters.optim import OptimizerParameters, ScheduleParameters


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgdd", {}, "name must be a known one, got 'sgdd'; did you mean 'sgd'\\?"),
        (
            "adamw",
            {"momentum": 0.9},
            "momentum must be null with adamw, got 0.9; .* sgd, lookahead, lars, muon",
        ),
        ("adam", {"nesterov": False}, "nesterov must be null with adam, got False"),
        ("sgd", {"betas": (0.9, 0.99)}, "betas must be null with sgd"),
        ("radam", {"sync_period": 5}, "sync_period must be null with radam, got 5; .* lookahead, ranger$"),
    ],
)
def test_an_optimizer_that_does_not_use_an_option_refuses_it(model, name, options, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(model, name, lr=0.1, weight_decay=0.0, **options)


def test_a_given_option_goes_before_the_usual_one():
    table = {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    assert complete_options(table, "a", {"x": 0, "y": None, "z": None}) == {"x": 0, "y": 2}


def test_the_names_of_the_parameters_are_those_of_the_library():
    for model, table in ((OptimizerParameters, OPTIMIZERS), (ScheduleParameters, SCHEDULES)):
        assert model.model_fields["name"].annotation.__args__ == tuple(table)
        optional = {name for name, field in model.model_fields.items() if not field.is_required()}
        assert {option for options in table.values() for option in options} == optional


def test_the_file_of_stage1_lists_every_option_and_those_of_the_others_only_what_they_set():
    for name, model in (("optimizer", OptimizerParameters), ("schedule", ScheduleParameters)):
        fields = model.model_fields
        required = {field for field in fields if fields[field].is_required()}
        assert read_parameters("stage1")[name].keys() == fields.keys()
        assert read_parameters("stage2")[name].keys() == required
    assert read_parameters("baseline")["optimizer"].keys() == {"name", "lr", "weight_decay"}
