"""A compose project of its own for scripts/lib/compose_check.py: its containers, its REST interface, its operations."""

import json
import os
import pathlib
import random
import re
import shlex
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker-compose"))
# The projects of this run, so that several runs do not meet.
RUN = f"ktrdrcheck{os.getpid()}"
# The first one is made from that of the workers.
IMAGES = {
    "EXEC_WORKER_IMAGE": "ktrdr-exec-worker:compose-check",
    "BACKEND_IMAGE": "ktrdr-backend:compose-check",
    "WORKER_IMAGE": "ktrdr-worker:compose-check",
}
WORKERS = {
    "dummy-worker": ("dummy", 5006),
    "data-processing-worker": ("data_processing", 5005),
    "backtesting-worker": ("backtesting", 5003),
    "training-worker": ("training", 5004),
}
# Short times: a lost worker is replaced within seconds.
FAST = {"KTRDR_LEASE": "5s", "KTRDR_HEARTBEAT_INTERVAL": "1s"}


class Failed(Exception):
    """What was expected and did not happen."""


def say(text):
    print(text, flush=True)


def run(*command, quiet=False, check=True, **options):
    """Runs a command and returns what it prints on standard output."""
    errors = subprocess.PIPE if quiet or check else None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise Failed(f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-3000:]}{(done.stderr or '')[-3000:]}")
    return done.stdout.strip()


def until(what, condition, seconds=90):
    """Waits until the condition returns something true, and returns it. A request that fails is not an answer yet."""
    end = time.monotonic() + seconds
    seen = None
    while time.monotonic() < end:
        try:
            seen = condition()
            if seen:
                return seen
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            seen = error
        time.sleep(0.2)
    raise Failed(f"{what}: not within {seconds} s; last seen: {seen}")


def expect(condition, what):
    if not condition:
        raise Failed(what)


def inspect(container):
    return json.loads(run("docker", "inspect", container))[0]


