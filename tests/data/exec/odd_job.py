"""A program for the tests of `--exec`: does what the parameter `do` says, however badly that behaves."""

import ctypes
import json
import os
import sys
import threading
import time

down = os.fdopen(int(os.environ["KTRDR_EXEC_IN"]))
up_lock = threading.Lock()
answers = {}
answered = threading.Condition()
starts = []
cancelled = threading.Event()
is_over = threading.Event()


def write(text):
    data = text.encode() + b"\n"
    with up_lock:
        while data:
            data = data[os.write(int(os.environ["KTRDR_EXEC_OUT"]), data):]


def say(kind, **members):
    write(json.dumps({"type": kind, **members}))


def listen():
    # A slow reader: what is larger than the pipe waits in the worker meanwhile.
    time.sleep(float(os.environ.get("ODD_DEAF_SECONDS", 0)))
    for line in down:
        message = json.loads(line)
        with answered:
            if message["type"] == "start":
                cancelled.clear()
                starts.append(message)
            elif message["type"] == "cancel":
                cancelled.set()
            elif message["type"] == "owner":
                answers[message["request"]] = message["is_owner"]
            answered.notify_all()
    is_over.set()
    with answered:
        answered.notify_all()


def ensure_owner(run):
    say("ensure_owner", run=run, request=1)
    with answered:
        answered.wait_for(lambda: 1 in answers)
        return answers.pop(1)


def innermost():
    ctypes.string_at(0)


def deep(calls):
    innermost() if calls == 0 else deep(calls - 1)


class Stopped(Exception):
    pass


def work(start):
    run, wanted = start["run"], start["parameters"]
    do = wanted["do"]
    if do == "pid":
        return os.getpid()
    if do == "environment":
        return {name: os.environ.get(name) for name in wanted["names"]}
    if do == "fail":
        return say("failed", run=run, **wanted["failure"])
    if do == "segfault":
        print("about to crash", flush=True)
        ctypes.string_at(0)
    if do == "deep_segfault":
        deep(60)
    if do == "say_part":
        print(wanted["text"], end="", flush=True)
        return "said"
    if do == "ask":
        # Says nothing, and asks for longer than its stall timeout.
        for _ in range(12):
            ensure_owner(run)
            time.sleep(0.1)
        return "asked"
    if do == "exit":
        os._exit(3)
    if do == "hang":
        say("progress", run=run, percentage=1)
        while True:
            time.sleep(3600)
    if do == "wait":
        say("progress", run=run, percentage=1, step="waiting", fields={"waited": 0})
        cancelled.wait()
        raise Stopped
    if do == "steps":
        first = (start["checkpoint"] or {"step": 0})["step"]
        for step in range(first, wanted["steps"]):
            if cancelled.is_set():
                raise Stopped
            say("progress", run=run, percentage=100 * step / wanted["steps"])
            say("checkpoint", run=run, state={"step": step})
            say("metrics", run=run, points=[{"name": "step", "value": step, "step": step}])
            time.sleep(wanted["step_ms"] / 1000)
        return {"first": first}
    if do == "owner":
        return {"is_owner": ensure_owner(run)}
    if do == "garbage":
        write(wanted["text"])
        time.sleep(3600)
    if do == "say":
        write(json.dumps({"run": run, **wanted["message"]}))
        time.sleep(3600)
    if do == "save":
        say("checkpoint", run=run, state="x" * wanted["bytes"])
        return "went on"
    if do == "overlap":
        return [others, os.getpid()]
    if do == "big":
        return "x" * wanted["bytes"]
    if do == "memory":
        return len(bytearray(wanted["bytes"]))
    if do == "print":
        for number in range(wanted["lines"]):
            print("line", number)
        os.system("echo and a child of it")
        return "printed"
    if do == "fork":
        if os.fork() == 0:
            # Two mistakes at once: it outlives the run, and it speaks of it.
            time.sleep(wanted["seconds"])
            say("completed", run=run, result="from the fork")
            os._exit(0)
        return "from the parent"
    if do == "hold":
        # Like PyDLL functions do, this one keeps the interpreter's lock while it works.
        ctypes.PyDLL(None).usleep(int(wanted["seconds"] * 1_000_000))
        return start["attempt"]
    if do == "leave":
        # Something that would outlive the program.
        os.system(f"exec sleep {wanted['seconds']} & echo $! > {wanted['file']}")
        say("progress", run=run, percentage=1)
        time.sleep(3600)
    raise ValueError(do)


def running():
    """Processes with the command line of this one, that are not this one."""
    own = open("/proc/self/cmdline", "rb").read()
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and int(name) != os.getpid() and own == open(f"/proc/{name}/cmdline", "rb").read():
                found.append(int(name))
        except OSError:
            pass
    return found


# Before anything else is done: whether another process of this worker still runs.
others = running() if "alone" in sys.argv else []


def main():
    say(
        "describe",
        protocol=1,
        worker_type="odd_job",
        description="Does what it is told.",
        version=os.environ.get("ODD_VERSION", "1.2.3"),
        request_schema={"type": "object", "properties": {"do": {"type": "string"}}, "required": ["do"]},
    )
    threading.Thread(target=listen, daemon=True).start()
    while True:
        with answered:
            answered.wait_for(lambda: starts or is_over.is_set())
            if not starts:
                # One that takes its time to end.
                time.sleep(0.5 if "alone" in sys.argv else 0)
                return
            start = starts.pop(0)
        try:
            result = work(start)
            if start["parameters"]["do"] != "fail":
                say("completed", run=start["run"], result=result)
        except Stopped:
            say("cancelled", run=start["run"])
        except (Exception, MemoryError) as error:
            say("failed", run=start["run"], message=f"{type(error).__name__}: {error}")


if len(sys.argv) > 1 and sys.argv[1] == "silent":
    sys.exit("no licence for this machine")
main()
