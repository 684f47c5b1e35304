"""The rules of the client, driven by hand: nothing is sent, and httpx is not needed."""

import datetime
import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "src"))

import ktrdr
from ktrdr._client.calls import Answer, Calls, Close, Item, Next, Open, Pause, Request, filter_members, filter_pairs, refused_among, start_body
from ktrdr._client.errors import ApiError
from ktrdr._client.sse import Parser


def ok(**members):
    return Answer(200, {}, json.dumps(members).encode())


def ignore(document):
    pass


def refused(status, code=None, retry_after=None, **members):
    document = {"success": False, "error": "no", "status_code": status, **members}
    if code is not None:
        document["code"] = code
    headers = {"x-request-id": "r-1"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return Answer(status, headers, json.dumps(document).encode())


def drive(call, *outcomes):
    """Answers requests with the outcomes in turn. Returns what was sent, the pauses, the items, and what the call returned."""
    outcomes, sent, pauses, items = list(outcomes), [], [], []
    outcome = None
    try:
        effect = next(call)
        while True:
            if isinstance(effect, (Request, Open)):
                sent.append(effect if isinstance(effect, Request) else effect.request)
                outcome = outcomes.pop(0)
            elif isinstance(effect, Next):
                outcome = outcomes.pop(0)
            elif isinstance(effect, Pause):
                pauses.append(effect.seconds)
                outcome = None
            elif isinstance(effect, Item):
                items.append(effect.value)
                outcome = None
            else:
                assert isinstance(effect, Close), effect
                outcome = None
            effect = call.throw(outcome) if isinstance(outcome, Exception) else call.send(outcome)
    except StopIteration as end:
        assert not outcomes, f"not asked for: {outcomes}"
        return sent, pauses, items, end.value


class Repeats(unittest.TestCase):
    def test_a_start_is_repeated_with_the_same_id(self):
        call = Calls(30).start("dummy", {"steps": 3}, None, None, {"priority": 1})
        lost = ktrdr.Unreachable("no route")
        sent, pauses, _, answer = drive(call, lost, refused(503, "outcome_unknown", 2), ok(operation_id="a"))

        self.assertEqual(len(sent), 3)
        self.assertEqual(len({request.body for request in sent}), 1)
        body = json.loads(sent[0].body)
        self.assertRegex(body.pop("task_id"), "^[0-9a-f-]{36}$")
        self.assertEqual(body, {"steps": 3, "execution": {"priority": 1}})
        self.assertLess(pauses[0], 0.2)
        self.assertGreaterEqual(pauses[1], 2)  # Retry-After
        self.assertEqual(answer, {"operation_id": "a"})

    def test_an_idempotency_key_takes_the_place_of_the_id(self):
        sent, _, _, _ = drive(Calls(30).start("dummy", None, None, "key", {}), ok(operation_id="a"))
        self.assertEqual(sent[0].headers["idempotency-key"], "key")
        self.assertNotIn("task_id", json.loads(sent[0].body))

    def test_a_request_keeps_its_own_id_and_execution_options(self):
        request = {"steps": 3, "task_id": "own", "execution": {"priority": 2, "labels": {"a": "b"}}}
        sent, _, _, _ = drive(Calls(30).start("dummy", request, None, None, {"priority": 1}), ok(operation_id="own"))
        expected = {"steps": 3, "task_id": "own", "execution": {"priority": 1, "labels": {"a": "b"}}}
        self.assertEqual(json.loads(sent[0].body), expected)
        sent, _, _, _ = drive(Calls(30).start("dummy", request, "other", None, {}), ok(operation_id="other"))
        self.assertEqual(json.loads(sent[0].body), {**request, "task_id": "other"})

        answer = ok(data={"results": [{"status_code": 202, "operation_id": "own"}]})
        sent, _, _, _ = drive(Calls(30).start_many("dummy", [request], None, {}), answer)
        self.assertEqual(json.loads(sent[0].body), {"operations": [request]})

    def test_a_schedule_that_a_lost_request_deleted_is_deleted(self):
        gone = refused(404, "schedule_not_found")
        sent, _, _, _ = drive(Calls(30).delete_schedule("nightly"), ktrdr.Unreachable("lost"), gone)
        self.assertEqual([request.method for request in sent], ["DELETE", "DELETE"])
        with self.assertRaises(ApiError):
            drive(Calls(30).delete_schedule("nightly"), gone)

    def test_what_does_not_pass_is_not_repeated(self):
        for answer in [
            refused(422, "invalid_request", violations=[{"path": "/steps", "message": "is no number"}]),
            refused(503, "schema_unusable", 1),
            refused(503, "nats_unavailable", 1, missing_permissions=["x"]),
            refused(503, "overloaded", 60),  # longer than the patience
            refused(502, "invalid_result"),
            refused(507, "storage_full"),
        ]:
            with self.assertRaises(ktrdr.ApiError) as caught:
                drive(Calls(5).document("GET", "stats"), answer)
            self.assertEqual(caught.exception.request_id, "r-1")
        with self.assertRaises(ktrdr.Unreachable):
            drive(Calls(5).document("GET", "stats"), ktrdr.Unreachable("untrusted", is_lasting=True))
        with self.assertRaises(ktrdr.Unreachable):
            drive(Calls(0).document("GET", "stats"), ktrdr.Unreachable("no route"))
        with self.assertRaisesRegex(ktrdr.ClientError, "no JSON"):
            drive(Calls(5).document("GET", "stats"), Answer(200, {}, b"<html>"))

    def test_what_passes_is_repeated_also_when_something_between_answers(self):
        for answer in [
            refused(503, "not_ready"),
            refused(503, "nats_unavailable"),
            refused(503, "overloaded", 0.01),
            refused(503, "archive_unavailable"),
            refused(502),
            refused(503),
            refused(504),
        ]:
            sent, _, _, _ = drive(Calls(5).document("GET", "stats"), answer, ok(data={}))
            self.assertEqual(len(sent), 2)

    def test_every_code_of_the_docs_passes_or_lasts_as_they_say(self):
        page = pathlib.Path(__file__).parents[3] / "docs" / "errors.md"
        rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page.read_text(), re.MULTILINE)
        passing = {code for code, status in rows if ApiError(int(status), {"code": code}).is_passing}

        self.assertEqual(
            passing,
            {"not_ready", "nats_unavailable", "outcome_unknown", "check_timeout", "overloaded", "archive_unavailable"}
            | {"too_many_queues", "worker_busy"},
        )

    def test_an_answer_that_sends_elsewhere_is_no_success(self):
        moved = Answer(301, {"location": "https://other/"}, b"<html>")
        calls = Calls(5)
        for call in [calls.document("GET", "stats"), calls.events("events"), calls.delete_schedule("nightly")]:
            with self.assertRaisesRegex(ApiError, "https://other/") as caught:
                drive(call, moved)
            self.assertEqual(caught.exception.status, 301)

    def test_what_is_no_answer_of_a_backend_is_told(self):
        calls = Calls(5)
        for call, body in [
            (calls.document("GET", "stats"), b"[]"),
            (calls.data("GET", "stats"), b"{}"),
            (calls.data("GET", "stats"), b'{"data": []}'),
            (calls.workers(None, None), b"{}"),
            (calls.logs("a", None), b'{"data": {}}'),
            (calls.wait("a", None, None, ignore), b"[]"),
            (calls.result("a", None, None, ignore), b'{"data": {}}'),
        ]:
            with self.assertRaisesRegex(ktrdr.ClientError, "is there a KTRDR backend"):
                drive(call, Answer(200, {}, body))
        for data in ("{", "[]"):
            with self.assertRaisesRegex(ktrdr.ClientError, "is there a KTRDR backend"):
                drive(calls.events("events"), Answer(200, {}), f"data: {data}\n\n")

    def test_what_no_header_can_hold_is_refused_before_it_is_sent(self):
        for wrong in ("", "a\nb", "\u00fc", " a"):
            for call in [Calls(5).start("dummy", None, None, wrong, {}), Calls(5).events("events", last_event_id=wrong)]:
                with self.assertRaisesRegex(ValueError, "cannot be sent"):
                    next(call)

    def test_an_error_says_everything(self):
        violations = [{"path": "/steps", "message": "is no number"}]
        with self.assertRaises(ktrdr.ApiError) as caught:
            drive(Calls(5).document("GET", "stats"), refused(422, "invalid_request", violations=violations))
        error = caught.exception
        self.assertEqual((error.status, error.code, error.message), (422, "invalid_request", "no"))
        self.assertEqual(error.violations, violations)
        self.assertIn("/steps: is no number", str(error))
        # A proxy's page.
        self.assertTrue(ApiError.read(502, b"<html>", {}).is_passing)
        self.assertIsNone(ApiError.read(404, b"<html>", {}).code)

    def test_refused_starts_of_many_are_repeated_alone(self):
        def results(*codes):
            return ok(data={"results": [{"operation_id": "x", "status": None, "status_code": code, "code": word} for code, word in codes]})

        call = Calls(30).start_many("dummy", [{"n": 0}, {"n": 1}, {"n": 2}], ["a", "b", "c"], {})
        first = results((202, None), (503, "overloaded"), (422, "invalid_request"))
        sent, pauses, _, outcomes = drive(call, first, results((200, None)))

        self.assertEqual(json.loads(sent[1].body), {"operations": [{"n": 1, "task_id": "b"}]})
        self.assertEqual(len(pauses), 1)
        self.assertEqual([isinstance(outcome, ApiError) for outcome in outcomes], [False, False, True])
        with self.assertRaisesRegex(ktrdr.StartsRefused, "the request at index 2: invalid_request"):
            refused_among(outcomes, [1, 2, None])
        with self.assertRaises(ValueError):
            drive(Calls(30).start_many("dummy", [{}], ["a", "b"], {}))


    def test_large_starts_are_sent_in_parts_and_a_lost_part_tells_what_has_started(self):
        large = [{"text": "x" * 3_000_000} for _ in range(5)]

        def started(*names):
            return ok(data={"results": [{"status_code": 202, "operation_id": name} for name in names]})

        sent, _, _, outcomes = drive(Calls(30).start_many("dummy", large, None, {}), started("a", "b"), started("c", "d"), started("e"))
        self.assertEqual([len(json.loads(request.body)["operations"]) for request in sent], [2, 2, 1])
        self.assertEqual([outcome["operation_id"] for outcome in outcomes], ["a", "b", "c", "d", "e"])

        with self.assertRaises(ApiError) as caught:
            drive(Calls(30).start_many("dummy", large, list("abcde"), {}), started("a", "b"), refused(403, "forbidden"))
        self.assertEqual([outcome["operation_id"] for outcome in caught.exception.outcomes], ["a", "b"])
        self.assertEqual(caught.exception.task_ids, list("abcde"))


