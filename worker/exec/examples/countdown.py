"""A worker for docs/exec.md, with nothing but the standard library: counts down, and can be cancelled."""

import json
import os
import queue
import threading
import time

up = os.fdopen(int(os.environ["KTRDR_EXEC_OUT"]), "w")
messages = queue.Queue()


def listen():
    with os.fdopen(int(os.environ["KTRDR_EXEC_IN"])) as down:
        for line in down:
            messages.put(json.loads(line))
    messages.put(None)


def say(kind, **members):
    up.write(json.dumps({"type": kind, **members}) + "\n")
    up.flush()


def countdown(start):
    run, steps = start["run"], start["parameters"]["steps"]
    first = (start["checkpoint"] or {"done": 0})["done"]
    say("log", run=run, text=f"counting from {first} to {steps}")
    for done in range(first, steps):
        if not messages.empty():  # what comes during a run is its cancel
            return say("cancelled", run=run)
        say("progress", run=run, percentage=100 * done / steps, step=f"{steps - done} to go")
        say("metrics", run=run, points=[{"name": "left", "value": steps - done, "step": done}])
        say("checkpoint", run=run, state={"done": done})
        time.sleep(0.1)
    say("completed", run=run, result={"steps": steps, "began_at": first})


say(
    "describe",
    protocol=1,
    worker_type="countdown_py",
    description="Counts down.",
    version="1.0",
    request_schema={
        "type": "object",
        "properties": {"steps": {"type": "integer", "minimum": 1, "maximum": 1000}},
        "required": ["steps"],
        "additionalProperties": False,
    },
    result_schema={"type": "object", "properties": {"steps": {"type": "integer"}, "began_at": {"type": "integer"}}},
)
threading.Thread(target=listen, daemon=True).start()
while (message := messages.get()) is not None:
    if message["type"] == "start":
        countdown(message)
