"""Follows an operation while the test kills the backend and starts it again."""

import pathlib
import sys
import threading

import ktrdr

client = ktrdr.Client()
operation = client.start("dummy", {"steps": 100_000, "step_ms": 10})
seen: "list[ktrdr.Event]" = []


def follow() -> None:
    for event in operation.events():
        seen.append(event)
        print(f"event {event.type}", flush=True)


threads = [threading.Thread(target=follow), threading.Thread(target=operation.wait)]
for thread in threads:
    thread.start()
pathlib.Path(sys.argv[1]).write_text(operation.id)
for thread in threads:
    thread.join()
assert seen[-1].is_end, seen[-1]
assert operation.status == "cancelled", operation
print("all of it works")