class Waits(unittest.TestCase):
    def test_a_wait_ends_at_its_time_also_while_nobody_answers(self):
        for begin in (Calls(30).wait, Calls(30).result):
            call = begin("a", 0.0, None, ignore)
            request = next(call)
            self.assertLess(request.timeout, 2)
            with self.assertRaisesRegex(TimeoutError, "a has not ended after 0.0 s"):
                call.throw(ktrdr.Unreachable("no route"))

        # Without a time, or with a long one, it is the patience that ends.
        for timeout in (None, 60.0):
            call = Calls(0).wait("a", timeout, None, ignore)
            next(call)
            with self.assertRaises(ktrdr.Unreachable):
                call.throw(ktrdr.Unreachable("no route"))

    def test_a_wait_asks_until_the_end(self):
        sent, _, _, result = drive(
            Calls(30).result("a/b", None, None, ignore),
            ok(data={"operation_id": "a", "status": "running"}),
            ok(data={"operation_id": "a", "status": "completed", "result": None}),
            ok(data=[1, 2]),
        )
        self.assertEqual(sent[0].path, "/api/v1/operations/a%2Fb")
        self.assertEqual(sent[0].query, [("wait", "30.000")])
        self.assertTrue(sent[2].path.endswith("/results"))
        self.assertEqual(result, [1, 2])

    def test_every_document_is_handed_on_also_when_the_wait_fails(self):
        taken = []
        failed = ok(data={"operation_id": "a", "status": "failed"})
        with self.assertRaises(ktrdr.OperationFailed):
            drive(Calls(30).result("a", None, None, taken.append), ok(data={"operation_id": "a", "status": "running"}), failed)
        with self.assertRaises(TimeoutError):
            drive(Calls(30).wait("a", 0.0, None, taken.append), ok(data={"operation_id": "a", "status": "running"}))
        self.assertEqual([document["status"] for document in taken], ["running", "failed", "running"])

    def test_it_gives_up_and_says_how_an_operation_ended(self):
        running = ok(data={"operation_id": "a", "status": "running"})
        with self.assertRaisesRegex(TimeoutError, "a is running"):
            drive(Calls(30).wait("a", 0.0, None, ignore), running)
        error = {"code": "timeout", "message": "too slow"}
        with self.assertRaises(ktrdr.OperationFailed) as caught:
            drive(Calls(30).result("a", None, None, ignore), ok(data={"operation_id": "a", "status": "failed", "error": error}))
        self.assertEqual((caught.exception.code, caught.exception.message), ("timeout", "too slow"))
        with self.assertRaises(ktrdr.OperationCancelled):
            drive(Calls(30).result("a", None, None, ignore), ok(data={"operation_id": "a", "status": "cancelled"}))


