"""The programs that this package needs: where they are, and how `ktrdr-worker` runs a file of Python."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import sys
import sysconfig
from typing import List, NoReturn, Optional

__all__ = ["become_worker", "find_program", "this_program"]


def find_program(name: str) -> str:
    """The path of a program: from a variable, such as `KTRDR_WORKER_BIN` for `ktrdr-worker`, where a wheel puts programs, or in `PATH`.

    Raises `FileNotFoundError` when it is nowhere.
    """
    variable = name.upper().replace("-", "_") + "_BIN"
    path = os.environ.get(variable) or _of_wheel(name) or shutil.which(name)
    if not path:
        raise FileNotFoundError(f"{name} is not in PATH: install a wheel that has it, build it, or set {variable} to where it is")
    return path


def _of_wheel(name: str) -> Optional[str]:
    user = sysconfig.get_path("scripts", f"{os.name}_user")
    for folder in (os.path.dirname(sys.executable), sysconfig.get_path("scripts"), user):
        path = pathlib.Path(folder, name)
        if path.is_file():
            return str(path)
    return None


def become_worker(program: List[str], arguments: List[str]) -> NoReturn:
    """Becomes `ktrdr-worker`, which runs the program once per slot."""
    try:
        worker = find_program("ktrdr-worker")
    except FileNotFoundError as error:
        sys.exit(str(error))
    try:
        os.execv(worker, ["ktrdr-worker", "--exec", shlex.join(program), *arguments])
    except OSError as error:
        sys.exit(f"{worker} cannot be started: {error.strerror or error}")


def this_program() -> List[str]:
    """The command that runs this program again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:  # python -m module
        name = spec.name[: -len(".__main__")] if spec.name.endswith(".__main__") else spec.name
        return [sys.executable, "-m", name]
    return [sys.executable, os.path.abspath(sys.argv[0])]
