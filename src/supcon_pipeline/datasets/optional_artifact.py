"""What marks an artifact that not every run has; alone, because the datasets load matplotlib."""

from typing import Any


class OptionalArtifact:
    """Mixin for versioned datasets: a run may lack this artifact, which then loads as none.

    A node that takes it shows it where it exists, and does not require the pipeline that makes it.
    """

    def load(self) -> Any:
        """The artifact, or none where the run lacks it."""
        return super().load() if self.exists() else None  # type: ignore[attr-defined, misc]
