"""The inside of the sandbox: a script of its own that imports nothing of ours. See ``sandbox.py`` for what it is for.

    python -I sandbox_launcher.py ROOT REPORT SECONDS < program

It enters new namespaces (user, mount, process, network, IPC, host name), makes an empty file system at the folder
ROOT with Python and the system's libraries in it, and runs the program there. ``ready`` is written to the file
descriptor REPORT when all of that holds; before that, a line on standard error says what could not be done.

Three processes: this one waits; the second is the first of its process namespace, so that everything ends with it;
the third becomes the program, without any privilege.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38

INSIDE = 1000
"""The program's user and group in its own namespace."""
NOBODY = 65534
"""Who that is outside, where this runs as root: limits on processes do not hold for root."""
FOLDER = "/sandbox"
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
MEBIBYTE = 2**20
LIMITS = {
    resource.RLIMIT_AS: 1024 * MEBIBYTE,
    resource.RLIMIT_FSIZE: 16 * MEBIBYTE,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_NPROC: 8,
}

libc = ctypes.CDLL(None, use_errno=True)


def main(root: str, report: int, seconds: int) -> NoReturn:
    """Run the program on standard input; leave with its exit status."""
    program = sys.stdin.buffer.read()
    end_with_parent()
    enter_namespaces()
    second = os.fork()
    if second:
        leave_as(second)
    end_with_parent()
    make_root(root)
    third = os.fork()
    if third:
        leave_as(third)
    become(program, root, report, seconds)


def enter_namespaces() -> None:
    """Leave the user, mount, process, network, IPC and host name namespaces for new ones."""
    as_root = os.getuid() == 0
    outside = {"uid": os.getuid(), "gid": os.getgid()}
    maps = {kind: f"{INSIDE} {number} 1\n" for kind, number in outside.items()}
    if as_root:  # two users, itself and nobody, which only a process outside of the new namespace may map
        maps = dict.fromkeys(outside, f"0 0 1\n{INSIDE} {NOBODY} 1\n")
    reading, writing = os.pipe()
    helper = os.fork() if as_root else -1
    if helper == 0:
        os.close(writing)
        if os.read(reading, 1):
            write_maps(os.getppid(), maps)
        os._exit(0)
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    call("new namespaces", libc.unshare, flags)
    if as_root:
        os.write(writing, b"!")
        if os.waitpid(helper, 0)[1]:
            sys.exit("the users of the sandbox could not be mapped")
    else:
        with open("/proc/self/setgroups", "w") as file:
            file.write("deny")  # or no group may be mapped
        write_maps("self", maps)
    os.close(reading)
    os.close(writing)


def write_maps(process: int | str, maps: dict[str, str]) -> None:
    """Say which users outside the users inside are."""
    for kind, text in maps.items():
        with open(f"/proc/{process}/{kind}_map", "w") as file:
            file.write(text)


def make_root(root: str) -> None:
    """Make the file system that the program sees, at ``root``: in memory, with what Python needs mounted read-only."""
    call("private mounts", libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    options = b"size=64m,mode=0755"
    call("a file system in memory", libc.mount, b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    # Longest last, so that what lies beneath another is seen to be there already.
    python = {path for prefix in (sys.base_prefix, sys.base_exec_prefix) for path in (prefix, os.path.realpath(prefix))}
    for source in sorted({*SYSTEM, *DEVICES, *python}, key=len):
        if os.path.lexists(source) and not os.path.lexists(root + source):
            show(source, root + source)
    os.mkdir(root + FOLDER)
    if os.getuid() == 0:
        os.chown(root + FOLDER, INSIDE, INSIDE)


def show(source: str, target: str) -> None:
    """Make ``source`` readable at ``target``."""
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(source):  # such as /lib, which is /usr/lib
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o644))
    call(f"mounting {source}", libc.mount, source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    arguments = (AT_FDCWD, target.encode(), AT_RECURSIVE, ctypes.byref(read_only), ctypes.sizeof(read_only))
    call(f"making {source} read-only", libc.syscall, SYS_MOUNT_SETATTR, *arguments)


def become(program: bytes, root: str, report: int, seconds: int) -> NoReturn:
    """Turn into the program, with no privilege and under all limits."""
    # Not that of a virtual environment, which is not mounted.
    python = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    os.chroot(root)
    os.chdir(FOLDER)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(INSIDE)
        os.setuid(INSIDE)
    with open("program.py", "wb") as file:
        file.write(program)
    if not os.access(python, os.X_OK):
        sys.exit(f"{python} cannot be run in the sandbox")
    call("no new privileges", libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for limit, value in (LIMITS | {resource.RLIMIT_CPU: seconds}).items():
        resource.setrlimit(limit, (value, value))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.set_inheritable(report, True)
    os.write(report, b"ready\n")
    # As isolated as -I, which would ignore the hash seed too, and leave to luck what the order of a set decides.
    os.execve(python, [python, "-s", "-P", "-B", "program.py"], {"PYTHONHASHSEED": "0"})


def leave_as(child: int) -> NoReturn:
    """Wait for ``child``, and for whatever else ends meanwhile, and leave with its exit status."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def end_with_parent() -> None:
    """Be killed when the parent ends."""
    call("ending with the parent", libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def call(what: str, function: Any, *arguments: Any) -> None:
    """Call into the C library.

    Raises:
        OSError: it failed; ``what`` was wanted.
    """
    if function(*(ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
