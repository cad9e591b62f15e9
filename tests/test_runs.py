"""The order of runs and what they inherit, on records without artifacts or with small ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, Version
from kedro.pipeline import Node, Pipeline
from kedro_datasets.json import JSONDataset

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.atomic import create_file
from supcon_pipeline.datasets.run_record import RunRecordDataset
from supcon_pipeline.opening import open_run
from supcon_pipeline.runs import RunBook


def _nothing(*_: Any) -> None:
    """No node of these tests runs."""


GRAPH = Pipeline(
    [
        Node(_nothing, ["params:data_prep"], ["samples", "card"], name="make", namespace="data_prep"),
        Node(_nothing, ["samples", "params:stage1"], "encoder", name="train", namespace="stage1"),
        Node(_nothing, ["samples", "encoder"], "classifier", name="fit", namespace="stage2"),
        Node(
            _nothing,
            ["encoder", "classifier", "params:evaluation"],
            "metrics",
            name="score",
            namespace="eval",
        ),
    ]
)


class Book:
    """A run book in a folder, and runs that write one number into each of their artifacts."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self) -> RunBook:
        unset = Version(None, None)
        artifacts = {
            name: JSONDataset(filepath=str(self.folder / name), version=unset) for name in GRAPH.all_outputs()
        }
        record = RunRecordDataset(filepath=str(self.folder / "run_record.json"), version=unset)
        return RunBook(DataCatalog({**artifacts, "run_record": record}), GRAPH)

    def run(
        self, run_id: str, *namespaces: str, pins: dict[str, str] | None = None, **parameters: Any
    ) -> RunBook:
        """Open a run of some pipelines, and make all that it does not keep."""
        book = self.open()
        pipeline = GRAPH.only_nodes_with_namespaces(list(namespaces))
        given = {"data_prep": {}, "stage1": {}, "evaluation": {}, **parameters}
        self.kept = open_run(book, run_id, pipeline, lambda: {"experiment": "base"}, given, pins or {})
        for node in pipeline.nodes:
            if node.name not in self.kept:
                for name in node.outputs:
                    book.catalog.save(name, run_id)
        nodes = {
            node.name: {
                "outcome": "kept" if node.name in self.kept else "completed",
                "parameters": sorted(name.removeprefix("params:") for name in node.inputs if ":" in name),
                "outputs": node.outputs,
            }
            for node in pipeline.nodes
        }
        groups = {group for entry in nodes.values() for group in entry["parameters"]}
        task = {
            "task": f"{run_id}-{len(book.record_dataset(run_id).load()['tasks'])}",
            "outcome": "completed",
            "started": "2026-01-01",
            "ended": "2026-01-01",
            "nodes": nodes,
            "parameters": {group: given[group] for group in groups},
            "given": parameters,
            "host": "",
            "pid": 0,
        }
        dataset: Any = book.catalog.get("run_record")
        dataset.save_task(task)
        return book

    def date(self, run_id: str, started: str) -> None:
        """Let a run have begun at another time by the clock."""
        self.rewrite(run_id, {**self.open().record_dataset(run_id).head(), "started": started})

    def rewrite(self, run_id: str, head: dict[str, Any]) -> None:
        """Write the record of a run anew."""
        path = self.folder / "run_record.json" / run_id / "run_record.json"
        path.unlink()
        create_file(path, json.dumps(head).encode())


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


ALL = ("data_prep", "stage1", "stage2", "eval")


def test_a_clock_that_was_ahead_for_one_run_does_not_make_it_the_newest(book: Book) -> None:
    for number, run_id in enumerate(("z", "m", "a"), start=1):
        book.run(run_id, *ALL)
        assert book.open().record_dataset(run_id).head()["number"] == number
    book.date("m", "2099-01-01T00:00:00+00:00")
    assert [run.run_id for run in book.open().newest_first()] == ["a", "m", "z"]
    book.run("b", "eval")
    assert book.open().record_dataset("b").head()["base"] == "a"


def test_old_records_keep_their_order_and_come_before_new_ones(book: Book) -> None:
    for run_id in ("x", "y", "z"):
        book.run(run_id, "data_prep")
        head = book.open().record_dataset(run_id).head()
        del head["number"]
        book.rewrite(run_id, head)
    for run_id, started in (("x", "2026-01-02"), ("y", "2099-01-01"), ("z", "2026-01-01")):
        book.date(run_id, started)
    book.run("new", "data_prep")
    assert [record["run_id"] for record in book.open().records()] == ["new", "y", "x", "z"]


