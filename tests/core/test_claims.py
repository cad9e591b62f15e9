import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from supcon_pipeline.core import claims
from supcon_pipeline.core.claims import Claim, waiting_turn

HOLDER = """
import sys, time
from pathlib import Path
from supcon_pipeline.core.claims import Claim, waiting_turn
claim = Claim(Path(sys.argv[1]), sys.argv[2:], "run")
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def hold(place: Path, *names: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(place), *names]
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "claimed\n"
    return holder


def test_what_another_process_works_on_is_refused_with_its_name_until_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PATIENCE", 0.1)
    with hold(tmp_path, "1 pack", "1 train") as holder:
        told = f"^run 1 train must be made by one process at a time, got process {holder.pid} of .*since 20"
        with pytest.raises(ValueError, match=told):
            Claim(tmp_path, ["1 score", "1 train"], "run")
        # Another task of the same run, and another project.
        Claim(tmp_path, ["1 score"], "run").release()
        Claim(tmp_path / "other", ["1 train"], "run").release()
        holder.kill()
    Claim(tmp_path, ["1 train"], "run").release()
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in left if re.search("json|lock", name)]


def test_a_process_may_claim_again_what_it_has(tmp_path: Path) -> None:
    first, second = Claim(tmp_path, ["train"], "run"), Claim(tmp_path, ["train"], "run")
    second.release()
    first.release()


def test_a_claim_that_a_full_disk_refuses_names_its_file_and_is_taken_back(tmp_path: Path) -> None:
    # The folder is found while there is room.
    Claim(tmp_path, ["train"], "run").release()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/.*\.json'"):
            Claim(tmp_path, ["train"], "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.rglob("*.json"))
    Claim(tmp_path, ["train"], "run").release()


def test_a_user_without_a_name_can_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    Claim(tmp_path, ["a"], "run").release()


def test_a_turn_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    first, second, elsewhere = (waiting_turn(tmp_path / name) for name in ("a", "a", "b"))
    with first, elsewhere, pytest.raises(Timeout):
        second.acquire(timeout=0.01)
    with second:
        pass
