"""A process that confines itself and then tries what it must not be able to do.

Run by test_sandbox.py: ``python sandbox_probe.py SCENARIO CONFIG``; prints one JSON document.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.sandbox import (
    attempt_all,
    confine_front_end,
    confine_quantizer,
    confine_worker,
    seccomp,
)
from runtime.sandbox.bpf import Action, Policy, Rule, assemble, compile_policy
from runtime.sandbox.kernel import PR_SET_NO_NEW_PRIVS, prctl, syscall
from runtime.sandbox.surroundings import interpreter_grants
from runtime.sandbox.syscalls import current
from schemas.errors import SealiftError

ARCH = current()
Probe = Callable[[], object]


def answer(probe: Probe) -> str:
    """``ok`` or the name of the error number."""
    try:
        probe()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    return "ok"


def raw(name: str, *arguments: object) -> Probe:
    return lambda: syscall(ARCH.numbers[name], *arguments)


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> Probe:
    def call() -> None:
        with socket.socket(family, kind) as way:
            way.settimeout(2)
            way.connect(address)

    return call


def connect_pair() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.connect("\0nobody")


def use_pair() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        left.sendmsg([b"y"])
        if right.recv(2, socket.MSG_WAITALL) != b"xy":
            raise OSError(errno.EIO, "lost")


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def run_thread() -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(threading.get_native_id()))
    thread.start()
    thread.join()
    if not seen or seen[0] == os.getpid():
        raise OSError(errno.ESRCH, "no thread")


def socket_in_thread() -> None:
    failures: list[OSError] = []

    def body() -> None:
        try:
            socket.socket().close()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def callback() -> None:
    """A ctypes callback, made and called: llama.cpp logs through one."""
    compare = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )(lambda a, b: int(a[0]) - int(b[0]))
    values = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(values, 3, ctypes.sizeof(ctypes.c_int), compare)
    if list(values) != [1, 2, 3]:
        raise OSError(errno.EIO, "not sorted")


def common_probes(config: dict[str, Any]) -> dict[str, Probe]:
    parent = os.getppid()
    here = Path(config["folder"])
    return {
        "tcp": connect(socket.AF_INET, ("127.0.0.1", config["tcp"])),
        "udp": connect(socket.AF_INET, ("127.0.0.1", config["udp"]), socket.SOCK_DGRAM),
        "unix": connect(socket.AF_UNIX, config["unix"]),
        "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close(),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "socket in a thread": socket_in_thread,
        "datagram pair": lambda: socket.socketpair(type=socket.SOCK_DGRAM),
        "connect a pair": connect_pair,
        "execve": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - must fail
        "execveat": raw("execveat", -100, ctypes.c_char_p(b"/bin/true"), 0, 0, 0),
        "fork": fork,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "ptrace": raw("ptrace", 16, parent, 0, 0),
        "process_vm_readv": raw("process_vm_readv", parent, 0, 0, 0, 0, 0),
        "kill the parent": lambda: os.kill(parent, 0),
        "kill everybody": lambda: os.kill(-1, 0),
        "pidfd_open": lambda: os.pidfd_open(parent),
        "pidfd_getfd": raw("pidfd_getfd", 0, 0, 0),
        "io_uring": raw("io_uring_setup", 1, 0),
        "bpf": raw("bpf", 0, 0, 0),
        "userfaultfd": raw("userfaultfd", 1),
        "perf": raw("perf_event_open", 0, 0, -1, -1, 0),
        "keyctl": raw("keyctl", 0, -3, 0),
        "mount": raw("mount", 0, 0, 0, 0, 0),
        "unshare": raw("unshare", 0x10000000),
        "setns": raw("setns", 0, 0),
        "clone3": raw("clone3", 0, 0),
        "too new": lambda: syscall(ARCH.last + 1000),
        "setuid": lambda: os.setuid(0),
        "dumpable": lambda: prctl(4, 1),
        "raise limit": raw("prlimit64", 0, resource.RLIMIT_CORE, (ctypes.c_uint64 * 2)(), 0),
        "read passwd": lambda: Path("/etc/passwd").read_bytes(),
        "read a neighbour": (here / "secret").read_bytes,
        "list the folder": lambda: list(here.iterdir()),
        "read the parent's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "write a file": lambda: (here / "written").write_bytes(b"x"),
        "truncate": lambda: os.truncate(here / "secret", 0),
        "unlink": (here / "secret").unlink,
        "rename": lambda: (here / "secret").rename(here / "moved"),
        "make a folder": (here / "folder").mkdir,
        "symlink": lambda: (here / "link").symlink_to("secret"),
        "thread": run_thread,
        "pair": use_pair,
        "callback": callback,
        "read the model": lambda: Path(config["model"]).read_bytes(),
        "import": lambda: importlib.import_module("wave"),
        "cpuinfo": lambda: Path("/proc/cpuinfo").read_bytes(),
        "own status": lambda: Path("/proc/self/status").read_bytes(),
        "own signal": lambda: os.kill(os.getpid(), 0),
    }


def descriptors() -> list[Path]:
    """Those open now; that of the listing itself is gone by the time anybody looks."""
    return [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def facts() -> dict[str, object]:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    wanted = ("Seccomp", "NoNewPrivs", "CapEff", "CapPrm", "CapInh")
    found: dict[str, object] = {name: fields[name].strip() for name in wanted}
    found["core"] = resource.getrlimit(resource.RLIMIT_CORE)
    found["dumpable"] = prctl(3)
    return found


def worker(config: dict[str, Any]) -> dict[str, object]:
    report = confine_worker(
        readable=[Path(config["model"])],
        keep_descriptors=config.get("keep", []),
        preload=config.get("preload", []),
    )
    return {
        "report": report.document(),
        "facts": facts(),
        "open": {int(p.name): str(p.readlink()) for p in descriptors()},
        "egress": [attempt.document() for attempt in attempt_all(config["tcp"])],
        "probes": {name: answer(probe) for name, probe in common_probes(config).items()},
    }


def quantizer(config: dict[str, Any]) -> dict[str, object]:
    target = Path(config["folder"]) / "target"
    target.touch()
    report = confine_quantizer(readable=Path(config["model"]), writable=target, keep_descriptors=[])
    probes = {**common_probes(config), "write the target": lambda: target.write_bytes(b"x")}
    found = {name: answer(probe) for name, probe in probes.items()}
    egress = [attempt.document() for attempt in attempt_all(config["tcp"])]
    return {"report": report.document(), "egress": egress, "probes": found}


def quantizer_in_a_container(config: dict[str, Any]) -> dict[str, object]:
    """No Landlock."""
    _outer_filter(Rule("landlock_create_ruleset", Action.UNKNOWN))
    return quantizer(config)


def front_end(config: dict[str, Any]) -> dict[str, object]:
    home = Path(config["home"])
    listener = socket.create_server(("127.0.0.1", 0))
    report = confine_front_end(readable=[Path(config["model"])], writable=[home])
    (home / "inside").mkdir()
    return {
        "report": report.document(),
        "facts": facts(),
        "egress": [attempt.document() for attempt in attempt_all(config["tcp"])],
        "probes": {
            name: answer(probe)
            for name, probe in {
                **common_probes(config),
                "listen": lambda: listener.listen(1),
                "bind": lambda: listener.bind(("127.0.0.1", 0)),
                "write at home": lambda: (home / "file").write_bytes(b"x"),
                "move at home": lambda: (home / "file").rename(home / "inside" / "file"),
                "unlink at home": (home / "inside" / "file").unlink,
            }.items()
        },
    }


def unconfined(config: dict[str, Any]) -> dict[str, object]:
    return {"egress": [attempt.document() for attempt in attempt_all(config["tcp"])]}


def unprivileged(config: dict[str, Any]) -> dict[str, object]:
    # Load what another user may not be able to: the interpreter can lie in a private home.
    facts()
    list(interpreter_grants())
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        prctl(4, 1)  # setuid cleared "dumpable", which a process started unprivileged would have
    uid = os.getuid()
    report = confine_worker(readable=[], keep_descriptors=[])
    same = os.getuid() == uid
    return {"report": report.document(), "facts": facts(), "same user": same}


def _outer_filter(*rules: Rule) -> None:
    """What a container runtime puts around us."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    policy = Policy("container", rules, default=Action.ALLOW)
    seccomp.load(assemble(compile_policy(policy, ARCH)), ARCH)


