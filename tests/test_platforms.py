"""What macOS and Windows do differently is tried here by taking away what they lack."""

import ast
import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankscope as rs
from rankscope import durable, platforms
from rankscope.analysis import local_workers
from rankscope.checkpoints.remote.hollow_files import can_be_path
from rankscope.durable import new_folder, remove_file, safe_name, write_file, write_folder
from tests.analysis.test_local_workers import Constant, outcomes

NO_PROGRAM = "/bin/false"  # starts, and ends at once
PACKAGE = Path(rs.__file__).parent
# Modules and names that Windows lacks, or that ask for the system; and who may use them, behind a
# constant of `platforms`.
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
UNIX_NAMES = {
    *("os.fork", "os.wait", "os.waitpid", "os.killpg", "os.kill", "os.uname", "os.getuid"),
    *("os.geteuid", "os.setsid", "os.getpgid", "os.sysconf", "os.statvfs", "os.mkfifo", "os.nice"),
    *("os.O_NONBLOCK", "os.O_CLOEXEC", "os.O_DIRECTORY", "os.O_NOFOLLOW", "os.fsync", "os.name"),
    *("os.getloadavg", "os.sched_getaffinity"),
    *("signal.SIGKILL", "signal.SIGHUP", "signal.SIGALRM", "signal.alarm", "signal.setitimer"),
    *("signal.SIGUSR1", "signal.SIGPIPE", "sys.platform", "platform.system", "time.tzset"),
}
EXCEPTIONS = {
    "analysis/local_workers.py": {"os.killpg", "signal.SIGKILL"},
    "analysis/copied_process.py": {"os.fork", "os.waitpid"},
    "analysis/engines.py": {"os.sched_getaffinity"},  # where there is one
    "analysis/worker.py": {"os.fork", "os.wait"},
    "training/run_folder/start.py": {"platform.system"},  # for the record alone
}


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platforms, "_PROCESS", str(tmp_path / "nothing" / "{}"))


@pytest.mark.parametrize("path", [p for p in PACKAGE.rglob("*.py") if p.name != "platforms.py"])
def test_only_one_module_asks_for_the_system(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not modules & UNIX_MODULES
    excepted = EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), set())
    assert names & UNIX_NAMES == excepted


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_process_has_one_beginning_until_it_ends() -> None:
    own = platforms.process_beginning(os.getpid())
    assert own == platforms.process_beginning(os.getpid()) != "ended"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert platforms.process_beginning(child.pid) not in ("ended", own, None)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert platforms.process_beginning(child.pid) == "ended"  # nobody has asked how
    assert platforms.process_beginning(child.pid) == "ended"


@pytest.mark.usefixtures("no_proc")
def test_without_proc_no_process_is_sent_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, number 0 is the signal of Ctrl-C."""
    monkeypatch.delattr(os, "kill")
    assert platforms.process_beginning(os.getpid()) is not None


@pytest.mark.usefixtures("no_proc")
def test_a_process_that_may_not_be_asked_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def refused(number: int) -> None:
        raise psutil.AccessDenied(number)

    monkeypatch.setattr(psutil, "Process", refused)
    assert platforms.process_beginning(1) is None


def test_without_a_count_of_the_system_the_load_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert platforms.load_of_machine() is None


def test_memory_is_the_same_where_the_kernel_is_not_asked_by_sysconf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = platforms.memory_of_machine()
    monkeypatch.delattr(os, "sysconf")
    assert platforms.memory_of_machine() == pytest.approx(known, rel=0.01)


@pytest.mark.parametrize("supported", [True, False])
def test_macos_is_asked_to_empty_the_memory_of_its_disk(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    asked = []

    def control(descriptor: int, command: int) -> None:
        asked.append((descriptor, command))
        if not supported:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(sys, "platform", "darwin")
    fake = types.SimpleNamespace(fcntl=control, F_FULLFSYNC=51)
    monkeypatch.setitem(sys.modules, "fcntl", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append((descriptor, "fsync")))
    platforms.flush(7)
    assert asked == [(7, 51)] if supported else [(7, 51), (7, "fsync")]


@pytest.fixture
def disk_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders cannot be opened, nor files flushed that are open for reading only."""
    opened, writable = os.open, set()

    def open_(path: str, flags: int, mode: int = 0o777) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        assert flags & platforms.BINARY or not flags & os.O_CREAT
        descriptor = opened(path, flags & ~platforms.BINARY, mode)
        if flags & (os.O_WRONLY | os.O_RDWR):
            writable.add(descriptor)
        return descriptor

    def flush(descriptor: int) -> None:
        if descriptor not in writable:
            raise OSError(9, "Bad file descriptor")

    binary = 1 << 30
    for module in (platforms, durable):
        monkeypatch.setattr(module, "BINARY", binary)
    monkeypatch.setattr(durable, "_ANEW", durable._ANEW | binary)
    monkeypatch.setattr(durable, "FLUSHES_FOLDERS", False)
    # As where folders cannot be opened; Python 3.14 has chosen when it was loaded.
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    if hasattr(shutil, "_rmtree_impl"):
        monkeypatch.setattr(shutil, "_rmtree_impl", shutil._rmtree_unsafe)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", flush)


