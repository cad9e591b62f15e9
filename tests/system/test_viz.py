import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Kedro
from tests.system.browser import needs_chromium, open_browser, watch


def free_port() -> int:
    """A port that Kedro-Viz takes: it refuses those above 49151, where the system gives its own."""
    for port in range(4200, 5000):
        with socket.socket() as probe:
            # Kedro-Viz goes on to the next port where this one answers, and the test would not know.
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError("a port from 4200 to 4999 must be free, got none")


def read_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def viz(finished_project: Path) -> Iterator[str]:
    """The address of Kedro-Viz on the finished project."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "kedro", "viz", "run", "--no-browser", "--include-hooks"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "DO_NOT_TRACK": "1"}
    with subprocess.Popen(
        [*command, "--port", str(port), "--env", "tiny"],
        cwd=finished_project,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    read_json(f"{address}/api/main")
                    break
                except OSError:
                    time.sleep(0.3)
            yield address
        finally:
            # Its server is a process of its own, in the session of the command.
            os.killpg(process.pid, signal.SIGTERM)


def test_every_dataset_has_a_layer_and_every_layer_its_place(viz: str) -> None:
    graph = read_json(f"{viz}/api/main")
    layers = ["raw", "prepared", "models", "evaluation", "inference", "reporting"]
    assert graph["layers"] == layers
    datasets = [node for node in graph["nodes"] if node["type"] == "data"]
    assert {node["name"] for node in datasets} >= {"encoder", "stage1_checkpoints", "metrics", "report"}
    assert [node["name"] for node in datasets if node["layer"] not in layers] == []


@needs_chromium
def test_a_stage_unfolds_and_shows_its_metrics_and_pictures(viz: str) -> None:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        errors = watch(page)
        # Kedro-Viz asks the network for a web font, which is no part of this project: it gets nothing.
        page.route(lambda url: not url.startswith(viz), lambda route: route.fulfill(status=204, body=""))
        page.goto(viz)
        page.wait_for_selector('.pipeline-node[data-id="visualization"]').dblclick()
        picture = page.wait_for_selector('.pipeline-node[data-node-fullname="embedding_map"]')
        picture.dispatch_event("click")
        preview = page.wait_for_selector(".pipeline-metadata img")
        page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=preview)
        page.wait_for_selector('.pipeline-node[data-node-fullname="metrics"]').dispatch_event("click")
        page.wait_for_selector(".pipeline-metadata >> text=data_hash")
        page.wait_for_selector('.pipeline-node[data-node-fullname="interactive_map"]').dispatch_event("click")
        page.wait_for_selector(".pipeline-metadata .js-plotly-plot .points path", state="attached")
        assert errors == []


def test_the_static_site_has_the_previews(project: Path, kedro: Kedro) -> None:
    done = kedro(
        project, "viz", "build", "--include-hooks", "--include-previews", KEDRO_ENV="tiny", DO_NOT_TRACK="1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = [json.loads(path.read_text()) for path in (project / "build/api/nodes").iterdir()]
    kinds = {node["preview_type"].rpartition(".")[2] for node in nodes if node.get("preview")}
    assert {"JSONPreview", "TablePreview", "ImagePreview", "PlotlyPreview"} <= kinds
    assert (project / "build/index.html").is_file()
