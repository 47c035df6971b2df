"""Which build of the engine a processor gets, and what the requirements files pin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import engine_wheel

V2 = "fpu sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
V3 = f"{V2} movbe avx f16c abm bmi1 avx2 bmi2 fma"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl"
FULL = f"{V4} avx512vbmi avx512_vnni avx512_bf16"
AMX = f"{FULL} amx_tile amx_int8"

X86_SWITCHES = {
    "SSE42",
    "AVX",
    "AVX_VNNI",
    "AVX2",
    "BMI2",
    "FMA",
    "F16C",
    "AVX512",
    "AVX512_VBMI",
    "AVX512_VNNI",
    "AVX512_BF16",
    "AMX_TILE",
    "AMX_INT8",
    "AMX_BF16",
}


def cpuinfo(*cores: str) -> str:
    return "\n".join(
        f"processor\t: {index}\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n"
        for index, flags in enumerate(cores)
    )


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([AMX, AMX], "engine-x86-64-amx.txt"),
        ([AMX, FULL], "engine-x86-64-avx512.txt"),
        ([f"{FULL} amx_tile amx_bf16"], "engine-x86-64-avx512.txt"),  # without integers
        ([V4], "engine-x86-64-v3.txt"),  # AVX-512 without VBMI, VNNI, BF16
        ([FULL.replace("avx512_bf16", "")], "engine-x86-64-v3.txt"),
        ([V3], "engine-x86-64-v3.txt"),
        ([FULL, V3], "engine-x86-64-v3.txt"),  # unlike cores: what all can run
        ([V3.replace(" fma", "")], "engine-x86-64-v2.txt"),
        ([V2], "engine-x86-64-v2.txt"),
    ],
)
def test_x86_gets_what_every_core_can_run(cores: list[str], expected: str) -> None:
    assert engine_wheel.choose("x86_64", cpuinfo(*cores)) == expected


def test_an_architecture_without_flags_is_refused() -> None:
    with pytest.raises(engine_wheel.BuildError, match="i686"):
        engine_wheel.choose("i686", cpuinfo(FULL))


def test_aarch64_gets_the_compilers_baseline() -> None:
    assert engine_wheel.choose("aarch64", "Features\t: fp asimd\n") == "engine-aarch64.txt"


@pytest.mark.parametrize("text", [cpuinfo("fpu sse sse2"), ""])
def test_a_processor_that_is_too_old_or_unknown_is_refused(text: str) -> None:
    with pytest.raises(engine_wheel.BuildError, match="sse4_2"):
        engine_wheel.choose("x86_64", text)


@pytest.mark.parametrize("path", sorted(engine_wheel.REQUIREMENTS.glob("engine-x86-*.txt")))
def test_x86_files_name_every_instruction_set(path: Path) -> None:
    switches = dict(re.findall(r"cmake\.define\.GGML_(\w+)=(ON|OFF)", path.read_text("ascii")))
    assert set(switches) >= X86_SWITCHES
    on = {name for name in switches if name.startswith("AMX") and switches[name] == "ON"}
    assert on == ({"AMX_TILE", "AMX_INT8"} if "amx" in path.stem else set())
    # Or GCC 12 drops most of what it loads into the tiles' configuration.
    assert ("-fno-dse -fno-tree-dse" in path.read_text("ascii")) == bool(on)


def test_all_files_pin_one_source_and_never_the_building_machine() -> None:
    texts = [path.read_text("ascii") for path in engine_wheel.REQUIREMENTS.glob("engine-*.txt")]
    builds = [text for text in texts if "llama-cpp-python==" in text]
    assert len(builds) == len(engine_wheel.X86_VARIANTS) + 1
    assert all("GGML_NATIVE=OFF" in text and "GGML_RPC=OFF" in text for text in builds)
    assert len({tuple(re.findall(r"==\S+", text)) for text in builds}) == 1
    assert len({tuple(re.findall(r"--hash=\S+", text)) for text in builds}) == 1


def test_the_cache_key_changes_with_the_flags(tmp_path: Path) -> None:
    one = tmp_path / "engine-a.txt"
    one.write_text("GGML_AVX=ON", encoding="ascii")
    first = engine_wheel.cache_key(one)
    assert engine_wheel.cache_key(one) == first
    one.write_text("GGML_AVX=OFF", encoding="ascii")
    assert engine_wheel.cache_key(one) != first
    assert first.startswith("engine-a-")


def test_the_installed_engine_has_the_flags_of_its_file() -> None:
    assert engine_wheel.check(engine_wheel.requirements_file()) == []
