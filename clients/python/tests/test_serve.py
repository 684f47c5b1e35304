"""A worker's program at the other end of its pipes: this test writes and reads the messages of docs/exec.md, as `ktrdr-worker` does."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

SOURCES = pathlib.Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SOURCES))

from ktrdr import _link
from ktrdr._link import Pipes, WorkerLink

#: For what must come; a test that waits so long has failed.
LIMIT = 60

JOB = """
import logging, logging.config, os, subprocess, sys
import ktrdr

class Speechless(Exception):
    def __str__(self):
        raise ValueError("no text")

class Odd(ktrdr.OperationError):
    def __init__(self):
        super().__init__("odd")
        self.code, self.permanent = 7, "maybe"

def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value

def fork(then):
    if os.fork() == 0:
        then()
        return "from the child"
    return os.WEXITSTATUS(os.wait()[1])

def fails():
    raise ValueError("no such column")

def reports(ctx):
    for report in (lambda: ctx.metric("a", 1), lambda: ctx.progress(1), ctx.alive):
        try:
            for _ in range(3):
                report()
        except RuntimeError:
            continue
        os._exit(8)

@ktrdr.worker("job")
def job(ctx: ktrdr.Context, request: dict):
    do = request["do"]
    if do == "configure":
        logging.config.dictConfig({
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "INFO", "handlers": ["console"]},
        })
        logging.warning("after dictConfig")
        logging.basicConfig(force=True, level=logging.DEBUG)
    if do == "log":
        logging.error("as before")
    if do == "variables":
        code = "import os; print([name for name in os.environ if name.startswith('KTRDR_EXEC')])"
        return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    if do == "fork":
        return {"fails": fork(fails), "leaves": fork(lambda: sys.exit(7)), "returns": fork(lambda: None)}
    if do == "report":
        # Whoever flushes holds the lock at the time of a fork.
        with ctx._link._lock:
            return fork(lambda: reports(ctx))
    if do == "speechless":
        raise Speechless
    if do == "odd":
        raise Odd
    if do == "deep":
        ctx.progress(50, "half", deep=nested(request["levels"]), allowed=nested(98))
        ctx.log("warn", "kept", deep=nested(request["levels"]), allowed=nested(98))
        return nested(request["levels"])
    return None

if __name__ == "__main__":
    ktrdr.main(job)
