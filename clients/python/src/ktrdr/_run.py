"""`python -m ktrdr run job.py`: workers for all `@ktrdr.worker` functions of a file."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from types import FrameType
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._main import main
from ._programs import become_worker, find_program
from ._worker import Worker

__all__ = ["command_line", "workers_of"]

#: The number of it in Linux.
PR_SET_PDEATHSIG = 1

USAGE = """usage: python -m ktrdr run FILE[:FUNCTION] [settings of ktrdr-worker]

Starts a worker for each @ktrdr.worker function of the file, or for one of them, and becomes it:

  python -m ktrdr run job.py --data-dir data --concurrency 4

ktrdr-worker --help lists the settings; they are environment variables, too.
"""


def command_line(words: List[str]) -> Optional[int]:
    """The exit code of `python -m ktrdr`."""
    if len(words) < 2 or words[0] not in ("run", "list") or words[1].startswith("-"):
        wants_help = any(word in ("-h", "--help") for word in words)
        print(USAGE, end="", file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    file, function = _split(words[1])
    if not file.is_file():
        print(f"error: there is no file {file}", file=sys.stderr)
        return 2

    if words[0] == "list":
        return _list(file)
    if os.environ.get("KTRDR_EXEC"):
        main(_chosen(file, function))
        return None
    return _run(file, function, words[2:])


def _split(word: str) -> Tuple[pathlib.Path, Optional[str]]:
    path, colon, function = word.rpartition(":")
    return (pathlib.Path(path), function) if colon and function.isidentifier() else (pathlib.Path(word), None)


def _run(file: pathlib.Path, function: Optional[str], settings: List[str]) -> int:
    # Another process imports the file, so that this one stays small while it waits.
    names = [function] if function else _names(file)
    programs = [[sys.executable, "-m", "ktrdr", "run", f"{file.resolve()}:{name}"] for name in names]
    if len(programs) == 1:
        become_worker(programs[0], settings)
    if _is_one_worker(settings):
        print(f"error: {file} has {len(names)} workers, and a worker id or a port belongs to one: name it, as {file}:{names[0]}", file=sys.stderr)
        return 2
    try:
        worker = find_program("ktrdr-worker")
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _all([[worker, "--exec", shlex.join(program), *settings] for program in programs])


def _is_one_worker(settings: List[str]) -> bool:
    words = [word.partition("=")[0] for word in settings]
    return "--worker-id" in words or "--port" in words or "WORKER_ID" in os.environ or os.environ.get("WORKER_PORT", "0") != "0"


def _names(file: pathlib.Path) -> List[str]:
    """The names of its functions, sorted."""
    listed = subprocess.run([sys.executable, "-m", "ktrdr", "list", str(file)], stdout=subprocess.PIPE, check=False)
    if listed.returncode != 0:
        sys.exit(listed.returncode)
    return list(json.loads(listed.stdout))


def _all(commands: List[List[str]]) -> int:
    """Runs them until one ends, or until this process is told to stop; then the others are told to."""
    running: Dict[int, "subprocess.Popen[bytes]"] = {}
    is_starting, is_told = True, False
    early: Optional[int] = None

    def tell(number: int, _: Optional[FrameType] = None) -> None:
        nonlocal early, is_told
        is_told = True
        if is_starting:
            early = number
            return
        for process in list(running):
            # `os.wait` may have seen its end already.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, tell)
    code, follow = 0, _following_parent()
    for command in commands:
        if is_told:
            break
        try:
            # In a session of its own: Ctrl-C reaches only this process, and a worker takes a second signal for haste.
            process = subprocess.Popen(command, start_new_session=True, preexec_fn=follow)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"error: {command[0]} cannot be started: {error}", file=sys.stderr)
            code, early, is_told = 1, signal.SIGTERM, True
            break
        running[process.pid] = process
    is_starting = False
    if early is not None:
        tell(early)

    while running:
        pid, status = os.wait()
        ended = running.pop(pid, None)
        if ended is None:
            continue
        ended.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        code = code or ended.returncode
        if not is_told:
            tell(signal.SIGTERM)
    return code


def _following_parent() -> Optional[Callable[[], None]]:
    """For a child, before it becomes its program: has the system tell it to stop when this process ends, also after `kill -9`. Only Linux
    does so."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    # Loaded here: a new process should do as little as possible.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it has ended before
            os.kill(os.getpid(), signal.SIGTERM)

    return follow


def _list(file: pathlib.Path) -> int:
    # What the file prints is no part of the list, also what programs print that it starts.
    own = os.dup(1)
    os.dup2(2, 1)
    names = sorted(workers_of(file))
    if not names:
        print(f"error: there is no @ktrdr.worker function in {file}", file=sys.stderr)
        return 2
    sys.stdout.flush()
    with os.fdopen(own, "w") as out:
        out.write(json.dumps(names) + "\n")
    return 0


def _chosen(file: pathlib.Path, function: Optional[str]) -> Worker[Any, Any]:
    workers = workers_of(file)
    if function is None and len(workers) == 1:
        return next(iter(workers.values()))
    if function not in workers:
        sys.exit(f"error: {file} has no @ktrdr.worker function {function!r}; it has {', '.join(sorted(workers)) or 'none'}")
    return workers[function]


def workers_of(file: pathlib.Path) -> Dict[str, Worker[Any, Any]]:
    """The workers that a file defines, by the names of their functions. It is imported, as a module with the name of the file."""
    # As `python job.py` does it; processes that a job starts find the module again.
    sys.path.insert(0, str(file.resolve().parent))
    name = file.stem
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        sys.exit(f"error: {file} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return {
        key: value for key, value in vars(module).items() if isinstance(value, Worker) and value.function.__module__ == name
    }
