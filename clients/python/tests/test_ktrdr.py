"""The package without a worker: `python3 -m unittest discover -s clients/python/tests`. Needs no other package."""

import asyncio
import contextlib
import dataclasses
import datetime
import decimal
import io
import logging
import math
import os
import pathlib
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "src"))

import ktrdr
from ktrdr._link import Link
from ktrdr._logging import Handler
from ktrdr._schema import schema_of
from ktrdr._told import told
from ktrdr._values import plain, to_json
from ktrdr.testing import TestRun
from test_schema import Mode, Part


class Logs(unittest.TestCase):
    def test_the_context_says_lines_and_logging_is_attached_once(self):
        @ktrdr.worker("talker")
        def talk(ctx, request: dict):
            ctx.log("warn", "no price", row=7)
            with self.assertRaises(ValueError):
                ctx.log("loud", "no level")

        run = TestRun()
        run.run(talk, {})

        self.assertEqual(run.log_lines, [{"level": "warn", "text": "no price", "fields": {"row": 7}}])

    def test_records_become_lines_of_the_run_or_are_printed(self):
        class Run(Link):
            def __init__(self):
                super().__init__(1)
                self.sent = []

            def send(self, kind, **members):
                self.sent.append(members)

        run, logger = Run(), logging.Logger("job")
        handler = Handler(lambda: run)
        logger.addHandler(handler)
        logger.error("failed: %s", "x" * 20_000)
        logger.log(5, "a step")
        run.end()
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            logger.warning("after the run")

        self.assertEqual([line["level"] for line in run.sent], ["error", "trace"])
        self.assertEqual(len(run.sent[0]["text"]), 8 * 1024)
        self.assertEqual(run.sent[0]["fields"], {"logger": "job"})
        self.assertEqual(printed.getvalue(), "after the run\n")


