"""Parameters of the pipelines that put a run to use."""

from typing import Annotated

from pydantic import Field

from supcon_pipeline.core.parameters_base import Count, Parameters


class ExportParameters(Parameters):
    """Of `export`."""

    num_checked: Count
    tolerance: Annotated[float, Field(gt=0)]