class Streams(unittest.TestCase):
    def test_events_go_on_after_a_lost_connection(self):
        opened = Answer(200, {})
        running = 'id: 7\nevent: operation\ndata: {"status": "running"}\n\n'
        ended = 'id: 9\nevent: operation\ndata: {"status":\ndata: "failed"}\r\n\r\n'
        sent, pauses, items, _ = drive(
            Calls(30).events("operations", "a", "events"),
            *(opened, ": hello\n\n" + running[:20], running[20:], ktrdr.Unreachable("reset")),
            *(refused(503, "not_ready", 0), opened, running, 'event: progress\ndata: {"n": 1}\n\n', None),
            *(opened, ended),
        )

        self.assertEqual([request.headers.get("last-event-id") for request in sent], [None, "7", "7", "7"])
        self.assertEqual([(event.type, event.id) for event in items], [("operation", "7"), ("progress", None), ("operation", "9")])
        self.assertTrue(items[-1].is_end)
        self.assertEqual(len(pauses), 3)
        # Nothing follows an end that was seen.
        self.assertEqual(drive(Calls(30).events("operations", "a", "events", last_event_id="9"), Answer(204, {}))[2], [])

    def test_lines_may_be_cut_anywhere(self):
        text = 'retry: 5\nevent: metrics\ndata: {"a": "ü\u2028"}\n\n'
        for cut in range(len(text)):
            parser = Parser()
            events = [*parser.feed(text[:cut]), *parser.feed(text[cut:])]
            self.assertEqual([(event.type, event.data) for event in events], [("metrics", {"a": "ü\u2028"})])