"""


class Program:
    """The job, started as a worker starts it."""

    def __init__(self, folder, **variables):
        file = pathlib.Path(folder, "job.py")
        file.write_text(JOB)
        (down, self._down), (self._up, up) = os.pipe(), os.pipe()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
        pipes = {"KTRDR_EXEC": "1", "KTRDR_EXEC_IN": str(down), "KTRDR_EXEC_OUT": str(up)}
        environment.update({"PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": "1", **pipes, **variables})
        self._errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([sys.executable, str(file)], env=environment, pass_fds=(down, up), stderr=self._errors)
        os.close(down)
        os.close(up)
        self._lines = os.fdopen(self._up, encoding="utf-8")
        self._end = threading.Timer(LIMIT, self.process.kill)
        self._end.start()
        self._runs = 0

    def __enter__(self):
        self.description = json.loads(self._lines.readline())
        return self

    def __exit__(self, *_):
        os.close(self._down)
        self._lines.close()
        self.process.wait()
        self._end.cancel()
        self._errors.close()

    def run(self, **parameters):
        """The messages of a run."""
        self._runs += 1
        start = {"type": "start", "run": self._runs, "operation_id": "a", "attempt": 1, "data_dir": ".", "parameters": parameters}
        os.write(self._down, json.dumps(start).encode() + b"\n")
        messages = []
        while not messages or messages[-1]["type"] not in ("completed", "failed", "cancelled"):
            line = self._lines.readline()
            if not line:
                raise AssertionError(f"the program has ended: {self.errors()}")
            messages.append(json.loads(line))
        return messages

    def errors(self):
        self._errors.seek(0)
        return self._errors.read().decode()


def of(kind, messages):
    return [message for message in messages if message["type"] == kind]


def depth(value):
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0) if isinstance(value, (dict, list)) else 0


class Programs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_logging_that_the_job_configures_keeps_its_levels(self):
        with Program(self.folder) as program:
            first, second = program.run(do="configure"), program.run(do="log")
            printed = program.errors()

        said = [(line["level"], line["text"]) for line in of("log", first + second)]
        self.assertEqual(said, [("warn", "after dictConfig"), ("error", "as before")])
        self.assertEqual(printed, "")

    def test_a_program_that_the_job_starts_is_none_of_the_worker(self):
        with Program(self.folder) as program:
            end = program.run(do="variables")[-1]

        self.assertEqual(end["result"], "[]")

    def test_a_forked_child_leaves_with_its_code_and_says_why(self):
        with Program(self.folder) as program:
            end = program.run(do="fork")[-1]
            printed = program.errors()

        self.assertEqual(end["result"], {"fails": 1, "leaves": 7, "returns": 0})
        # Newer Pythons warn of the fork first.
        self.assertIn("ValueError: no such column\n", printed)

    def test_a_forked_child_cannot_report(self):
        with Program(self.folder) as program:
            messages = program.run(do="report")

        self.assertEqual([(message["type"], message.get("result")) for message in messages], [("completed", 0)])

    def test_an_error_that_cannot_be_told_fails_only_its_operation(self):
        with Program(self.folder) as program:
            speechless, odd = program.run(do="speechless")[-1], program.run(do="odd")[-1]
            following = program.run(do="nothing")[-1]

        self.assertTrue(speechless["message"].startswith("Speechless: (its text cannot be made: ValueError)\n"), speechless)
        self.assertEqual((odd["message"], odd["code"], odd["permanent"]), ("odd", "7", False))
        self.assertEqual(following["type"], "completed")

    def test_no_message_has_more_than_100_levels(self):
        with Program(self.folder) as program:
            allowed, refused = program.run(do="deep", levels=99), program.run(do="deep", levels=100)

        self.assertEqual({message["type"]: depth(message) for message in allowed}, {"progress": 100, "log": 100, "completed": 100})
        self.assertEqual([message["type"] for message in refused], ["progress", "log", "failed"])
        self.assertIn("99 levels", refused[-1]["message"])
        self.assertEqual([list(message["fields"]) for message in refused[:2]], [["allowed"]] * 2)

    def test_a_program_without_pipes_says_so(self):
        file = pathlib.Path(self.folder, "job.py")
        file.write_text(JOB)
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "KTRDR_EXEC": "1"}
        environment.pop("KTRDR_EXEC_IN", None)

        ended = subprocess.run([sys.executable, str(file)], env=environment, stderr=subprocess.PIPE, check=False)

        self.assertEqual(ended.returncode, 1)
        self.assertIn(b"use --exec, not --exec-simple", ended.stderr)

    def test_a_worker_that_cannot_be_started_is_told_in_a_sentence(self):
        file = pathlib.Path(self.folder, "job.py")
        file.write_text(JOB)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
        environment.update(PYTHONPATH=str(SOURCES), KTRDR_WORKER_BIN="/no/such/program")

        ended = subprocess.run([sys.executable, str(file)], env=environment, stderr=subprocess.PIPE, check=False)

        self.assertEqual((ended.returncode, ended.stderr), (1, b"/no/such/program cannot be started: No such file or directory\n"))


class Ends:
    """Pipes in this process, and their other ends."""

    def __init__(self, case):
        down, self.down = os.pipe()
        self.up, up = os.pipe()
        self.pipes = Pipes(down, up)
        self._closed = False
        case.addCleanup(os.close, up)
        case.addCleanup(os.close, self.up)
        case.addCleanup(self.close)

    def close(self):
        if not self._closed:
            self._closed = True
            os.close(self.down)

    def messages(self):
        """What has been written until now."""
        os.set_blocking(self.up, False)
        text = b""
        try:
            while True:
                text += os.read(self.up, 65536)
        except BlockingIOError:
            return [json.loads(line) for line in text.splitlines()]


def within_limit(case, call):
    """Calls in another thread, because a fault would wait for ever."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(LIMIT)
    case.assertFalse(thread.is_alive(), "it hangs")


