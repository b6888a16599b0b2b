"""A cgroup (v1 or v2) with a limit of memory for the time of one run.

Unlike a resource limit it counts what is resident, of all processes in it, with the pages of files
that they read, and what the kernel holds for them. Pages of files can be taken back, so that a
process which needs less than the limit is at most slowed down by reading again; one that needs more
is killed.

    with MemoryCgroup(512 << 20) as group:
        subprocess.run(command, preexec_fn=group.enter)
        print(group.peak_bytes(), group.limit_hits(), group.kills())
"""

import os
import pathlib


class CgroupError(Exception):
    pass


def memory_hierarchies(proc="/proc"):
    """[(version, mount)] of the mounted hierarchies that limit memory."""
    found = []
    for line in pathlib.Path(proc, "mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        mount = pathlib.Path(mount)
        if kind == "cgroup" and "memory" in options.split(","):
            found.append((1, mount))
        elif kind == "cgroup2":
            controllers = mount / "cgroup.controllers"
            if controllers.exists() and "memory" in controllers.read_text().split():
                found.append((2, mount))
    return found


def own_group(version, proc="/proc"):
    """Of this process, relative to the mount; None where it is not named."""
    for line in pathlib.Path(proc, "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (version == 2) == (controllers == "") and (version == 2 or
                                                      "memory" in controllers.split(",")):
            return path.lstrip("/")
    return None


class MemoryCgroup:
    def __init__(self, limit, proc="/proc"):
        """Error (CgroupError): there is no place where this process may make one."""
        tried = []
        for version, mount in memory_hierarchies(proc):
            for parent in dict.fromkeys((mount, mount / (own_group(version, proc) or ""))):
                self.version, self.path = version, parent / f"edgewise-{os.getpid()}"
                try:
                    self._make(limit)
                    return
                except OSError as e:
                    tried.append(f"{self.path}: {e.strerror}")
        why = "; ".join(tried) or "no hierarchy with the memory controller is mounted"
        raise CgroupError(f"no cgroup with a limit of memory can be made here: {why} (it takes "
                          "root, or a group that is delegated to this user)")

    def _make(self, limit):
        self.path.mkdir()
        v1 = self.version == 1
        try:
            self._write("memory.limit_in_bytes" if v1 else "memory.max", limit)
            # No swap. (v1 could also limit the sum of both, but new kernels do not count its hits.)
            swap = "memory.swappiness" if v1 else "memory.swap.max"
            if (self.path / swap).exists():
                self._write(swap, 0)
        except OSError:
            self.path.rmdir()
            raise

    def _write(self, name, value):
        # Without O_CREAT: where the controller is not there, neither is its file.
        with open(os.open(self.path / name, os.O_WRONLY), "w") as f:
            f.write(str(value))

    def _field(self, name, key):
        for line in (self.path / name).read_text().splitlines():
            if line.split()[0] == key:
                return int(line.split()[1])
        return 0

    def enter(self):
        """Moves the calling process into the group."""
        self._write("cgroup.procs", os.getpid())

    def peak_bytes(self):
        """The most that was charged, pages of files included; 0 where the kernel does not say."""
        file = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(file.read_text()) if file.exists() else 0

    def limit_hits(self):
        """How often the limit was reached and pages had to be taken back."""
        if self.version == 1:
            return int((self.path / "memory.failcnt").read_text())
        return self._field("memory.events", "max")

    def kills(self):
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return self._field(name, "oom_kill")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.rmdir()