@pytest.mark.usefixtures("disk_of_windows")
def test_everything_can_be_written_where_folders_cannot_be_flushed(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "file", b"1\n")
    durable.append(tmp_path / "a" / "file", b"2\n")
    durable.flush_file(tmp_path / "a" / "file")
    assert (tmp_path / "a" / "file").read_bytes() == b"1\n2\n"
    for content in (b"old", b"new"):
        write_folder(tmp_path / "folder", {"sub/one": content}, kind="k")
    assert durable.damage(tmp_path / "folder") is None
    with new_folder(tmp_path / "made") as made:
        (made / "one").mkdir()
    remove_file(tmp_path / "a" / "file")
    durable.remove_folder(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "made"]


@pytest.mark.parametrize("name", ["con", "AUX", "nul.txt", "com1", "Lpt9.a.b", "con.x y", "prn/"])
def test_no_file_is_named_as_a_device_of_windows(name: str) -> None:
    assert safe_name(name).partition(".")[0].lower() not in platforms.DEVICES
    assert safe_name(name) != safe_name(f"run-{name}")


def test_files_read_need_no_flag_that_a_system_may_lack() -> None:
    lacking = "import os\nfor n in ('O_NONBLOCK','O_CLOEXEC'): delattr(os, n)\n"
    code = (
        f"{lacking}os.O_BINARY = 0\nfrom rankscope import platforms\nprint(platforms.READ_REGULAR)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.O_RDONLY


def test_without_fork_every_worker_is_a_program_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_workers, "FORKS", False)
    monkeypatch.delattr(os, "fork")
    monkeypatch.delattr(os, "killpg")
    found = outcomes(2, *(Constant(1.0, "tells its process") for _ in range(3)))
    assert all(isinstance(one, list) for one in found.values())


@pytest.fixture
def shared_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """Sockets that go to another process as on Windows: by what ``share`` says of them there."""
    told: list[int] = []

    class Shared(socket.socket):
        def share(self, process: int) -> bytes:
            told.append(process)
            path = str(tmp_path / f"{len(told)}")
            post = socket.socket(socket.AF_UNIX)
            post.bind(path)
            post.listen()
            copy = os.dup(self.fileno())

            def hand_over() -> None:
                with contextlib.suppress(TimeoutError), post, post.accept()[0] as taker:
                    socket.send_fds(taker, [b"x"], [copy])
                os.close(copy)

            post.settimeout(0.5 if sys.executable == NO_PROGRAM else 60)

            threading.Thread(target=hand_over, daemon=True).start()
            return path.encode()

    def pair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = real_pair()
        return ours, Shared(theirs.family, theirs.type, fileno=theirs.detach())

    real_pair = socket.socketpair
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def fromshare(told):\n"
        "    with socket.socket(socket.AF_UNIX) as post:\n"
        "        post.connect(told.decode())\n"
        "        return socket.socket(fileno=socket.recv_fds(post, 1, 1)[1][0])\n"
        "socket.fromshare = fromshare\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PACKAGE.parent)]))
    monkeypatch.setattr(socket, "socketpair", pair)
    monkeypatch.setattr(local_workers, "FORKS", False)
    monkeypatch.setattr(local_workers, "INHERITS_DESCRIPTORS", False)
    monkeypatch.delattr(os, "killpg")
    yield told
    assert all(stat.S_ISSOCK((tmp_path / str(n + 1)).stat().st_mode) for n in range(len(told)))


def test_a_worker_that_inherits_nothing_is_told_where_its_connection_is(
    shared_sockets: list[int],
) -> None:
    found = outcomes(2, *(Constant(float(i + 1)) for i in range(3)), Constant(0.0, "unreadable"))
    assert [found[i][0].spectrum.values[0] for i in range(3)] == [1, 2, 3]  # type: ignore[index]
    assert len(shared_sockets) == 1


def test_a_program_that_dies_before_it_is_told_is_a_worker_that_died(
    shared_sockets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", NO_PROGRAM)
    found = outcomes(1, Constant(1.0))
    assert found[0].reason == "worker-died"  # type: ignore[attr-defined]
    assert len(shared_sockets) == 2  # it was tried twice


def test_a_file_that_a_reader_has_open_for_a_moment_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows does it: `MoveFileEx` is refused while somebody has the file open."""
    refusals = [PermissionError(13, "Access is denied")] * 2
    replaced = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(platforms, "PATIENCE", 2.0)
    write_file(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1" and not refusals
    monkeypatch.setattr(platforms, "PATIENCE", 0.0)
    refusals.append(PermissionError(13, "Access is denied"))
    with pytest.raises(PermissionError):
        write_file(tmp_path / "a", b"2")
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["a:b", "NUL.safetensors", "aux .x", ".. ", "end.", "a?", "x\x07"])
def test_what_windows_cannot_call_a_file_gets_no_stand_in_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_be_path([name])
    monkeypatch.setattr(platforms, "LIMITS_NAMES", True)
    assert not can_be_path([name])
    assert can_be_path(["step-10", "model-00001-of-00002.safetensors", ".tmp", "nulls", "a b"])
