from pathlib import Path

import pandas as pd
import pytest

from supcon_pipeline.datasets.tables import CSVDataset

NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'=1", "''-2", "'quoted", "cat", "a=b", ""]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_no_formula_in_a_spreadsheet_and_is_read_as_it_was(tmp_path: Path, name: str) -> None:
    load_args = {"dtype": {"label": str, name or "other": str}, "keep_default_na": False}
    dataset = CSVDataset(filepath=str(tmp_path / "a.csv"), save_args={"index": False}, load_args=load_args)
    table = pd.DataFrame({"label": [name, "cat"], "score": [-1.5, 2.0], name or "other": ["x", name]})
    before = table.copy()
    dataset.save(table)
    pd.testing.assert_frame_equal(table, before)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    cells = [cell.strip('"') for line in lines for cell in line.split(",")]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t") and cell != "-1.5"]
    pd.testing.assert_frame_equal(dataset.load(), table, check_dtype=False)
