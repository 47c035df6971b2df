"""The measuring itself is not tested by the clock; what it writes and makes is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from registry.gguf import model_facts, read_header_file
from tools.benchmarks import document, results
from tools.benchmarks.models import write_model
from tools.benchmarks.process import BenchError, run
from tools.benchmarks.results import Figure, Section


@pytest.mark.parametrize("size", [1, 8192, 100_000, (64 << 20) + 1])
def test_a_synthetic_model_passes_the_checks_of_a_real_one(tmp_path: Path, size: int) -> None:
    path = write_model(tmp_path / "m.gguf", size, name="any")
    header = read_header_file(path)
    assert model_facts(header).license == "apache-2.0"
    assert size <= path.stat().st_size < size + 8192 + 1024


def section(key: str, text: str) -> Section:
    return Section(key, key.title(), text, (Figure("a", "0.5", "≤ 0.8", met=True),))


def test_one_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    document.write(path, {"rss": (section("rss", "first"), "_here_")})
    document.write(path, {"import": (section("import", "second"), "_there_")})
    document.write(path, {"rss": (section("rss", "third"), "_here_")})
    text = path.read_text()
    assert "first" not in text
    assert text.index("second") < text.index("third")
    assert text.count("<!-- bench:") == 2
    document.write(path, {})
    assert path.read_text() == text


def test_the_summary_fits_a_terminal() -> None:
    names = [
        "peak memory of import, 0.1 GiB, MiB",
        "tokens/s, server / llama-cpp-python, chat stream",
    ]
    text = results.summary([Figure(name, "1234.00", "≤ 1000.00", met=False) for name in names])
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("MISSED") == 2


def test_ratios_are_of_medians() -> None:
    assert results.ratio_of_medians([1, 9, 2], [4, 4, 4]) == 0.5
    assert results.spread([1, 4], [2, 2]) == "0.50-2.00"


def test_a_failed_command_says_why() -> None:
    with pytest.raises(BenchError, match=r"exit code 3: no such thing"):
        run(
            [
                sys.executable,
                "-c",
                "import sys; print('no such thing', file=sys.stderr); sys.exit(3)",
            ]
        )


def test_the_peak_of_a_process_is_counted() -> None:
    size = 64 << 20
    cost = run([sys.executable, "-c", f"b = b'1' * {size}; print(len(b))"])
    assert cost.output == f"{size}\n"
    assert cost.peak_bytes > size
