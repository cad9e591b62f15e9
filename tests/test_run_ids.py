import pytest

from supcon_pipeline.commands import CommandError
from supcon_pipeline.run_ids import as_run_id, choose_run_id, is_generated, require_run_id, way_to_another_run

SESSION = "2026-01-01T00.00.00.000Z"
VARIABLES = ("SUPCON_RUN_ID", "KEDRO_CONFIG_RUN_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_DAG_ID")


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_an_id_from_outside_a_run_has_that_of_the_session() -> None:
    assert choose_run_id(SESSION) == SESSION
    assert is_generated(SESSION)


def test_the_way_to_another_run_is_that_of_who_gave_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    assert way_to_another_run() == "choose another SUPCON_RUN_ID"
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "airflow")
    assert way_to_another_run() == "start a new run of the orchestrator"
    monkeypatch.setenv("SUPCON_RUN_ID", "own")
    assert way_to_another_run() == "choose another SUPCON_RUN_ID"


def test_the_own_variable_counts_before_those_of_orchestrators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, run_id in (("AIRFLOW_CTX_DAG_RUN_ID", "airflow"), ("KEDRO_CONFIG_RUN_ID", "kubeflow")):
        monkeypatch.setenv(name, run_id)
        assert choose_run_id(SESSION) == run_id
    monkeypatch.setenv("SUPCON_RUN_ID", "own")
    assert choose_run_id(SESSION) == "own"
    monkeypatch.setenv("SUPCON_RUN_ID", "")
    assert choose_run_id(SESSION) == "kubeflow"


def test_ids_of_airflow_become_names_of_folders_and_stay_different(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [
        "manual__2026-01-01T00:00:00+00:00",
        "manual__2026-01-01T00:00:00-00:00",
        "manual__2026-01-01T00-00-00+00:00",
        "mänual",
        "a/b",
        "../b",
        "a b",
        "a:" + "b" * 300,
        "a:" + "b" * 299,
    ]
    names = []
    for run_id in raw:
        monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", run_id)
        names.append(choose_run_id(SESSION))
        require_run_id("run_id", names[-1])
        assert choose_run_id(SESSION) == names[-1]
    assert len(set(names)) == len(raw)
    assert names[0].startswith("manual__2026-01-01T00-00-00-00-00-")


def test_runs_of_two_dags_with_one_schedule_are_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2026-01-01T00:00:00+00:00")
    names = set()
    for dag in ("train", "evaluate"):
        monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", dag)
        names.add(choose_run_id(SESSION))
    assert len(names) == 2


def test_an_id_that_is_a_name_of_a_folder_stays_as_it_is() -> None:
    assert as_run_id("daily_7.b-2") == "daily_7.b-2"


@pytest.mark.parametrize("run_id", ["../elsewhere", "a b", "-a", ".a", "a:b", "a\n", "a" * 121])
def test_a_chosen_id_that_is_no_folder_name_is_refused(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", run_id)
    with pytest.raises(CommandError, match="SUPCON_RUN_ID must start with a letter"):
        choose_run_id(SESSION)
    monkeypatch.delenv("SUPCON_RUN_ID")
    with pytest.raises(CommandError, match="run_id must start with a letter"):
        choose_run_id(run_id)
