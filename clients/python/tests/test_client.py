"""The clients with httpx, at an address where something answers that is no backend, or no longer one."""

import asyncio
import contextlib
import http.server
import json
import pathlib
import sys
import threading
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "src"))

import ktrdr

try:
    import httpx
except ImportError:
    raise unittest.SkipTest("there is no httpx") from None
del httpx

from ktrdr._client import sync

RUNNING = {"operation_id": "a", "operation_type": "dummy", "status": "running"}
FAILED = {**RUNNING, "status": "failed", "error": {"code": "no_file", "message": "there is no file"}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers, body = self.server.answer(self.path)
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def answering(answer):
    """A server, whose answers are those of the function: a path makes status, headers and body."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer = answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def document(**members):
    return 200, {}, json.dumps(members).encode()


class Clients(unittest.TestCase):
    def test_a_map_ends_when_the_backend_is_gone(self):
        def answer(path):
            return document(operation_id="a") if path.endswith("/start") else (503, {}, b'{"code":"not_ready"}')

        with mock.patch.object(sync, "STAY", 0.05), answering(answer) as url, ktrdr.Client(url, patience=0.3) as client:
            with self.assertRaises(ktrdr.ApiError) as caught:
                list(client.map("dummy", [{}]))
            outcomes = list(client.map("dummy", [{}], return_errors=True))

        self.assertEqual(caught.exception.code, "not_ready")
        self.assertIsInstance(outcomes[0], ktrdr.ApiError)

    def test_a_map_waits_while_the_backend_says_that_the_operation_goes_on(self):
        def answer(path):
            if path.endswith("/start"):
                return document(operation_id="a")
            looks.append(path)
            return document(data=RUNNING if len(looks) < 20 else {**RUNNING, "status": "completed", "result": 7})

        looks = []
        with mock.patch.object(sync, "STAY", 0.02), answering(answer) as url, ktrdr.Client(url, patience=0.1) as client:
            self.assertEqual(list(client.map("dummy", [{}])), [7])

    def test_an_operation_knows_how_it_ended_after_an_error_and_after_its_events(self):
        def answer(path):
            if path.endswith("/start"):
                return document(operation_id="a", status="pending")
            if path.endswith("/events"):
                end = {**FAILED, "result": None, "truncated": ["result"]}
                return 200, {"content-type": "text/event-stream"}, f"id: 7\nevent: operation\ndata: {json.dumps(end)}\n\n".encode()
            return document(data=FAILED)

        async def asynchronous():
            async with ktrdr.AsyncClient(url) as client:
                waited, followed = await client.start("dummy"), await client.start("dummy")
                with self.assertRaises(ktrdr.OperationFailed):
                    await waited.result()
                self.assertEqual([event.is_end async for event in followed.events()], [True])
                self.assertEqual((waited.status, followed.status), ("failed", "failed"))

        with answering(answer) as url, ktrdr.Client(url) as client:
            waited, followed = client.start("dummy"), client.start("dummy")
            with self.assertRaises(ktrdr.OperationFailed):
                waited.result()
            self.assertEqual([event.is_end for event in followed.events()], [True])
            asyncio.run(asynchronous())

        self.assertEqual((waited.status, followed.status), ("failed", "failed"))
        self.assertNotIn("truncated", followed.document)
        self.assertNotIn("result", followed.document)

    def test_whatever_answers_the_error_is_one_of_a_client(self):
        for said, answer in [
            ("cannot be read", (200, {"content-encoding": "gzip"}, b"no gzip")),
            ("https://other/", (302, {"location": "https://other/"}, b"")),
            ("is there a KTRDR backend", (200, {}, b"[]")),
        ]:
            async def asynchronous():
                async with ktrdr.AsyncClient(url) as client:
                    await client.stats()

            with answering(lambda _, answer=answer: answer) as url, ktrdr.Client(url) as client:
                with self.assertRaisesRegex(ktrdr.ClientError, said):
                    client.stats()
                with self.assertRaisesRegex(ktrdr.ClientError, said):
                    asyncio.run(asynchronous())
        with ktrdr.Client("http://127.0.0.1:9", patience=0) as client:
            with self.assertRaises(ktrdr.ClientError):
                list(client.list(search="x" * 100_000))

    def test_a_token_and_an_address_that_cannot_be_used_are_refused_at_once(self):
        for client in (ktrdr.Client, ktrdr.AsyncClient):
            for token in ("secret\nb", "secret\u00fc"):
                with self.assertRaisesRegex(ValueError, "the token cannot be sent") as caught:
                    client("http://localhost", token=token)
                self.assertNotIn("secret", str(caught.exception))
            for url in ("localhost:8000", "http://", "https:///x", "http://a:b:c"):
                with self.assertRaisesRegex(ValueError, "no address of a backend"):
                    client(url)


if __name__ == "__main__":
    unittest.main()
