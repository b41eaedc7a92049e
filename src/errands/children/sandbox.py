"""What a child process does to itself before it touches a stranger's file.

Limits hold on every POSIX system. What the process may do besides is restricted where the kernel is Linux and
offers it: Landlock (no file is written or made, no TCP, no signals to others) and seccomp (no sockets, no
other programs, no look into other processes). Both need no privileges; those of root are given up. Where the
kernel lacks them, the limits and the empty environment are what there is.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import resource
import signal
import struct
import sys
import threading
from contextlib import suppress

_LINUX = sys.platform == "linux"

# Landlock: linux/landlock.h. The numbers of its system calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE = 1 << 1
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11  # bind, connect
_SCOPE = 0b11  # abstract sockets, signals

# capset(2): of what root may do, reading any file is left; the code to be imported may belong to anybody.
_CAPABILITIES, _READ_SEARCH = 0x20080522, 1 << 2

# prctl(2)
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2

# seccomp(2), linux/bpf_common.h: load a word, jump if equal / greater or equal, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 13  # EACCES

# By machine: its name for seccomp (linux/audit.h), calls that are refused, calls that start programs.
# socket, ptrace, process_vm_readv, process_vm_writev, io_uring_setup; execve, execveat
_CALLS = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425), (59, 322)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425), (221, 281)),
}
_X32 = 0x40000000  # x86_64: the same calls again, under other numbers


def die_with(life: int) -> None:
    """End this process, whatever it is doing, when the other end of the pipe `life` is closed: the parent has
    ended.

    Not by PR_SET_PDEATHSIG: that is sent when the parent's *thread* ends that started this process.
    """
    if _LINUX:
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, 10, signal.SIGKILL)  # F_SETSIG: what is sent instead of SIGIO
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        os.set_blocking(life, False)
        with suppress(BlockingIOError):
            if not os.read(life, 1):  # it ended before we asked to be told
                os._exit(0)
    else:
        threading.Thread(target=_exit_after, args=(life,), daemon=True).start()


def _exit_after(life: int) -> None:
    os.read(life, 1)
    os._exit(0)


def limit_memory(size: int) -> None:
    """Bytes that this process may have for itself; no core file, few descriptors, no large files."""
    # Not RLIMIT_AS: it counts address space that is only set aside, and libraries that are shared.
    _set(resource.RLIMIT_DATA, size)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, 128)
    _set(resource.RLIMIT_FSIZE, 1024 * 1024)  # its standard error
    for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if _LINUX:
        # Where the machine runs out of memory, this process goes, not the worker.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
            score.write("800")


def limit_processor(seconds: float) -> None:
    """Seconds of processor time from now on; then SIGXCPU ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (_lower(soft, hard), hard))


def lock(*, programs: bool) -> None:
    """Give up what reading a file does not need, as far as this kernel can. There is no way back."""
    if not _LINUX:
        return
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    libc.syscall.restype = ctypes.c_long
    if os.geteuid() == 0:
        kept = struct.pack("=6I", _READ_SEARCH, _READ_SEARCH, 0, 0, 0, 0)
        libc.capset(struct.pack("=Ii", _CAPABILITIES, 0), kept)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, None, 0, 0) == 0:
        _restrict_files(libc)
        _restrict_calls(libc, programs)


def _restrict_files(libc: ctypes.CDLL) -> None:
    version = libc.syscall(_CREATE_RULESET, None, 0, 1, 0)
    if version < 1:
        return
    change = _WRITE_FILE | (_TRUNCATE if version >= 3 else 0)
    files = change | _REMOVE_AND_MAKE | (_REFER if version >= 2 else 0)
    handled = struct.pack("=QQQ", files, _TCP if version >= 4 else 0, _SCOPE if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, handled, size, 0, 0)
    if ruleset < 0:
        return
    # The one rule, for libraries that write what they have to say there, and don't look whether they could.
    nowhere = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", change, nowhere))
    libc.syscall(_ADD_RULE, ruleset, 1, ctypes.addressof(rule), 0)
    libc.syscall(_RESTRICT_SELF, ruleset, 0, 0, 0)
    os.close(nowhere)
    os.close(ruleset)


def _restrict_calls(libc: ctypes.CDLL, programs: bool) -> None:
    machine = os.uname().machine
    if machine not in _CALLS or sys.maxsize < 2**32:
        return
    name, always, starting = _CALLS[machine]
    refused = always if programs else always + starting
    code = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, name), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0)]
    code += [(_IF_AT_LEAST, len(refused) + 1, 0, _X32)] if machine == "x86_64" else []
    code += [(_IF_EQUAL, len(refused) - place, 0, call) for place, call in enumerate(refused)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    program = struct.pack("@HP", len(code), ctypes.addressof(steps))
    libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0)


def _set(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = _lower(value, hard)
    # Some systems refuse a limit that they can't hold.
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (value, value))


def _lower(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
