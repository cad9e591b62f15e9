"""What stands beside the weights of a backbone: where they come from and how their library reads them."""

from collections.abc import Mapping
from typing import Any

from supcon_pipeline.core.pages.rendering import open_templates


def render_backbone_card(weights: Any, dataset_card: Mapping[str, Any], run_record: Mapping[str, Any]) -> str:
    """The card as Markdown, with the front matter of a hub.

    Args:
        weights: the `NativeWeights`.
        dataset_card: the dataset card of `data_prep`.
        run_record: record of the run that exports.
    """
    templates = open_templates(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters["python"] = repr
    template = templates.get_template("backbone_card.md")
    return template.render(weights=weights, card=dataset_card, run=run_record)
