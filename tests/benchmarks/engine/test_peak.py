"""The machine's peaks: what is measured, and with what where there is no compiler."""

import os
from pathlib import Path

import pytest

from benchmarks.engine import peak
from benchmarks.engine.peak import Work, cpu_flags, explore, rate

TURNS = 10  # other tenants take turns with us


def test_rate_counts_all_threads(tmp_path: Path) -> None:
    """A rate is the work of all threads over the time that all of them took; more threads than CPUs are refused."""
    calls: list[int] = []
    one = rate(Work("append", 10.0, lambda: calls.append(1)), 1)

    assert one > 0
    assert 2 == len(calls), "once to warm up, once timed"
    with pytest.raises(ValueError, match="as many CPUs"):
        rate(Work("none", 1.0, lambda: None), 10_000)
    assert not list(tmp_path.iterdir())


def test_a_rate_needs_no_call_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where threads cannot be placed, as on macOS, they are measured where the system puts them."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)

    assert rate(Work("none", 1.0, lambda: None), 1) > 0


@pytest.mark.skipif(
    not {"avx2", "fma"} <= cpu_flags(), reason="issue 5: kernels are written for x86-64 with AVX2"
)
def test_registers_are_faster_than_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled loops reach at least what ONNX Runtime's products do, which stand in where nothing compiles."""
    compiled = explore(tmp_path)
    monkeypatch.setattr(peak.shutil, "which", lambda _: None)
    stand_in = explore(tmp_path)

    assert ("registers", "ONNX Runtime") == (compiled.method, stand_in.method)
    assert "no C compiler" in stand_in.notes[0]
    assert {"int8", "fp32"} <= set(stand_in.arithmetic) <= set(compiled.arithmetic)
    for kind in ("int8", "fp32"):
        both = compiled.arithmetic[kind], stand_in.arithmetic[kind]
        assert max(rate(both[0], 1) / rate(both[1], 1) for _ in range(TURNS)) > 0.9


def test_each_kind_of_instruction_needs_its_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dot products of bytes and bf16 the int8 product stands in, and bf16 is said to be missing."""
    monkeypatch.setattr(peak, "cpu_flags", lambda: frozenset({"avx2", "fma"}))
    found = explore(tmp_path)
    if found.method != "registers":
        pytest.skip("issue 5: no C compiler here")

    assert "fp32_256" == found.arithmetic["fp32"].name
    assert "MatMulInteger" in found.arithmetic["int8"].name
    assert any("bf16" in note for note in found.notes)
    assert any("stands for int8" in note for note in found.notes)