class Lists(unittest.TestCase):
    def test_pages_follow_each_other(self):
        def page(ids, cursor):
            return ok(data={"operations": [{"operation_id": name} for name in ids], "next_cursor": cursor})

        call = Calls(30).list({"status": "failed", "labels": {"a": "b"}}, 3, True, False)
        sent, _, items, _ = drive(call, page("ab", "7-1"), page("c", "8-1"))
        self.assertEqual([item["operation_id"] for item in items], ["a", "b", "c"])
        self.assertEqual(
            sent[1].query,
            [("status", "failed"), ("label", "a:b"), ("order", "oldest"), ("limit", "1"), ("cursor", "7-1")],
        )
        self.assertEqual(len(drive(Calls(30).list({}, None, False, False), page("ab", None))[2]), 2)

    def test_filters_and_options_are_written_as_backends_read_them(self):
        noon = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
        filters = {"status": ["failed", "cancelled"], "labels": {"a": "b:c"}, "created_after": noon, "search": None}
        members = {"status": ["failed", "cancelled"], "label": ["a:b:c"], "created_after": "2026-01-02T11:00:00Z"}
        self.assertEqual(filter_members(filters), members)
        self.assertEqual(filter_pairs({"status": ["failed", "pending"]}), [("status", "failed"), ("status", "pending")])
        self.assertEqual(start_body({"a": 1}, {"start_at": noon})["execution"], {"start_at": "2026-01-02T11:00:00Z"})
        with self.assertRaises(TypeError):
            start_body([1], {})

    def test_metric_points_are_read_to_their_end(self):
        def page(names, cursor, has_more):
            points = [{"name": name, "value": 1.0, "attempt": 1, "timestamp": "2026-01-02T11:00:00.000Z"} for name in names]
            return ok(data={"metrics": points, "cursor": cursor, "has_more": has_more})

        sent, _, _, points = drive(Calls(30).metrics("a", ["x", "y"]), page("xy", "1-0", True), page("x", "2-0", False))
        self.assertEqual(sent[1].query, [("limit", "10000"), ("name", "x"), ("name", "y"), ("cursor", "1-0")])
        self.assertEqual(points.values("x"), [1.0, 1.0])
        try:
            import pandas
        except ImportError:
            self.skipTest("there is no pandas")
        table = points.to_pandas()
        self.assertEqual(list(table.columns), ["name", "step", "value", "attempt", "timestamp"])
        self.assertEqual(str(table["timestamp"].dtype.tz), "UTC")
        wide = points.to_pandas(wide=True)
        self.assertEqual(list(wide.columns), ["x", "y"])
        self.assertEqual(len(wide), 2)
        self.assertTrue(pandas.isna(wide["y"].iloc[1]))
        self.assertEqual(len(type(points)().to_pandas(wide=True)), 0)


if __name__ == "__main__":
    unittest.main()
