"""The gallery of a run in a vector database, as docs/retrieval.md shows it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from supcon_pipeline.core.search.index import build_index, search_index
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not find_spec("qdrant_client"), reason="needs the extra dev-extras")


@pytest.mark.parametrize("hnsw_above", [50, 0])
def test_the_code_of_the_docs_finds_what_the_index_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hnsw_above: int
) -> None:
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(1, 8)).astype(np.float32)
    index = build_index(vectors, hnsw_above, 16, 80, 80)
    rows = pd.DataFrame(
        {
            "id": [f"photos/{row}.jpg" for row in range(50)],
            "class_name": ["cup", "jug"] * 25,
            "label": [0, 1] * 25,
            "split": "enrolled",
            "row": np.arange(50),
        }
    )
    similarities, found = search_index(index, query, 5)
    blocks = (ROOT / "docs/retrieval.md").read_text().split("```python\n")[1:]
    (code,) = (block.split("```")[0] for block in blocks if "QdrantClient" in block)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"index": index, "rows": rows, "query": query}
    exec(code, names)
    hits = names["hits"]
    names["client"].close()
    assert [hit.payload for hit in hits] == rows.iloc[found[0]].to_dict("records")
    assert [hit.score for hit in hits] == pytest.approx(similarities[0].tolist(), abs=1e-5)