def test_a_record_that_cannot_be_read_is_named_and_left_out(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    book.run("good", *ALL)
    for run_id, text in (
        ("cut", '{"run_id": "cu'),
        ("empty", ""),
        ("list", "[]"),
        ("less", '{"run_id": "less"}'),
    ):
        path = book.folder / "run_record.json" / run_id / "run_record.json"
        path.parent.mkdir()
        path.write_text(text)
    assert [run.run_id for run in book.open().newest_first()] == ["good"]
    for run_id in ("cut", "empty", "list", "less"):
        assert f"The record of run {run_id} cannot be read and is left out" in caplog.text
    book.run("next", "eval")


def test_a_run_whose_session_cannot_be_read_is_not_said_to_have_been_made_without_parameters(
    book: Book,
) -> None:
    book.run("first", *ALL, stage1={"lr": 0.05})
    (session,) = book.folder.glob("run_record.json/first/run_record.*.json")
    session.write_bytes(session.read_bytes()[:50])
    with pytest.raises(
        CommandError, match=f"^the session of run first that made .*, got {session.name} that"
    ):
        book.run("first", *ALL, stage1={"lr": 0.05})


def test_a_record_says_with_which_parameters_its_inherited_artifacts_were_made(book: Book) -> None:
    book.run("first", *ALL, stage1={"lr": 0.05})
    book.run("second", "eval", stage1={"lr": 0.5}, evaluation={"k": 3})
    book.run("third", "eval", stage1={"lr": 0.7}, evaluation={"k": 5})
    record = book.open().record_dataset("third").load()
    assert record["parameters"] == {"data_prep": {}, "stage1": {"lr": 0.05}, "evaluation": {"k": 5}}
    assert {entry["run_id"]: entry["nodes"] for entry in record["inherited"]} == {
        "first": ["data_prep.make", "stage1.train", "stage2.fit"],
        "second": ["eval.score"],
    }


@pytest.mark.parametrize(
    ("made", "wanted", "name"),
    [
        (["data_prep"], "eval", "samples|card"),
        (["stage1"], "eval", "encoder"),
        (["stage1"], "stage2", None),
        (["stage1", "stage2"], "eval", None),
        (["eval"], "eval", None),
    ],
)
def test_a_newer_version_of_what_is_read_is_never_passed_over(
    book: Book, made: list[str], wanted: str, name: str | None
) -> None:
    book.run("old", *ALL)
    book.run("new", *made)
    if name is None:
        book.run("next", wanted)
        assert book.open().record_dataset("next").head()["base"] == "new"
        return
    with pytest.raises(
        CommandError, match=rf"in run new, which has a newer ({name}) than run old, got none; to finish that"
    ) as refusal:
        book.run("next", wanted)
    pin = str(refusal.value).rpartition("--load-versions ")[2]
    book.run("chosen", wanted, pins=dict([pin.split(":")]))
    assert book.open().record_dataset("chosen").head()["base"] == "old"


def test_the_newer_run_is_finished_by_the_command_of_the_refusal(book: Book) -> None:
    book.run("old", *ALL)
    book.run("new", "data_prep", stage1={"lr": 0.5})
    finish = "SUPCON_RUN_ID=new kedro run --pipelines stage1,stage2 --params stage1.lr=0.5; "
    with pytest.raises(CommandError, match=finish):
        book.run("next", "eval")
    book.run("new", "stage1", "stage2")
    book.run("next", "eval")
    assert book.open().record_dataset("next").head()["base"] == "new"


def test_a_node_with_half_its_outputs_runs_again_with_all_that_follows(book: Book) -> None:
    book.run("r", *ALL)
    book.open().remove("card", "r")
    book.run("r", *ALL)
    assert book.kept == set()
    book.open().remove("classifier", "r")
    book.run("r", *ALL)
    assert book.kept == {"data_prep.make", "stage1.train"}
    book.run("r", *ALL)
    assert len(book.kept) == 4


def test_what_lies_beside_an_artifact_goes_with_it(book: Book) -> None:
    book.run("r", *ALL)
    beside = book.folder / "card/r/card.sha256"
    beside.write_text("1")
    book.open().remove("card", "r")
    assert not beside.exists()
    assert (book.folder / "samples/r/samples").exists()


def test_what_a_run_has_is_kept_only_with_the_parameters_it_was_made_with(book: Book) -> None:
    book.run("r", *ALL, stage1={"lr": 0.1})
    book.run("r", "eval", stage1={"lr": 0.5})
    with pytest.raises(
        CommandError, match=r"stage1\.lr must be 0\.1, with which run r made encoder, got 0\.5; "
    ):
        book.run("r", *ALL, stage1={"lr": 0.5})


def test_a_run_goes_on_with_fewer_workers(book: Book) -> None:
    book.run("r", "data_prep", "stage1", stage1={"loader": {"num_workers": 2}})
    book.run("r", *ALL, stage1={"loader": {"num_workers": 0}})
    assert book.kept == {"data_prep.make", "stage1.train"}


def test_an_empty_version_is_not_the_latest(book: Book) -> None:
    book.run("old", *ALL)
    with pytest.raises(CommandError, match="must name a run that made encoder, got ''; known are old"):
        book.run("new", "eval", pins={"encoder": ""})


def test_of_two_that_begin_one_run_at_once_both_go_on_with_the_same_base(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.run("old", *ALL)
    create = RunRecordDataset.create

    def create_late(dataset: RunRecordDataset, record: dict[str, Any]) -> bool:
        monkeypatch.setattr(RunRecordDataset, "create", create)
        book.run("shared", "stage1")
        return create(dataset, record)

    monkeypatch.setattr(RunRecordDataset, "create", create_late)
    book.run("shared", "data_prep")
    record = book.open().record_dataset("shared").load()
    assert record["base"] == "old"
    assert [list(task["nodes"]) for task in record["tasks"]] == [
        ["stage1.train"],
        ["data_prep.make"],
    ]


def test_runs_older_than_the_one_that_is_read_are_not_looked_into(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in ("a", "b", "c"):
        book.run(run_id, *ALL)
    looked_into: list[str] = []
    read = RunBook.read
    monkeypatch.setattr(RunBook, "read", lambda *given: looked_into.append(given[1]) or read(*given))
    base = book.open().base_for({"encoder", "classifier"})
    assert base is not None
    assert base.run_id == "c"
    assert looked_into == ["c"]
