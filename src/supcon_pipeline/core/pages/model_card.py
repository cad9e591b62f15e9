"""The model card: what an exported model is, how good it is and how to use it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.pages.headlines import describe_images, headlines_of
from supcon_pipeline.core.pages.rendering import open_templates

# Characters special to Markdown; an underscore only where it is not inside a word.
_MARKS = re.compile(r"[\\`*<>&\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: str) -> str:
    """The text escaped so that Markdown shows it as it is, also in a table."""
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
        metadata: metadata of the exported classifier.
        metrics: the metrics of `evaluation`.
        dataset_card: the dataset card of `data_prep`.
        run_record: record of the run that exports.
        export_check: the check of `export`.
    """
    # A training from scratch had no published weights.
    published = {"published": metrics["published"]} if "published" in metrics else {}
    models = {"this model": metrics, **published, "baseline": metrics["baseline"]}
    rows = [
        (f"{group} {metric}", meaning, [model[group][metric] for model in models.values()])
        for group, metric, _, meaning in headlines_of(metrics)
        # The projection head is not exported.
        if group != "projection"
    ]
    templates = open_templates(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters["as_text"] = escape_markdown
    # Those of the trainings: the run that exports may have other parameters.
    parameters = {name: metrics["checkpoint"][name]["parameters"] for name in ("encoder", "classifier")}
    return templates.get_template("model_card.md").render(
        model=metadata,
        columns=list(models),
        rows=rows,
        metrics=metrics,
        images=describe_images(metrics),
        card=dataset_card,
        run=run_record,
        check=export_check,
        parameters=json.dumps(parameters, indent=2),
    )
