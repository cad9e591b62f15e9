import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kedro.io import Version

from supcon_pipeline.core.atomic import create_file
from supcon_pipeline.core.checksums import is_proven
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.run_record import RunRecordDataset, identify_process

HEAD = {
    "run_id": "r",
    "number": 1,
    "started": "2026-01-01T00:00:00+00:00",
    "base": None,
    "base_artifacts": {},
}


@pytest.fixture
def dataset(tmp_path: Path) -> RunRecordDataset:
    return RunRecordDataset(filepath=str(tmp_path / "run_record.json"), version=Version("r", "r"))


def entry(task: str, **changes: Any) -> Any:
    return {
        "task": task,
        "outcome": "completed",
        "started": f"2026-01-01T00:00:0{task}+00:00",
        "ended": f"2026-01-01T00:00:1{task}+00:00",
        "parameters": {},
        "nodes": {},
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **changes,
    }


def node(outcome: str) -> dict[str, Any]:
    return {"outcome": outcome, "started": None, "seconds": None, "parameters": [], "outputs": []}


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_many_that_begin_one_run_at_once_one_writes_its_record(dataset: RunRecordDataset) -> None:
    heads = [{**HEAD, "base": str(number)} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        is_first = list(pool.map(dataset.create, heads))
    assert sum(is_first) == 1
    assert dataset.head() == heads[is_first.index(True)]


def test_a_record_is_written_once_in_an_object_store_too() -> None:
    dataset = RunRecordDataset(filepath="memory://bucket/run_record.json", version=Version("r", "r"))
    assert dataset.create(HEAD)
    assert not dataset.create({**HEAD, "base": "another"})
    dataset.save_task(entry("1"))
    record = dataset.load()
    assert record["base"] is None
    assert record["outcome"] == "completed"


def test_a_file_that_exists_is_never_replaced_and_nothing_is_left_behind(tmp_path: Path) -> None:
    create_file(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.xxh128"]
    assert is_proven(tmp_path / "file")


def test_tasks_that_run_at_the_same_time_lose_no_entry(dataset: RunRecordDataset) -> None:
    dataset.create(HEAD)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: dataset.save_task(entry(str(number))), range(8)))
    assert [task["task"] for task in dataset.load()["tasks"]] == list("01234567")


def test_the_nodes_of_worker_processes_join_those_of_their_session(dataset: RunRecordDataset) -> None:
    dataset.create(HEAD)
    dataset.save_task(entry("1", nodes={"a.b": node("pending"), "a.c": node("pending")}))
    dataset.save_task(entry("1", nodes={"a.b": node("completed")}), part="a.b")
    (task,) = dataset.load()["tasks"]
    assert {name: entry["outcome"] for name, entry in task["nodes"].items()} == {
        "a.b": "completed",
        "a.c": "pending",
    }


@pytest.mark.parametrize(
    ("tasks", "outcome"),
    [
        # It was stopped before it wrote down what it was asked for.
        ([], "interrupted"),
        ([{"a": "completed"}], "completed"),
        ([{"a": "completed", "b": "failed"}], "failed"),
        ([{"a": "completed", "b": "failed"}, {"a": "kept", "b": "completed"}], "completed"),
        ([{"a": "failed", "b": "pending"}, {"a": "completed", "b": "completed"}], "completed"),
        ([{"a": "failed", "b": "pending"}, {"a": "completed"}], "failed"),
        ([{"a": "completed"}, {"a": "pending"}], "completed"),
    ],
)
def test_of_each_node_the_last_attempt_counts(
    tasks: list[dict[str, str]], outcome: str, dataset: RunRecordDataset
) -> None:
    dataset.create(HEAD)
    for number, outcomes in enumerate(tasks):
        nodes = {name: node(of) for name, of in outcomes.items()}
        has_failed = "failed" in outcomes.values()
        dataset.save_task(entry(str(number), nodes=nodes, outcome="failed" if has_failed else "completed"))
    assert dataset.load()["outcome"] == outcome


def test_a_session_whose_process_is_gone_was_interrupted(dataset: RunRecordDataset) -> None:
    dataset.create(HEAD)
    running = {"outcome": "running", "ended": None, "nodes": {"a": node("running")}}
    dataset.save_task(entry("1", **running))
    assert dataset.load()["outcome"] == "running"
    dataset.save_task(entry("1", **running, pid=dead_pid()))
    record = dataset.load()
    assert (record["outcome"], record["ended"]) == ("interrupted", None)
    assert record["tasks"][0]["nodes"]["a"]["outcome"] == "interrupted"
    # What another machine does cannot be seen from here.
    dataset.save_task(entry("1", **running, pid=dead_pid(), host="elsewhere"))
    assert dataset.load()["outcome"] == "running"
    dataset.save_task(entry("2", nodes={"a": node("completed")}))
    assert dataset.load()["outcome"] == "completed"


