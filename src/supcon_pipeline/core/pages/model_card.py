"""The model card: what an exported model is, how good it is and how to use it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.pages.headlines import HEADLINES
from supcon_pipeline.core.pages.rendering import open_templates

# What means something in Markdown; an underscore only where it does not stand inside a word.
_MARKS = re.compile(r"[\\`*<>&\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell of a table."""
    return _MARKS.sub(r"\\\g<0>", text)


def render_model_card(
    metadata: Mapping[str, Any],
    metrics: Mapping[str, Any],
    dataset_card: Mapping[str, Any],
    run_record: Mapping[str, Any],
    export_check: Mapping[str, Any],
) -> str:
    """The card as Markdown.

    Args:
        metadata: of the exported classifier.
        metrics: as `evaluation` gives them.
        dataset_card: as `data_prep` gives it.
        run_record: of the run that exports.
        export_check: as `export` gives it.
    """
    rows = [
        (f"{group} {metric}", meaning, metrics[group][metric], metrics["baseline"][group][metric])
        for group, metric, _, meaning in HEADLINES
        # The projection head is no part of what is exported.
        if group != "projection"
    ]
    templates = open_templates(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters["as_text"] = escape_markdown
    # Those of the trainings: the run that exports may have others and has trained nothing.
    parameters = {name: metrics["checkpoint"][name]["parameters"] for name in ("encoder", "classifier")}
    return templates.get_template("model_card.md").render(
        model=metadata,
        rows=rows,
        metrics=metrics,
        card=dataset_card,
        run=run_record,
        check=export_check,
        parameters=json.dumps(parameters, indent=2),
    )