class Links(unittest.TestCase):
    def test_a_finalizer_may_report_in_the_middle_of_every_report(self):
        """Python runs finalizers anywhere. Here they run where messages are made and where they are written."""
        ends = Ends(self)
        link = WorkerLink(1, ends.pipes)
        reported = []

        def finalizer():
            if len(reported) < 20:
                reported.append(len(reported))
                link.log("info", f"line {reported[-1]}", {})
                link.metric("finalized", 1, None)
                link.progress({"percentage": 1.0})
                link.checkpoint("7")

        to_json, write = _link.to_json, os.write

        def making(value):
            finalizer()
            return to_json(value)

        def writing(file, data):
            finalizer()
            return write(file, data[: max(1, len(data) // 2)])

        def report():
            with mock.patch.object(_link, "to_json", making), mock.patch.object(os, "write", writing):
                for step in range(3):
                    link.metric("own", step, step)
                    link.flush()
                link.end()
                ends.pipes.write(to_json({"type": "completed", "run": 1, "result": None}))

        within_limit(self, report)
        messages = ends.messages()

        points = [point for message in of("metrics", messages) for point in message["points"]]
        self.assertEqual(sorted(line["text"] for line in of("log", messages)), sorted(f"line {number}" for number in reported))
        self.assertEqual([point["value"] for point in points if point["name"] == "own"], [0, 1, 2])
        self.assertEqual(len(of("checkpoint", messages)), 20)
        self.assertEqual(messages[-1]["type"], "completed")

    def test_lines_of_many_threads_stay_whole_and_in_order(self):
        ends = Ends(self)
        link = WorkerLink(1, ends.pipes)
        received = []

        def read():
            with os.fdopen(os.dup(ends.up), encoding="utf-8") as lines:
                for line in lines:
                    received.append(json.loads(line))
                    if received[-1]["type"] == "completed":
                        return

        def say(thread):
            for number in range(500):
                link.log("info", "x" * 300, {"thread": thread, "number": number})
                link.metric(str(thread), number, None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        speakers = [threading.Thread(target=say, args=(thread,)) for thread in range(4)]
        for speaker in speakers:
            speaker.start()
        for speaker in speakers:
            speaker.join()
        link.end()
        ends.pipes.write('{"type":"completed"}')
        reader.join(LIMIT)

        self.assertEqual(received[-1]["type"], "completed")
        points = [point for message in of("metrics", received) for point in message["points"]]
        for thread in range(4):
            lines = [line["fields"]["number"] for line in of("log", received) if line["fields"]["thread"] == thread]
            self.assertEqual(lines, list(range(500)))
            self.assertEqual([point["value"] for point in points if point["name"] == str(thread)], list(range(500)))

    def test_a_thread_of_a_run_that_has_ended_owns_nothing(self):
        ends = Ends(self)
        link = WorkerLink(1, ends.pipes)
        answers = []
        asker = threading.Thread(target=lambda: answers.append(link.ask_owner()), daemon=True)
        asker.start()
        # Its question has been asked.
        question = json.loads(os.read(ends.up, 65536))

        link.end()
        asker.join(LIMIT)
        within_limit(self, lambda: answers.append(link.ask_owner()))

        self.assertEqual(question["type"], "ensure_owner")
        self.assertEqual(answers, [False, False])


if __name__ == "__main__":
    unittest.main()
