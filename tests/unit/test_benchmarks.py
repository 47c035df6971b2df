"""The measuring itself is not tested by the clock; what it writes and makes is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from registry.gguf import model_facts, read_header_file
from tools.benchmarks import document, fuzzing, results, scale
from tools.benchmarks.disk import nameless, used
from tools.benchmarks.models import compressible, hole, write_header, write_model
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


def test_sparse_and_compressible_models_are_models_too(tmp_path: Path) -> None:
    sparse = write_model(tmp_path / "s.gguf", 8 << 20, name="s", fill=hole)
    assert sparse.stat().st_size >= 8 << 20
    assert used(tmp_path) < 1 << 20
    assert model_facts(read_header_file(sparse)).license == "apache-2.0"
    assert max(compressible(1000)) < 64
    small = tmp_path / "m.gguf"
    with small.open("wb") as file:
        write_header(file, 512, name="m")
        file.write(bytes(512))
    (tensor,) = read_header_file(small).tensors
    assert tensor.size_bytes == 512


def test_disk_counts_a_file_once_whatever_its_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1" * 8192)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert used(tmp_path) == 8192
    with (tmp_path / "c").open("w+b") as file:
        before = nameless(os.getpid(), tmp_path.stat().st_dev)
        file.write(b"1" * 8192)
        file.flush()
        (tmp_path / "c").unlink()
        assert nameless(os.getpid(), tmp_path.stat().st_dev) - before == 8192


def test_time_per_blob_leaves_out_what_one_model_takes() -> None:
    assert scale.per_blob({3: 1.0, 33: 1.3, 303: 4.0}) == pytest.approx({33: 1e4, 303: 1e4})
    assert scale.growth("x", 10.0, 11.0).verdict == "met"
    assert scale.growth("x", 10.0, 13.0).verdict == "MISSED"
    assert scale.growth("x", 0.0, 13.0).verdict == ""


def test_what_fuzzing_says_is_read() -> None:
    lines = ["INFO: seed\n", "stat::number_of_executed_units: 9227\n", "stat::peak_rss_mb: 105\n"]
    stats = fuzzing.read_stats(lines)
    assert stats == {"executions": 9227, "peak MiB": 105}
    run = {"date": "2026-01-02 03:04", "commit": "abc", "seconds": 3600, "findings": 0, **stats}
    shown = fuzzing.section([{**run, "seconds": 5}, run])
    assert [figure.verdict for figure in shown.figures] == ["met", "", "met"]
    assert "| 9,227 | 3,600 | - | 105 | 0 |" in shown.text
