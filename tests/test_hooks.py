import pytest
from kedro.io import DataCatalog, DatasetError

from supcon_pipeline.commands import find_refusal
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.hooks import RunHooks


def _wrapped(refusal: InputError) -> Exception:
    try:
        raise DatasetError("Failed while loading") from refusal
    except DatasetError as error:
        return error


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_the_command_of_a_refusal_names_the_experiment_in_every_kind_of_session(is_wrapped: bool) -> None:
    """The hook is all that scripts, orchestrators and `kedro run` have in common."""
    refusal = InputError("index must be there, got none; type: kedro run --pipelines index")
    error = _wrapped(refusal) if is_wrapped else refusal
    RunHooks().on_pipeline_error(error=error, run_params={"env": "it is"}, catalog=DataCatalog())
    assert str(find_refusal(error)).endswith("type: kedro run --env 'it is' --pipelines index")


def test_an_error_that_is_no_refusal_stays_as_it_is() -> None:
    error = ValueError("kedro run")
    RunHooks().on_pipeline_error(error=error, run_params={"env": "tiny"}, catalog=DataCatalog())
    assert str(error) == "kedro run"
