"""What the package brings along for folders without configuration of their own; imports no Kedro."""

import os
from pathlib import Path

CONF = (Path(__file__).parent / "conf").resolve()
TEMPLATE = Path(__file__).parent / "template"


def choose_log() -> None:
    """Use the log of this package, not the wordy one of Kedro, where the current folder chooses none.

    Kedro reads the setting when it is imported.
    """
    if not any(Path("conf").glob("logging.y*ml")):
        os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(CONF / "logging.yml"))
