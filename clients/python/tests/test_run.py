"""`python -m ktrdr run`, with a stand-in for `ktrdr-worker` that writes down how it was started."""

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCES = pathlib.Path(__file__).parents[1] / "src"

JOBS = """
import ktrdr
from json import dumps

print("imported")
__import__("os").system("echo by a program")

@ktrdr.worker("first")
def one(ctx: ktrdr.Context, request: dict) -> None: ...

@ktrdr.worker("second")
def two(ctx: ktrdr.Context, request: dict) -> None: ...
"""

#: Says that it runs, and waits for a signal, which it writes down. With EXIT, the second one ends once the first one is ready.
STAND_IN = """#!{python}
import json, os, signal, sys, time
line = json.dumps({{"arguments": sys.argv[1:]}}) + "\\n"
def stop(number, frame):
    sys.stdout.write(json.dumps({{"signal": number}}) + "\\n")
    sys.stdout.flush()
    os._exit(int(os.environ.get("EXIT", "0")))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
sys.stdout.write(line)
sys.stdout.flush()
ready = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "ready")
if os.environ.get("EXIT") and "jobs.py:two" in line:
    while not os.path.exists(ready):
        time.sleep(0.01)
    os._exit(int(os.environ["EXIT"]))
open(ready, "w").close()
while True:
    signal.pause()
"""


class Runs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()
        self.jobs = self.folder / "jobs.py"
        self.jobs.write_text(JOBS)
        self.worker = self.folder / "ktrdr-worker"
        self.worker.write_text(STAND_IN.format(python=sys.executable))
        self.worker.chmod(0o755)

    def start(self, *words, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KTRDR_", "WORKER_"))}
        environment.update(PYTHONPATH=str(SOURCES), KTRDR_WORKER_BIN=str(self.worker), **variables)
        command = [sys.executable, "-m", "ktrdr", *map(str, words)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_every_worker_of_a_file_is_started_and_told_to_stop(self):
        process = self.start("run", self.jobs, "--data-dir", "x")
        started = sorted(json.loads(process.stdout.readline())["arguments"] for _ in range(2))
        for (option, program, *settings), name in zip(started, ("one", "two")):
            self.assertEqual((option, settings), ("--exec", ["--data-dir", "x"]))
            self.assertTrue(program.endswith(f"-m ktrdr run {self.jobs}:{name}"), program)
        # As Ctrl-C does: to the whole process group. Each worker gets it once.
        os.killpg(process.pid, signal.SIGINT)
        told = process.stdout.read().splitlines()
        self.assertEqual([json.loads(line) for line in told], [{"signal": signal.SIGINT}] * 2)
        self.assertEqual(process.wait(), 0)

    def test_when_one_ends_the_others_do(self):
        process = self.start("run", self.jobs, EXIT="3")
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
        self.assertIn({"signal": signal.SIGTERM}, lines)
        self.assertEqual(process.wait(), 3)

    @unittest.skipUnless(sys.platform.startswith("linux"), "the system does not tell")
    def test_when_it_is_killed_the_workers_are_told_to_stop(self):
        process = self.start("run", self.jobs)
        for _ in range(2):
            process.stdout.readline()

        process.kill()
        told = process.stdout.read().splitlines()

        self.assertEqual([json.loads(line) for line in told], [{"signal": signal.SIGTERM}] * 2)

    def test_when_one_cannot_be_started_the_others_are_told_to_stop(self):
        code = "import sys; from ktrdr._run import _all; sys.exit(_all([[sys.argv[1]], [sys.argv[2]]]))"
        command = [sys.executable, "-c", code, str(self.worker), str(self.folder / "none")]
        environment = {**os.environ, "PYTHONPATH": str(SOURCES)}

        # Also until the first one has ended: it holds the pipe.
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

        self.assertEqual(ended.returncode, 1)
        self.assertIn("none cannot be started: [Errno 2]", ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)

    def test_one_function_becomes_the_worker(self):
        process = self.start("run", f"{self.jobs}:two", "--worker-id", "w")
        _, program, *settings = json.loads(process.stdout.readline())["arguments"]
        self.assertTrue(program.endswith("jobs.py:two"), program)
        self.assertEqual(settings, ["--worker-id", "w"])
        process.terminate()
        self.assertEqual(json.loads(process.stdout.readline()), {"signal": signal.SIGTERM})

    def test_mistakes_are_told(self):
        (self.folder / "empty.py").write_text("x = 1")
        for words, said in [
            (["run", self.jobs, "--worker-id", "w"], "a worker id or a port belongs to one"),
            (["run", self.folder / "none.py"], "there is no file"),
            (["run", self.folder / "empty.py"], "there is no @ktrdr.worker function"),
            ([], "usage:"),
        ]:
            process = self.start(*words)
            self.assertIn(said, process.communicate()[1])
            self.assertEqual(process.returncode, 2, words)


class Page(unittest.TestCase):
    def test_its_example_is_typed(self):
        if importlib.util.find_spec("mypy") is None or importlib.util.find_spec("pydantic") is None:
            self.skipTest("there is no mypy or no pydantic")
        page = SOURCES.parent / "README.md"
        example = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "word_count.py").write_text(example, encoding="utf-8")
            command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "word_count.py"]
            environment = {**os.environ, "MYPYPATH": str(SOURCES)}
            ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(ended.returncode, 0, ended.stdout)


class Plugin(unittest.TestCase):
    def test_pytest_has_the_fixture(self):
        try:
            import pytest
        except ImportError:
            self.skipTest("there is no pytest")
        del pytest
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "test_it.py").write_text(
                "import ktrdr\n"
                "@ktrdr.worker('reads')\n"
                "def reads(ctx: ktrdr.Context, request: dict) -> str:\n"
                "    return ctx.data_dir.resolve('a').read_text()\n"
                "def test_it(ktrdr_run):\n"
                "    (ktrdr_run.data_dir / 'a').write_text('text')\n"
                "    assert ktrdr_run.run(reads, {}) == 'text'\n"
            )
            # As its entry point does once the package is installed.
            command = [sys.executable, "-m", "pytest", "-q", "-p", "ktrdr._pytest", "-p", "no:cacheprovider", folder]
            ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, check=False)
            self.assertEqual(ended.returncode, 0, ended.stdout)


if __name__ == "__main__":
    unittest.main()
