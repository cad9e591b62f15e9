from types import SimpleNamespace
from typing import Any

import pytest

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.pipelines.enrol.nodes import embed_enrolled_images, extend_index

NOTHING: Any = SimpleNamespace(metadata={"model_hash": "a"})


def test_a_node_that_is_chosen_alone_where_nothing_was_enrolled_is_refused() -> None:
    remedy = "got none of this encoder; type: kedro run --pipelines enrol --params enrol.path=<folder>"
    with pytest.raises(InputError, match=f"^enrolled_images must be there to be used, {remedy}$"):
        embed_enrolled_images(NOTHING, None, NOTHING)
    with pytest.raises(InputError, match=f"^enrolled_embeddings must be there to be used, {remedy}$"):
        extend_index(None, None, NOTHING, NOTHING, {}, NOTHING)
