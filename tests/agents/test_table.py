"""The table that `compress` and `evaluate` print."""

from __future__ import annotations

from agents.table import Entry, to_text


def entries(dense: float | None, small: float | None) -> list[Entry]:
    return [
        Entry("dense", 0, 0.9, 0.8, 1000, 20000, 4000, 0.0, latency=dense),
        Entry("sac", 50, 0.85, 0.75, 500, 5000, 2000, 1.25, chosen=True, latency=small),
        Entry("random search", 50),
    ]


def test_costs_stand_beside_what_is_left_of_them() -> None:
    head, _, dense, small, none = to_text(entries(None, None), "accuracy").splitlines()
    assert head.split() == ["evaluated", "valid", "accuracy", "test", "accuracy", "params", "MACs", "bytes", "return"]
    assert "20,000 (100 %)" in dense
    assert small.startswith("> sac")
    assert "5,000 ( 25 %)" in small
    assert none.split() == ["random", "search", "50", "-", "-", "-", "-", "-", "-"]


def test_where_latency_is_saved_the_table_tells_it() -> None:
    head, _, dense, small, none = to_text(entries(0.002, 0.0005), "accuracy").splitlines()
    assert head.split()[-2:] == ["latency", "return"]
    assert "2 ms (100 %)" in dense
    assert "0.5 ms ( 25 %)" in small
    assert none.split()[-6:] == ["-"] * 6
