import re
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.training import hosts as hosts_module
from supcon_pipeline.core.training.hosts import ONE_HOST, Hosts, Launch, Meeting, meeting_others, require_own
from supcon_pipeline.core.training.launching import follow

GIVEN = {"SUPCON_HOSTS": "3", "SUPCON_HOST": "2", "SUPCON_RENDEZVOUS": "first.example:29500"}


@pytest.fixture
def port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


def test_hosts_are_named_by_variables_and_without_them_there_is_one() -> None:
    assert Hosts.of(GIVEN) == Hosts(3, 2, "first.example", 29500)
    assert Hosts.of({}) == Hosts.of({"SUPCON_HOSTS": "1"}) == ONE_HOST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SUPCON_HOSTS": "0"}, "SUPCON_HOSTS must be at least 1, got '0'; set SUPCON_HOSTS=1"),
        ({"SUPCON_HOSTS": "two"}, "SUPCON_HOSTS must be at least 1, got 'two'"),
        ({"SUPCON_HOST": "3"}, "SUPCON_HOST must be from 0 to 2, another on each host, got '3'"),
        ({"SUPCON_HOST": ""}, "SUPCON_HOST must be from 0 to 2, another on each host, got ''"),
        ({"SUPCON_RENDEZVOUS": ""}, "SUPCON_RENDEZVOUS must be <address>:<port> of the first host"),
        ({"SUPCON_RENDEZVOUS": "first"}, "got 'first'; set SUPCON_RENDEZVOUS=<its name>:29500"),
        ({"SUPCON_RENDEZVOUS": "first:99999"}, "got 'first:99999'"),
    ],
)
def test_variables_that_make_no_sense_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Hosts.of({**GIVEN, **changes})


def test_a_first_host_that_does_not_appear_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "MEETING_LIMIT", timedelta(seconds=1))
    with pytest.raises(
        InputError, match=rf"SUPCON_RENDEZVOUS must be .*, got 127.0.0.1:{port} \(.*set another"
    ):
        follow(Hosts(2, 1, "127.0.0.1", port))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"must be a free port .*, got 127.0.0.1:{port} \("):
            Meeting(Hosts(2, 0, "127.0.0.1", port))


def test_the_others_hear_of_each_training_that_is_not_done_and_of_the_end(port: int) -> None:
    first, other = (Hosts(2, number, "127.0.0.1", port) for number in (0, 1))
    done, going_on = Launch(1, 5, "a"), Launch(2, 6, "b")

    def hear_the_rest() -> list[Launch]:
        rest = list(told)
        late.leave()
        return rest

    with ThreadPoolExecutor() as pool:
        with meeting_others(first):
            assert Meeting.current is not None
            with Meeting.current.announced(done):
                pass
            with Meeting.current.announced(going_on):
                late = Meeting(other)
                told = late.launches()
                # One that comes late takes part in what has not ended.
                assert next(told) == going_on
            rest = pool.submit(hear_the_rest)
        assert Meeting.current is None
        # The run is over, and the first has waited until that was heard.
        assert rest.result() == []


def test_another_host_says_so_where_the_first_is_gone(port: int) -> None:
    first = Meeting(Hosts(2, 0, "127.0.0.1", port))
    other = Meeting(Hosts(2, 1, "127.0.0.1", port))
    del first
    with pytest.raises(InputError, match="the first host must run until the others are done"):
        list(other.launches())


def test_what_hosts_share_is_on_a_disk_of_both_and_closed_to_others(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data must lie at the same path on a disk that all hosts share"):
        require_own(tmp_path / "absent")
    tmp_path.chmod(0o755)
    with pytest.raises(InputError, match=r"must be closed to other users, got one of user \d+ with mode 755"):
        require_own(tmp_path)
    tmp_path.chmod(0o700)
    assert require_own(tmp_path) == tmp_path


def test_a_link_to_what_hosts_share_cannot_lead_elsewhere_once_it_was_looked_at(tmp_path: Path) -> None:
    own, other, link = tmp_path / "own", tmp_path / "other", tmp_path / "link"
    own.mkdir(mode=0o700)
    other.mkdir(mode=0o755)
    link.symlink_to(own)
    found = require_own(link)
    link.unlink()
    link.symlink_to(other)
    assert found == own
    with pytest.raises(InputError, match="must be closed to other users"):
        require_own(link)