def test_a_session_that_a_search_has_stopped_was_pruned_until_another_does_its_work(
    dataset: RunRecordDataset,
) -> None:
    dataset.create(HEAD)
    dataset.mark_pruned()
    assert dataset.load()["outcome"] == "interrupted"
    nodes = {"a": node("completed"), "b": node("interrupted"), "c": node("pending")}
    dataset.save_task(entry("1", outcome="interrupted", nodes=nodes))
    dataset.mark_pruned()
    record = dataset.load()
    assert record["outcome"] == record["tasks"][0]["outcome"] == "pruned"
    outcomes = {name: of["outcome"] for name, of in record["tasks"][0]["nodes"].items()}
    assert outcomes == {"a": "completed", "b": "pruned", "c": "pending"}
    dataset.save_task(entry("2", nodes=dict.fromkeys("bc", node("completed"))))
    dataset.mark_pruned()
    assert dataset.load()["outcome"] == "completed"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_later_process_with_the_number_of_a_session_is_not_that_session(dataset: RunRecordDataset) -> None:
    dataset.create(HEAD)
    running = {"outcome": "running", "ended": None, "nodes": {"a": node("running")}}
    dataset.save_task(entry("1", **running, process=identify_process(os.getpid())))
    assert dataset.load()["outcome"] == "running"
    # Started later; a parent may have started within the same tick of the clock.
    dataset.save_task(entry("1", **running, process=f"{identify_process(os.getpid())}0"))
    assert dataset.load()["outcome"] == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_was_killed_is_gone_before_its_parent_knows(dataset: RunRecordDataset) -> None:
    dataset.create(HEAD)
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = identify_process(process.pid)
        running = {"outcome": "running", "ended": None, "nodes": {"a": node("running")}}
        dataset.save_task(entry("1", **running, pid=process.pid, process=identity))
        assert dataset.load()["outcome"] == "running"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert dataset.load()["outcome"] == "interrupted"


def test_parameters_are_those_of_what_ran_and_else_those_of_what_was_inherited(
    dataset: RunRecordDataset,
) -> None:
    inherited = [{"run_id": "old", "nodes": ["a"], "parameters": {"stage1": 1, "stage2": 1}}]
    dataset.create({**HEAD, "inherited": inherited})
    dataset.save_task(entry("1", parameters={"stage2": 2}))
    assert dataset.load()["parameters"] == {"stage1": 1, "stage2": 2}


def test_a_record_of_before_there_were_sessions_is_read_as_it_is(dataset: RunRecordDataset) -> None:
    dataset.create({**HEAD, "parameters": {"seed": 3}})
    record = dataset.load()
    assert (record["parameters"], record["outcome"], record["tasks"]) == ({"seed": 3}, "unknown", [])


def test_a_session_that_cannot_be_read_is_named_and_left_out(
    dataset: RunRecordDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset.create(HEAD)
    dataset.save_task(entry("1"))
    (tmp_path / "run_record.json/r/run_record.2.json").write_text(json.dumps(entry("2"))[:30])
    record = dataset.load()
    assert [task["task"] for task in record["tasks"]] == ["1"]
    assert record["left_out"] == ["run_record.2.json"]
    assert "run_record.2.json cannot be read and is left out" in caplog.text
    # It may have failed.
    assert record["outcome"] == "unknown"


def test_a_session_that_has_changed_since_is_named_and_left_out(
    dataset: RunRecordDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset.create(HEAD)
    for _ in range(2):
        dataset.save_task(entry("1", parameters={"stage1": {"lr": 0.1}}))
    assert dataset.load()["parameters"] == {"stage1": {"lr": 0.1}}
    path = tmp_path / "run_record.json/r/run_record.1.json"
    path.write_text(path.read_text().replace("0.1", "0.3"))
    assert dataset.load()["tasks"] == []
    assert f"{path} must be as it was saved, got other content" in caplog.text


def test_a_record_that_has_changed_since_is_refused_by_name(dataset: RunRecordDataset) -> None:
    assert dataset.create(HEAD)
    assert dataset.head() == HEAD
    path = Path(dataset._get_load_path())
    path.write_text(path.read_text().replace('"number": 1', '"number": 7'))
    with pytest.raises(
        InputError, match=r"run_record\.json of run r must be as it was saved, got other content"
    ):
        dataset.head()
