"""What the kernel says of memory: this machine's, and both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.fit import Meter, Room

GIB = 1 << 30
MEMINFO = "MemTotal:       24690000 kB\nMemFree:         100 kB\nMemAvailable:   {} kB\n"


def machine(root: Path, available: int, groups: str = "") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(MEMINFO.format(available // 1024))
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(root: Path, folder: str, **files: object) -> None:
    path = root / "sys/fs/cgroup" / folder
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_", ".", 1)).write_text(f"{content}\n")


def room(root: Path) -> Room | None:
    with Meter(root) as meter:
        return meter.room()


def test_the_machine_alone(tmp_path: Path) -> None:
    assert room(machine(tmp_path, 5 * GIB)) == Room(5 * GIB, "the machine")


def test_version_2_counts_caches_of_files_as_free(tmp_path: Path) -> None:
    machine(tmp_path, 20 * GIB, "0::/app/web\n")
    stat = f"anon {GIB}\nfile {2 * GIB}\nactive_file {GIB}\ninactive_file {GIB}\nshmem 0"
    group(tmp_path, "app/web", memory_max="max", memory_current=3 * GIB, memory_stat=stat)
    group(tmp_path, "app", memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=stat)
    group(tmp_path, "")
    assert room(tmp_path) == Room(3 * GIB, "/sys/fs/cgroup/app")


def test_version_2_is_throttled_above_high(tmp_path: Path) -> None:
    machine(tmp_path, 20 * GIB, "0::/app\n")
    group(
        tmp_path,
        "app",
        memory_max=8 * GIB,
        memory_high=2 * GIB,
        memory_current=GIB,
        memory_stat="active_file 0\ninactive_file 0",
    )
    assert room(tmp_path) == Room(GIB, "/sys/fs/cgroup/app")


def test_version_1(tmp_path: Path) -> None:
    machine(tmp_path, 20 * GIB, "8:cpu,cpuacct:/x\n4:memory:/job\n0::/\n")
    stat = (
        f"cache 5\nactive_file 1\ninactive_file 1\ntotal_active_file {GIB}\ntotal_inactive_file 0"
    )
    (tmp_path / "sys/fs/cgroup/memory/job").mkdir(parents=True)
    for name, content in {
        "memory.limit_in_bytes": 4 * GIB,
        "memory.usage_in_bytes": 2 * GIB,
        "memory.stat": stat,
    }.items():
        (tmp_path / "sys/fs/cgroup/memory/job" / name).write_text(f"{content}\n")
        root = (2**63 - 1) // 4096 * 4096 if name == "memory.limit_in_bytes" else content
        (tmp_path / "sys/fs/cgroup/memory" / name).write_text(f"{root}\n")
    assert room(tmp_path) == Room(3 * GIB, "/sys/fs/cgroup/memory/job")


def test_inside_a_container_only_the_mount_is_there(tmp_path: Path) -> None:
    machine(tmp_path, 20 * GIB, "0::/../../docker/abc\n")
    group(tmp_path, "", memory_max=GIB, memory_current=0, memory_stat="active_file 0")
    assert room(tmp_path) == Room(GIB, "/sys/fs/cgroup")


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    machine(tmp_path, 20 * GIB, "0::/app\n")
    group(tmp_path, "app", memory_max=GIB, memory_current=2 * GIB, memory_stat="inactive_file 5")
    assert room(tmp_path) == Room(0, "/sys/fs/cgroup/app")


def test_it_is_read_anew_each_time(tmp_path: Path) -> None:
    machine(tmp_path, 5 * GIB)
    with Meter(tmp_path) as meter:
        (tmp_path / "proc/meminfo").write_text(MEMINFO.format(GIB // 1024))
        assert meter.room() == Room(GIB, "the machine")


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: many kB\n", "\xff\n"])
def test_a_kernel_that_tells_nothing(tmp_path: Path, text: str) -> None:
    machine(tmp_path, GIB)
    (tmp_path / "proc/meminfo").write_text(text, "latin-1")
    assert room(tmp_path) is None
    assert room(tmp_path / "nowhere") is None


def test_this_machine() -> None:
    found = room(Path("/"))
    assert found is not None
    assert 0 < found.bytes < 1 << 50
