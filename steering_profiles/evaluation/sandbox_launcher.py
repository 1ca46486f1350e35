"""Launcher of the sandbox (``sandbox.py``): a standalone script that imports nothing from this package.

    python -I sandbox_launcher.py ROOT REPORT SECONDS < program

It enters new namespaces (user, mount, process, network, IPC, host name), creates an empty file system at the folder
ROOT with Python and the system's libraries in it, and runs the program there. It writes ``ready`` to the file
descriptor REPORT when this has succeeded; otherwise it writes the reason to standard error.

There are three processes. This one waits; the second is the first process of its process namespace, so that all others
end with it; the third becomes the program, without any privilege.
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
"""The program's user and group id in its user namespace."""
NOBODY = 65534
"""The program's user id outside if this runs as root, since root is exempt from limits on processes."""
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
    """Run the program on standard input and exit with its status."""
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
    """Enter new user, mount, process, network, IPC and host name namespaces."""
    as_root = os.getuid() == 0
    outside = {"uid": os.getuid(), "gid": os.getgid()}
    maps = {kind: f"{INSIDE} {number} 1\n" for kind, number in outside.items()}
    if as_root:  # two users, root and nobody, which only a process outside the new namespace may map
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
            file.write("deny")  # required before a group may be mapped
        write_maps("self", maps)
    os.close(reading)
    os.close(writing)


def write_maps(process: int | str, maps: dict[str, str]) -> None:
    """Write the id maps ``{"uid": ..., "gid": ...}`` of the user namespace of ``process``."""
    for kind, text in maps.items():
        with open(f"/proc/{process}/{kind}_map", "w") as file:
            file.write(text)


def make_root(root: str) -> None:
    """Create the program's file system at ``root``, in memory, with what Python needs mounted read-only."""
    call("private mounts", libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    options = b"size=64m,mode=0755"
    call("a file system in memory", libc.mount, b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    # Longest last, so that a path inside another is already there and is skipped.
    python = {path for prefix in (sys.base_prefix, sys.base_exec_prefix) for path in (prefix, os.path.realpath(prefix))}
    for source in sorted({*SYSTEM, *DEVICES, *python}, key=len):
        if os.path.lexists(source) and not os.path.lexists(root + source):
            show(source, root + source)
    os.mkdir(root + FOLDER)
    if os.getuid() == 0:
        os.chown(root + FOLDER, INSIDE, INSIDE)


def show(source: str, target: str) -> None:
    """Mount ``source`` read-only at ``target``; copy a symbolic link."""
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(source):  # such as /lib -> /usr/lib
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
    """Replace this process by the program, without privileges and under all limits."""
    # Not the one of a virtual environment, which is not mounted.
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
    # As isolated as -I, which would also ignore the hash seed, so that the order of a set would vary between runs.
    os.execve(python, [python, "-s", "-P", "-B", "program.py"], {"PYTHONHASHSEED": "0"})


def leave_as(child: int) -> NoReturn:
    """Wait for ``child``, reap other processes meanwhile, and exit with the status of ``child``."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call("ending with the parent", libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def call(what: str, function: Any, *arguments: Any) -> None:
    """Call a function of the C library.

    Raises:
        OSError: the call failed; the error names ``what`` it was for.
    """
    if function(*(ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