class Api:
    """The REST interface of the backend."""

    def __init__(self, base, authority=None, token=None):
        handlers = [urllib.request.ProxyHandler({})]
        if authority:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)))
        self.http = urllib.request.build_opener(*handlers)
        self.base, self.token = base, token

    def request(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with self.http.open(request, timeout=40) as answer:
            return json.load(answer)

    def get(self, path):
        return self.request("GET", path)

    def status(self, path):
        try:
            with self.http.open(urllib.request.Request(self.base + path), timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def operation(self, identity, wait=0):
        return self.get(f"/api/v1/operations/{identity}?wait={wait}")["data"]


class Project:
    """A compose project in a directory of its own, with ports of its own."""

    def __init__(self, name, files=(), profiles=(), **settings):
        self.name = f"{RUN}{name}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        for path in [*ROOT.glob("docker-compose*.yml"), ROOT / "nats.conf"]:
            shutil.copy(path, self.directory)
        shutil.copytree(ROOT / "deploy", self.directory / "deploy")
        (self.directory / ".env").touch()

        self.profiles = list(profiles)
        self.files = ["docker-compose.yml", *files]
        self.environment = {**os.environ, **IMAGES, **ports(), **settings}
        self.api = Api("http://" + self.environment["KTRDR_API_BIND"])
        PROJECTS.append(self)

    def compose(self, *arguments, **options):
        files = [part for name in self.files for part in ("-f", name)]
        profiles = [part for name in self.profiles for part in ("--profile", name)]
        command = [*COMPOSE, "-p", self.name, *files, *profiles, *arguments]
        return run(*command, cwd=self.directory, env=self.environment, **options)

    def up(self, *arguments):
        """Starts what is missing or has changed, and waits until all containers are healthy."""
        self.compose("up", "-d", *arguments)
        self.wait_until_healthy()

    def wait_until_healthy(self):
        def healthy():
            states = [inspect(container)["State"] for container in self.containers()]
            return states and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

        try:
            until("all containers healthy", healthy, 120)
        except Failed as error:
            say(run("docker", "ps", "-a", "--filter", f"label=com.docker.compose.project={self.name}"))
            say(self.compose("logs", "--tail", "15", check=False))
            raise error

    def shell(self, commands):
        """Runs commands of the docs, with this project, its images and its port instead of the usual ones."""
        compose = shlex.join([*COMPOSE, "-p", self.name])
        # The images are built already, and docker-compose 1.29 has no --wait.
        script = re.sub(r"(?m)^docker compose build .*$", "", commands).replace("up -d --wait", "up -d")
        for text, replacement in [
            ("docker compose", compose),
            ("ktrdr-backend:latest", IMAGES["BACKEND_IMAGE"]),
            ("-t ktrdr-exec-worker ", f"-t {IMAGES['EXEC_WORKER_IMAGE']} "),
            ("FROM ktrdr-worker\n", f"FROM {IMAGES['WORKER_IMAGE']}\n"),
            ("localhost:8000", "localhost:" + self.environment["KTRDR_API_BIND"].split(":")[1]),
        ]:
            script = script.replace(text, replacement)
        return run("bash", "-c", f"set -euo pipefail\n{script}", cwd=self.directory, env=self.environment)

    def containers(self, service=None):
        filters = ["--filter", f"label=com.docker.compose.project={self.name}"]
        if service:
            filters += ["--filter", f"label=com.docker.compose.service={service}"]
        return run("docker", "ps", "-aq", "--no-trunc", *filters).split()

    def container(self, service):
        return self.containers(service)[0]

    def running_on(self, identity):
        """The container whose worker runs the operation."""
        operation = self.api.operation(identity)
        if operation["status"] != "running":
            return None
        # A worker's id has the host name of its container.
        found = [c for c in self.containers("dummy-worker") if c[:12] in operation["worker_id"]]
        return found[0] if found else None

    def workers(self, worker_type, status="AVAILABLE"):
        workers = self.api.get("/api/v1/workers")
        return [each for each in workers if each["worker_type"] == worker_type and each["status"] == status]

    def address(self, service, port):
        """Where a port of a service is on this machine."""
        return self.compose("port", service, str(port)).splitlines()[0]

    def remove(self):
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", quiet=True, check=False)
        label = f"label=com.docker.compose.project={self.name}"
        # What "down" leaves behind when it is interrupted, or when a file is broken.
        for container in self.containers():
            run("docker", "rm", "--force", "--volumes", container, quiet=True, check=False)
        for kind in ("volume", "network"):
            for name in run("docker", kind, "ls", "-q", "--filter", label).split():
                run("docker", kind, "rm", name, quiet=True, check=False)
        if (self.directory / "secure").exists():
            # Its files belong to the users of the containers.
            mount = f"{self.directory}:/project"
            run("docker", "run", "--rm", "-u", "0", "-v", mount, "--entrypoint", "rm", IMAGES["BACKEND_IMAGE"], "-rf", "/project/secure", quiet=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


PROJECTS = []


def ports():
    """Ports for all that a project publishes: ranges of 20, in another part for each project of each run."""
    base = random.randrange(10000, 31000, 120)
    return {
        "KTRDR_API_BIND": f"127.0.0.1:{base}",
        "NATS_BIND": f"127.0.0.1:{base + 1}",
        "DUMMY_WORKER_BIND": f"127.0.0.1:{base + 20}-{base + 39}",
        "DATA_PROCESSING_WORKER_BIND": f"127.0.0.1:{base + 40}-{base + 59}",
        "BACKTESTING_WORKER_BIND": f"127.0.0.1:{base + 60}-{base + 79}",
        "TRAINING_WORKER_BIND": f"127.0.0.1:{base + 80}-{base + 99}",
        "EXEC_WORKER_BIND": f"127.0.0.1:{base + 100}-{base + 119}",
    }


class Operations:
    """Operations that were accepted, and must all complete."""

    def __init__(self, api):
        self.api, self.accepted, self.number = api, [], 0

    def start(self, domain, body):
        """Starts an operation. Repeats the request, with the same id, while NATS or the backend is away."""
        self.number += 1
        identity = f"check-{RUN}-{self.number}-{random.randrange(1 << 32):x}"

        def accepted():
            try:
                return self.api.request("POST", f"/api/v1/{domain}/start", {"task_id": identity, **body})
            except urllib.error.HTTPError as error:
                expect(error.code in (502, 503, 504), f"start of {domain}: {error.code} {error.read().decode()[:500]}")
                return None

        until(f"a start of {domain} is accepted", accepted, 120)
        self.accepted.append(identity)
        return identity

    def dummy(self, seconds):
        return self.start("dummy", {"steps": max(1, int(seconds * 10)), "step_ms": 100})

    def each_type(self):
        self.start("dummy", {"steps": 3, "step_ms": 20})
        self.start("data-processing", {
            "source_file": "messy/titanic.csv", "output_file": f"check-{self.number}.csv",
            "operations": [{"op": "clean", "null_values": ["", "*"], "missing": {"age": "median"}}],
        })
        self.start("training", {
            "symbol": "GOOG", "timeframe": "1d", "label": "next_up", "epochs": 3, "model_file": f"models/check-{self.number}.json",
        })
        self.start("backtests", {
            "symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 10, "slow": 20},
        })

    def all_complete(self, seconds=180):
        """Waits until all have completed. Each has exactly one end in its history."""
        end = time.monotonic() + seconds
        for identity in self.accepted:
            operation = until(f"{identity} ends", lambda identity=identity: self.ended(identity), max(5, end - time.monotonic()))
            expect(operation["status"] == "completed", f"{identity} is {operation['status']}: {operation.get('error_message')}")
            # A server of the cluster that has just come back may answer without the newest events.
            ends = until(f"the history of {identity} has an end", lambda identity=identity: self.ends(identity))
            expect(len(ends) == 1, f"{identity} has {len(ends)} ends: {ends}")
        say(f"  {len(self.accepted)} operations, all completed, one end each")

    def ends(self, identity):
        history = self.api.get(f"/api/v1/operations/{identity}/history")["data"]["history"]
        return [event for event in history if event["event"] in ("completed", "failed", "cancelled")]

    def ended(self, identity):
        operation = self.api.operation(identity, wait=20)
        return operation if operation["status"] in ("completed", "failed", "cancelled") else None


def crash(container):
    """Kills the first process of a container from outside, as a crash does. Docker starts the container again; after
    `docker kill` it would not."""
    process = inspect(container)["State"]["Pid"]
    run("docker", "run", "--rm", "-u", "0", "--pid", "host", "--entrypoint", "sh", IMAGES["BACKEND_IMAGE"], "-c", f"kill -9 {process}")


def clean_up():
    while PROJECTS:
        PROJECTS.pop().remove()