def container(config: dict[str, Any]) -> dict[str, object]:
    """Neither namespaces nor Landlock."""
    _outer_filter(Rule("unshare", Action.REFUSE), Rule("landlock_create_ruleset", Action.UNKNOWN))
    return worker(config)


def no_seccomp(config: dict[str, Any]) -> dict[str, object]:
    _outer_filter(Rule("seccomp", Action.UNKNOWN))
    return worker(config)


def pretended_seccomp(config: dict[str, Any]) -> dict[str, object]:
    """As an emulator that answers success and does nothing: SECCOMP_RET_ERRNO with number 0."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    policy = Policy("emulator", (Rule("seccomp", Action.REFUSE),), default=Action.ALLOW)
    code = assemble(compile_policy(policy, ARCH))
    refuse = int(Action.REFUSE).to_bytes(4, "little")
    seccomp.load(code.replace(refuse, (0x00050000).to_bytes(4, "little")), ARCH)
    return worker(config)


def threads_running(config: dict[str, Any]) -> dict[str, object]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return worker(config)


def datagram_open(config: dict[str, Any]) -> dict[str, object]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        return front_end(config)


def missing_module(config: dict[str, Any]) -> dict[str, object]:
    return worker({**config, "preload": ["sealift_has_no_such_module"]})


def missing_model(config: dict[str, Any]) -> dict[str, object]:
    return worker({**config, "model": config["model"] + ".gone"})


def aborts(config: dict[str, Any]) -> dict[str, object]:
    """llama.cpp ends in abort() on a failed assertion: that must end the process at once."""
    confine_worker(readable=[], keep_descriptors=[])
    os.abort()


def foreign_numbering(config: dict[str, Any]) -> dict[str, object]:
    """getpid by the x32 numbering, made by the same instruction as ours."""
    confine_worker(readable=[], keep_descriptors=[])
    return {"answered": syscall(0x40000000 + 39)}


def foreign_architecture(config: dict[str, Any]) -> dict[str, object]:
    """getpid by the 32-bit entry: mov eax, 20; int 0x80; ret."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if entry() <= 0:
        signal.raise_signal(signal.SIGSYS)  # this kernel has no 32-bit entry at all
    confine_worker(readable=[], keep_descriptors=[])
    return {"answered": entry()}