class Values(unittest.TestCase):
    def test_what_json_has_no_word_for(self):
        value = {
            "nan": [math.nan, -math.inf, 1.5],
            "part": Part("x", math.nan),
            Mode.FAST: {3},
            7: pathlib.PurePosixPath("a/b"),
            "at": datetime.datetime(2026, 1, 2, 3),
            "sum": decimal.Decimal("1.5"),
        }

        self.assertEqual(
            plain(value),
            {
                "nan": [None, None, 1.5],
                "part": {"name": "x", "weight": None},
                "fast": [3],
                "7": "a/b",
                "at": "2026-01-02T03:00:00",
                "sum": 1.5,
            },
        )
        self.assertEqual(to_json({"a": math.nan, "ü": 1}), '{"a":null,"ü":1}')
        with self.assertRaisesRegex(TypeError, "Thread"):
            plain(threading.Thread())

    def test_numpy(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("there is no numpy")
        self.assertEqual(plain({"a": numpy.array([[1.0, numpy.nan]]), "b": numpy.int64(7)}), {"a": [[1.0, None]], "b": 7})
        noon = "2026-01-02T12:00:00"
        for unit, expected in [("ns", noon), ("us", noon), ("s", noon), ("D", "2026-01-02")]:
            times = numpy.array([noon, "NaT"], f"datetime64[{unit}]")
            self.assertEqual(plain([times[0], times, times.reshape(1, 2)]), [expected, [expected, None], [[expected, None]]])
        self.assertEqual(plain(numpy.datetime64("2026-01-02T12:00:00.120000001")), "2026-01-02T12:00:00.120000001")
        for unit in ("ns", "s"):
            durations = numpy.array([90, "NaT"], "timedelta64[s]").astype(f"timedelta64[{unit}]")
            self.assertEqual(plain([durations[0], durations]), [90.0, [90.0, None]])

    def test_pandas(self):
        try:
            import pandas
        except ImportError:
            self.skipTest("there is no pandas")
        noon = pandas.Timestamp("2026-01-02T12:00:00")
        for zone, expected in [(None, "2026-01-02T12:00:00"), ("UTC", "2026-01-02T12:00:00+00:00")]:
            index = pandas.DatetimeIndex([noon, pandas.NaT]).tz_localize(zone)
            for value in (index, pandas.Series(index), list(index)):
                self.assertEqual(plain(value), [expected, None])
        self.assertEqual(plain([pandas.NaT, pandas.NA, pandas.Timedelta(90, "s")]), [None, None, 90.0])
        self.assertEqual(plain(pandas.Series([1, None], dtype="Int64")), [1, None])

    def test_a_value_has_99_levels_at_most(self):
        def nested(levels):
            return [nested(levels - 1)] if levels else 0

        @made
        def reports(ctx, request):
            for levels in (100, 500):
                with self.assertRaisesRegex(ValueError, "99 levels"):
                    ctx.checkpoint(nested(levels))
            ctx.progress(50, deep=nested(99), other=nested(98))
            ctx.log("info", "text", deep=nested(99), other=1)
            return nested(request["levels"])

        circular = []
        circular.append(circular)
        run = TestRun()

        self.assertEqual(run.run(reports, {"levels": 99}), nested(99))
        self.assertEqual((list(run.progress["fields"]), run.log_lines[0]["fields"]), (["other"], {"other": 1}))
        with self.assertRaisesRegex(ktrdr.OperationError, "99 levels"):
            run.run(reports, {"levels": 100})
        with self.assertRaisesRegex(ValueError, "99 levels"):
            plain(circular)

    def test_fields_that_no_request_sets_are_not_written(self):
        @dataclasses.dataclass
        class Counted:
            words: int
            half: float = dataclasses.field(init=False)

            def __post_init__(self):
                self.half = self.words / 2

        self.assertEqual(plain(Counted(3)), {"words": 3})
        self.assertEqual(list(schema_of(Counted)["properties"]), ["words"])


def made(function):
    return ktrdr.worker("made", request=dict)(function)


class Runs(unittest.TestCase):
    def test_reports_are_kept(self):
        @made
        def work(ctx, request):
            for number in ctx.track([1, 2, 3], step="{done} of {total}"):
                ctx.metric("number", number, step=number)
            return {"operation": ctx.operation_id, "attempt": ctx.attempt}

        run = TestRun()
        self.assertEqual(run.run(work, {}), {"operation": "test", "attempt": 1})
        self.assertEqual(run.progress["step"], "3 of 3")
        self.assertEqual(run.progress["percentage"], 100)
        self.assertEqual([point["value"] for point in run.metrics("number")], [1, 2, 3])

    def test_a_cancel_passes_through_except_exception(self):
        @made
        def stubborn(ctx, request):
            for _ in range(3):
                try:
                    ctx.check_cancelled()
                except Exception:
                    pass

        run = TestRun()
        run.cancel()
        with self.assertRaises(ktrdr.Cancelled):
            run.run(stubborn, {})

    def test_an_async_function_is_cancelled_at_its_next_await(self):
        @made
        async def waits(ctx, request):
            threading.Timer(0.05, run.cancel).start()
            await asyncio.sleep(60)

        run = TestRun()
        with self.assertRaises(ktrdr.Cancelled):
            run.run(waits, {})

    def test_a_function_that_cancels_tasks_of_its_own_has_failed(self):
        @made
        async def gives_up(ctx, request):
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

        @made
        def is_interrupted(ctx, request):
            raise KeyboardInterrupt

        for function, name in [(gives_up, "CancelledError"), (is_interrupted, "KeyboardInterrupt")]:
            with self.assertRaisesRegex(ktrdr.OperationError, name):
                TestRun().run(function, {})

    def test_a_cancel_that_comes_at_the_end_of_an_async_function_harms_nobody(self):
        @made
        async def returns(ctx, request):
            thread = threading.Thread(target=run.cancel)
            thread.start()
            threads.append(thread)

        threads, faults = [], []
        before, threading.excepthook = threading.excepthook, faults.append
        try:
            for _ in range(50):
                run = TestRun()
                try:
                    run.run(returns, {})
                except ktrdr.Cancelled:
                    pass
            for thread in threads:
                thread.join()
        finally:
            threading.excepthook = before
        self.assertEqual(faults, [])

    def test_a_function_that_never_looks_is_interrupted(self):
        @ktrdr.worker("made", request=dict, interrupt=True)
        def never_looks(ctx, request):
            try:
                threading.Timer(0.05, run.cancel).start()
                while True:
                    try:
                        if request["sleeps"]:
                            time.sleep(60)
                        else:
                            ctx.metric("turn", 1)
                    except Exception:
                        pass
            finally:
                cleaned_up.append(True)

        cleaned_up = []
        for sleeps in (True, False):
            run = TestRun()
            with self.assertRaises(ktrdr.Cancelled):
                run.run(never_looks, {"sleeps": sleeps})
        self.assertEqual(cleaned_up, [True, True])
        # The next run is not interrupted.
        self.assertEqual(TestRun().run(made(lambda ctx, request: 7), {}), 7)
        with self.assertRaisesRegex(ktrdr.DeclarationError, "await"):

            @ktrdr.worker("made", interrupt=True)
            async def waits(ctx: ktrdr.Context, request: dict) -> None:
                pass

    def test_reports_stay_within_the_bounds_of_the_protocol(self):
        @made
        def reports(ctx, request):
            ctx.progress(math.inf, "x" * 5000)
            ctx.metric("n" * 500, math.nan)
            with self.assertRaises(ValueError):
                ctx.metric("", 1)
            with self.assertLogs("ktrdr", "WARNING"):
                self.assertFalse(ctx.checkpoint("x" * (600 * 1024)))
            self.assertTrue(ctx.checkpoint("x"))
            raise ktrdr.PermanentError("m" * 100_000, code="no such code! " * 10)

        run = TestRun()
        with self.assertRaises(ktrdr.PermanentError) as caught:
            run.run(reports, {})
        self.assertEqual((run.progress["percentage"], len(run.progress["step"])), (100, 1000))
        self.assertEqual([(len(point["name"]), point["value"]) for point in run.metrics()], [(200, None)])
        self.assertEqual(run.saved, "x")
        self.assertLess(len(str(caught.exception)), 20_000)
        self.assertRegex(caught.exception.code, "^[A-Za-z0-9_-]{1,64}$")

    def test_errors_say_what_happens_next(self):
        def raising(error):
            @made
            def fails(ctx, request):
                raise error

            with self.assertRaises(ktrdr.OperationError) as caught:
                TestRun().run(fails, {})
            return caught.exception

        permanent = raising(ktrdr.PermanentError("no file", code="no_file"))
        self.assertTrue(permanent.permanent)
        self.assertEqual(permanent.code, "no_file")
        self.assertEqual(raising(ktrdr.RetryAfter(30, "busy")).seconds, 30)
        other = raising(KeyError("x"))
        self.assertEqual(other.code, "exception")
        self.assertTrue(str(other).startswith("KeyError: 'x'\n"), other)
        self.assertIn("in fails", str(other))
        self.assertNotIn("_main.py", str(other))
        self.assertIn("sys.exit", str(raising(SystemExit(3))))

    def test_an_error_names_its_causes_and_the_members_of_a_group(self):
        class Group(Exception):
            """As ExceptionGroup, which Python has from 3.11."""

            def __init__(self, text, exceptions):
                super().__init__(text)
                self.exceptions = exceptions

        def told_of(fails):
            with self.assertRaises(ktrdr.OperationError) as caught:
                TestRun().run(made(lambda ctx, request: fails()), {})
            return str(caught.exception)

        def chained():
            try:
                raise KeyError("age")
            except KeyError as error:
                raise ValueError("no such column") from error

        def handled():
            try:
                chained()
            except ValueError:
                raise OSError("no log") from None

        def grouped():
            raise Group("2 tasks failed", [ValueError("one"), Group("inner", [TypeError("two")])])

        def endless():
            error = ValueError("0")
            for number in range(1, 50):
                outer = ValueError(str(number))
                outer.__cause__, error = error, outer
            raise error

        def circular():
            first, second = ValueError("first"), ValueError("second")
            first.__cause__, second.__cause__ = second, first
            raise first

        text = told_of(chained)
        self.assertTrue(text.startswith("ValueError: no such column\n"), text)
        self.assertIn("\ncaused by KeyError: 'age'\n", text)
        self.assertEqual(text.count("in chained"), 2)
        self.assertNotIn("_main.py", text)
        self.assertNotIn("ValueError", told_of(handled))
        text = told_of(grouped)
        for part in ("\n1 of 2: ValueError: one", "\n2 of 2: Group: inner", "\n1 of 1: TypeError: two"):
            self.assertIn(part, text)
        text = told_of(endless)
        self.assertEqual((text.count("caused by"), text.splitlines()[-1]), (9, "further errors are left out"))
        self.assertEqual(told_of(circular).count("caused by"), 1)

    def test_frames_of_a_folder_that_begins_as_that_of_the_package_are_kept(self):
        folder = os.path.dirname(ktrdr.__file__)
        code = compile("def fails():\n    raise ValueError('x')", folder + "_jobs/job.py", "exec")
        names = {}
        exec(code, names)

        try:
            names["fails"]()
        except ValueError as error:
            self.assertIn("in fails", told(error, folder))

    def test_a_result_that_is_no_json_fails(self):
        with self.assertRaisesRegex(ktrdr.OperationError, "Thread"):
            TestRun().run(made(lambda ctx, request: threading.Thread()), {})

    def test_the_next_attempt_finds_the_checkpoint(self):
        @made
        def counts(ctx, request):
            first = ctx.last_checkpoint({"done": 0})["done"]
            ctx.checkpoint(lambda: {"done": first + 1})
            return first

        run = TestRun()
        self.assertEqual(run.run(counts, {}), 0)
        self.assertEqual(run.next_attempt().run(counts, {}), 1)

    def test_the_owner_and_the_data_directory(self):
        @made
        def reads(ctx, request):
            ctx.ensure_owner()
            return ctx.data_dir.resolve(request["file"]).read_text()

        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "a.txt").write_text("hello")
            self.assertEqual(TestRun(folder).run(reads, {"file": "a.txt"}), "hello")
            with self.assertRaisesRegex(ktrdr.PermanentError, "leaves the data directory"):
                TestRun(folder).run(reads, {"file": "../../etc/passwd"})
            with self.assertRaises(ktrdr.Cancelled):
                TestRun(folder, is_owner=False).run(reads, {"file": "a.txt"})


if __name__ == "__main__":
    unittest.main()
