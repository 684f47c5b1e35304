"""No-op tasks of Celery: bench_celery.py COUNT

Prints one JSON object: {"package": "Celery 5.7.0, Redis 7.0.15", "rate": 1200.0}, or nothing when Celery or redis-server is missing. The
rate is tasks a second of one worker with eight prefork processes, whose results are kept. What can be chosen favours Celery: all tasks wait
in the queue before the worker starts, Redis writes nothing to the disk, a task is acknowledged before it runs, and each process may
fetch many. The first tenth is not counted, because the worker starts meanwhile.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

try:
    import celery
    import redis
except ImportError as error:
    sys.exit(print(f"  Celery: left out, because {error.name} is not installed", file=sys.stderr))

PROCESSES = 8
PATIENCE = 120  # seconds without another result


def application(socket, keeps_results):
    at = f"redis+socket://{socket}?virtual_host="
    app = celery.Celery("bench", broker=f"{at}0", backend=f"{at}1" if keeps_results else None)
    # The default of 4 is for tasks that take long.
    app.conf.worker_prefetch_multiplier = 64
    app.conf.broker_connection_retry_on_startup = True
    return app


def work(socket):
    app = application(socket, keeps_results=True)

    @app.task(name="no_op")
    def no_op():
        pass

    # That it runs as root, perhaps.
    warnings.simplefilter("ignore")
    app.worker_main(["worker", "--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "ERROR"])


def wait_for(results, count):
    seen, since = 0, time.monotonic()
    while seen < count:
        time.sleep(0.005)
        before, seen = seen, results.dbsize()
        if seen > before:
            since = time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise TimeoutError(f"{seen} of {count} results, and no other for {PATIENCE} s")
    return seen, time.perf_counter()


def rate_with(socket, count):
    # Without results of its own: the sender would listen for each of them.
    sender = application(socket, keeps_results=False)
    for _ in range(count):
        sender.send_task("no_op")

    worker = subprocess.Popen([sys.executable, __file__, "worker", socket], stdout=subprocess.DEVNULL)
    try:
        results = redis.Redis(unix_socket_path=socket, db=1)
        first, begun = wait_for(results, count // 10)
        last, ended = wait_for(results, count)
    finally:
        worker.terminate()
        worker.wait()
    return (last - first) / (ended - begun)


def connect(socket):
    server = redis.Redis(unix_socket_path=socket)
    ends = time.monotonic() + 10
    while True:
        try:
            return server.info()["redis_version"]
        except redis.exceptions.ConnectionError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.01)


def measure(count):
    program = shutil.which("redis-server")
    if program is None:
        print("  Celery: left out, because redis-server is not in PATH (Debian: apt-get install redis-server)", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch:
        socket = f"{scratch}/socket"
        options = ["--port", "0", "--unixsocket", socket, "--dir", scratch, "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            version = connect(socket)
            rate = rate_with(socket, count)
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"package": f"Celery {celery.__version__}, Redis {version}", "rate": rate}))


if sys.argv[1] == "worker":
    work(sys.argv[2])
else:
    measure(int(sys.argv[1]))