def decode(config: dict[str, Any]) -> dict[str, object]:
    """The real engine: load, prefill with two threads, decode, in full confinement."""
    report = confine_worker(
        readable=[Path(config["model"])], keep_descriptors=[], preload=["llama_cpp"]
    )
    llama_cpp = importlib.import_module("llama_cpp")
    model = llama_cpp.Llama(config["model"], n_ctx=256, n_threads=2, verbose=False)
    text = model("Once upon a time there was", max_tokens=8, temperature=0.0)["choices"][0]["text"]
    egress = [attempt.document() for attempt in attempt_all()]
    return {"report": report.document(), "text": text, "egress": egress}


SCENARIOS: dict[str, Callable[[dict[str, Any]], dict[str, object]]] = {
    scenario.__name__: scenario
    for scenario in (
        worker,
        quantizer,
        quantizer_in_a_container,
        front_end,
        unconfined,
        unprivileged,
        container,
        no_seccomp,
        pretended_seccomp,
        threads_running,
        datagram_open,
        missing_module,
        missing_model,
        aborts,
        foreign_numbering,
        foreign_architecture,
        decode,
    )
}


def main() -> None:
    try:
        result = SCENARIOS[sys.argv[1]](json.loads(sys.argv[2]))
    except SealiftError as error:
        result = {"error": error.document()}
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
