"""``--engine ray --address``: a cluster that is not there is told of within seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine_ray
from benchmarks.engine_ray import PATIENCE, check_answers
from tests.suites import TINY, add_suites, main


@pytest.fixture
def port() -> Iterator[int]:
    """One at which something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def dead() -> int:
    """A port at which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found: int = server.getsockname()[1]
    return found


@pytest.mark.parametrize("address", ["127.0.0.1:{dead}", "ray://127.0.0.1:{dead}", "nowhere.invalid:1", "127.0.0.1:many", ":"])
def test_an_address_where_nothing_answers_ends_the_command(
    address: str, dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    add_suites(monkeypatch, TINY)
    address = address.format(dead=dead)
    command = ["run", "tiny", "--agents", "random", "--engine", "ray", "--address", address, "--out", str(tmp_path / "r")]
    begun = time.monotonic()
    assert main(*command) == 1
    assert time.monotonic() - begun < 2 * PATIENCE
    told = capsys.readouterr().err
    assert f"--address {address}: nothing answers there (" in told
    assert "check host and port" in told
    assert "Traceback" not in told
    assert not list((tmp_path / "r").rglob("*.run"))


def test_a_host_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = []

    def silent(place: tuple[str, int], timeout: float) -> socket.socket:
        patience.append((place, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr(engine_ray.socket, "create_connection", silent)
    with pytest.raises(ConnectionError, match=r"--address \[::1\]:6379: nothing answers there \(timed out\)"):
        check_answers("[::1]:6379")
    assert patience == [(("::1", 6379), PATIENCE)]


def test_whoever_answers_and_what_ray_looks_up_are_left_to_ray(port: int) -> None:
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"localhost:{port}", "auto", "local", None):
        check_answers(address)
