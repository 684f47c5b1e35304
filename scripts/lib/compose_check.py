"""Runs docker-compose.yml, breaks it, and checks that nothing is lost. scripts/compose-check calls it and says more.

Needs only the standard library. $COMPOSE is the command: "docker compose" or "docker-compose".
"""

import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker-compose"))
# The projects of this run, so that several runs do not meet.
RUN = f"ktrdrcheck{os.getpid()}"
IMAGES = {"BACKEND_IMAGE": "ktrdr-backend:compose-check", "WORKER_IMAGE": "ktrdr-worker:compose-check"}
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
            ("ktrdr_jetstream", f"{self.name}_jetstream"),
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
    base = random.randrange(10000, 31000, 100)
    return {
        "KTRDR_API_BIND": f"127.0.0.1:{base}",
        "NATS_BIND": f"127.0.0.1:{base + 1}",
        "DUMMY_WORKER_BIND": f"127.0.0.1:{base + 20}-{base + 39}",
        "DATA_PROCESSING_WORKER_BIND": f"127.0.0.1:{base + 40}-{base + 59}",
        "BACKTESTING_WORKER_BIND": f"127.0.0.1:{base + 60}-{base + 79}",
        "TRAINING_WORKER_BIND": f"127.0.0.1:{base + 80}-{base + 99}",
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


# --- the checks


def check_settings():
    """Every setting of .env.example reaches the containers; limits and rights are set."""
    project = Project("settings")
    names = re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    expect(len(names) > 30, f".env.example lists only {names}")

    # What a container decides, or what is for one worker alone.
    fixed = {"KTRDR_API_ADDR", "WORKER_TYPE", "WORKER_HOST", "WORKER_PORT", "KTRDR_DATA_DIR"}
    alone = {"WORKER_ID", "WORKER_ENDPOINT_URL"}
    project.environment.update({name: f"marker-{name}" for name in names})
    project.compose("up", "--no-start")
    for service, entry in [("backend", "ktrdr-backend"), *((service, "ktrdr-worker") for service in WORKERS)]:
        container = inspect(project.container(service))
        environment = dict(part.split("=", 1) for part in container["Config"]["Env"])
        help_text = run("docker", "run", "--rm", "-e", "WORKER_TYPE=dummy", container["Config"]["Image"], "--help")
        reads = set(re.findall(r"\[env: ([A-Z_]+)", help_text)) | ({"WORKER_TYPE"} if entry == "ktrdr-worker" else set())
        expect(len(reads) > 20, f"{entry} --help names only {sorted(reads)}")
        expect(reads <= set(names), f".env.example does not list {sorted(reads - set(names))}")
        for name in sorted(reads - alone):
            value = environment.get(name, "")
            expect(value if name in fixed else f"marker-{name}" in value, f"{name} does not reach {service}: {value!r}")
    say(f"  {len(names)} settings reach the containers")

    for name in project.containers():
        container = inspect(name)
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        host = container["HostConfig"]
        expect(host["Memory"] > 0, f"{service} has no memory limit")
        expect(host["PidsLimit"], f"{service} has no limit of processes")
        expect(host["LogConfig"]["Config"].get("max-size"), f"the log of {service} is not rotated")
        expect(host["LogConfig"]["Config"].get("max-file"), f"the log of {service} is not rotated")
        expect(host["ReadonlyRootfs"], f"{service} can write to its root file system")
        expect(host["CapDrop"] == ["ALL"], f"{service} has capabilities")
        expect("no-new-privileges:true" in host["SecurityOpt"], f"{service} can gain privileges")
        expect(host["RestartPolicy"]["Name"] == "unless-stopped", f"{service} is not restarted")
        if service in WORKERS:
            expect(container["Config"]["StopTimeout"] == 30, f"{service} is killed after {container['Config'].get('StopTimeout')} s")
        if service in WORKERS or service == "backend":
            expect(container["Config"]["User"] == "10001:10001", f"{service} runs as {container['Config']['User']}")
    say("  memory, processes, logs, rights and stop times are as documented")


def check_default():
    """One of each: operations of each type, the ports, a volume that stays."""
    project = Project("default")
    project.up()
    operations = Operations(project.api)
    operations.each_type()
    operations.all_complete()

    for service, (_, port) in WORKERS.items():
        address = project.address(service, port)
        health = Api(f"http://{address}").get("/health")
        expect(health["healthy"], f"{service} at {address}: {health}")
    say("  the REST interface of each worker is reachable from this machine")

    # Nothing listens for monitoring unless it is asked for.
    ask = ["exec", "-T", "backend", "curl", "-fsS", "-m", "5", "http://nats:8222/healthz"]
    expect("ok" not in project.compose(*ask, check=False, quiet=True), "the monitoring port of NATS is open")
    project.environment["NATS_MONITORING_PORT"] = "8222"
    project.up()
    until("the monitoring port answers the other containers", lambda: "ok" in project.compose(*ask, check=False, quiet=True))
    say("  the monitoring port is closed, and opens for other containers")

    before = [project.api.operation(identity) for identity in operations.accepted]
    project.compose("down", "--timeout", "30")
    expect(not project.containers(), "containers are left after down")
    project.up()
    after = [project.api.operation(identity) for identity in operations.accepted]
    expect(before == after, f"operations changed over down and up:\n{before}\n{after}")
    say("  operations are the same after down and up")


def check_scale():
    """Several workers of one type share the work. Each has its own id and port."""
    project = Project("scale", **FAST)
    project.up("--scale", "data-processing-worker=3", "--scale", "dummy-worker=3")
    for worker_type in ("dummy", "data_processing"):
        until(f"three workers of {worker_type}", lambda t=worker_type: len(project.workers(t)) == 3)
    ids = {worker["worker_id"] for worker in project.workers("dummy")}
    expect(len(ids) == 3, f"ids are not unique: {ids}")

    operations = Operations(project.api)
    for _ in range(9):
        operations.dummy(1)
        operations.each_type()
    operations.all_complete()
    used = {project.api.operation(identity)["worker_id"] for identity in operations.accepted}
    expect(len(used & ids) == 3, f"only {used & ids} took operations")

    project.up("--scale", "data-processing-worker=1", "--scale", "dummy-worker=1")
    operations.each_type()
    operations.all_complete()
    say("  scaled to three and back")


def check_faults():
    """Kills and cuts off containers while operations run."""
    project = Project("faults", **FAST)
    project.up("--scale", "dummy-worker=3")
    operations = Operations(project.api)

    say("  a worker process is killed; Docker starts it again")
    identity = operations.dummy(8)
    container = until("it runs", lambda: project.running_on(identity))
    started = inspect(container)["State"]["StartedAt"]
    crash(container)
    until("the container is started again", lambda: inspect(container)["State"]["StartedAt"] != started)
    operations.all_complete()
    expect(project.api.operation(identity)["attempt"] >= 2, "the operation was not taken over")

    say("  a container is killed and does not come back")
    identity = operations.dummy(8)
    container = until("it runs", lambda: project.running_on(identity))
    run("docker", "kill", container)
    operations.all_complete()
    expect(project.api.operation(identity)["attempt"] >= 2, "the operation was not taken over")
    project.up("--scale", "dummy-worker=3")

    say("  a worker is cut off the network and comes back")
    identity = operations.dummy(20)
    container = until("it runs", lambda: project.running_on(identity))
    network = f"{project.name}_ktrdr"
    run("docker", "network", "disconnect", network, container)
    other = until("another worker takes over", lambda: project.running_on(identity) not in (None, container) and project.running_on(identity))
    expect(other != container, "it runs where it ran")
    run("docker", "network", "connect", "--alias", "dummy-worker", network, container)
    operations.all_complete()
    until("three free workers", lambda: len(project.workers("dummy")) == 3)

    say("  the backend is killed while operations run and others are started")
    operations.dummy(5)
    run("docker", "kill", project.container("backend"))
    project.compose("up", "-d", "--scale", "dummy-worker=3")
    operations.dummy(1)
    operations.all_complete()

    say("  NATS is killed while operations run and others are started")
    operations.dummy(5)
    crash(project.container("nats"))
    operations.dummy(1)
    operations.each_type()
    operations.all_complete()

    say("  workers are stopped in order: a short operation finishes, a long one is handed back")
    project.up("--scale", "dummy-worker=1")
    short = operations.dummy(6)
    until("it runs", lambda: project.running_on(short))
    began = time.monotonic()
    project.compose("stop", "dummy-worker")
    expect(time.monotonic() - began < 29, "a worker was killed instead of stopping")
    operation = project.api.operation(short)
    expect(operation["status"] == "completed" and operation["attempt"] == 1, f"it did not finish in the grace: {operation}")
    long = operations.dummy(40)
    project.up("--scale", "dummy-worker=1")
    until("it runs", lambda: project.running_on(long))
    project.compose("stop", "dummy-worker")
    expect(project.api.operation(long)["status"] != "failed", "it failed because its worker stopped")
    project.up("--scale", "dummy-worker=1")
    operations.all_complete()


def check_cluster():
    """Three NATS servers, restarted and killed one after another under load."""
    servers = ["nats-1", "nats-2", "nats-3"]
    url = ",".join(f"nats://{server}:4222" for server in servers)
    project = Project("cluster", profiles=["cluster"], NATS_URL=url, KTRDR_STREAM_REPLICAS="3", NATS_MONITORING_PORT="8222", **FAST)
    project.up("--scale", "dummy-worker=2")
    operations = Operations(project.api)
    operations.each_type()
    operations.all_complete()

    ask = ["exec", "-T", "backend", "curl", "-fsS", "http://nats-1:8222/jsz?streams=1&config=1"]
    accounts = json.loads(project.compose(*ask))["account_details"]
    copies = {stream["name"]: stream["config"]["num_replicas"] for account in accounts for stream in account["stream_detail"]}
    expect(copies and set(copies.values()) == {3}, f"not three copies of everything: {copies}")
    say(f"  three copies of {len(copies)} streams")

    for how, break_it in [
        ("restarted", lambda server: run("docker", "restart", project.container(server))),
        ("killed", lambda server: crash(project.container(server))),
    ]:
        for server in servers:
            operations.dummy(4)
            break_it(server)
            for _ in range(5):
                operations.dummy(0.5)
            project.wait_until_healthy()
        operations.each_type()
        operations.all_complete()
        say(f"  the servers were {how} one after another")

    say("  a server is cut off the network and comes back")
    network = f"{project.name}_ktrdr"
    container = project.container("nats-2")
    operations.dummy(6)
    run("docker", "network", "disconnect", network, container)
    for _ in range(5):
        operations.dummy(0.5)
    operations.all_complete()
    run("docker", "network", "connect", "--alias", "nats-2", network, container)
    operations.each_type()
    operations.all_complete()


def check_inputs():
    """With docker-compose.inputs.yml workers write only below one folder."""
    project = Project("inputs", files=["docker-compose.inputs.yml"])
    project.up()
    operations = Operations(project.api)
    operations.each_type()
    operations.all_complete()
    shell = ["exec", "-T", "data-processing-worker", "sh", "-c"]
    expect("check-" in project.compose(*shell, "ls /data/outputs"), "no output in the folder of outputs")
    expect("refused" in project.compose(*shell, "touch /data/x || echo refused", quiet=True), "a worker can write to /data")
    say("  outputs are in their folder, and the rest is read-only")


def check_backup():
    """The commands of docs/deployment.md for a backup and its restoration, as printed."""
    project = Project("backup", **FAST)
    project.up()
    operations = Operations(project.api)
    operations.each_type()
    operations.all_complete()
    waiting = operations.dummy(20)
    until("it runs", lambda: project.running_on(waiting))

    page = (ROOT / "docs" / "deployment.md").read_text()
    section = page.split("## Backup and restore", 1)[1].split("\n## ", 1)[0]
    backup, restore = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    project.shell(backup)
    project.wait_until_healthy()
    later = Operations(project.api)
    lost = later.dummy(0.1)
    later.all_complete()

    project.shell(restore)
    project.wait_until_healthy()
    operations.all_complete()
    expect(project.api.status(f"/api/v1/operations/{lost}") == 404, "an operation from after the backup is there")
    say("  what was there is there again, and what ran goes on")


def check_secure():
    """The commands of docs/deployment.md for tokens, TLS, signed starts and users of NATS, as printed."""
    project = Project("secure", files=["docker-compose.secure.yml"])
    page = (ROOT / "docs" / "deployment.md").read_text()
    section = page.split("### A secure deployment", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    expect(len(blocks) >= 5, "docs/deployment.md has no commands for a secure deployment")
    out = project.shell("\n".join(blocks))
    expect('"status":"completed"' in out.replace(" ", ""), f"the example did not complete:\n{out}")

    secrets = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", (project.directory / "secure/settings").read_text(), re.MULTILINE))
    project.environment.update(secrets)
    project.wait_until_healthy()
    token = (project.directory / "secure/me.token").read_text().strip()
    host, port = project.environment["KTRDR_API_BIND"].split(":")
    base, authority = f"https://localhost:{port}", str(project.directory / "secure/authority.pem")
    project.api = Api(base, authority, token)
    operations = Operations(project.api)
    operations.each_type()
    operations.all_complete()

    expect(Api(base, authority).status("/api/v1/operations") == 401, "requests without a token are answered")
    expect(Api(base, authority, "wrong").status("/api/v1/operations") == 401, "requests with a wrong token are answered")
    expect(Api(f"http://{host}:{port}").status("/health") == 400, "the backend speaks HTTP without TLS")
    backend = ["exec", "-T", "dummy-worker", "sh", "-c", "ls /run/ktrdr /etc/ktrdr/tls"]
    expect("signing.seed" not in project.compose(*backend), "a worker can read the signing key")
    logs = project.compose("logs", "--no-color")
    expect("Violation" not in logs, "NATS refused something:\n" + "\n".join(line for line in logs.splitlines() if "Violation" in line)[:2000])
    say("  tokens, TLS, signed starts and users of NATS work as printed")


def crash(container):
    """Kills the first process of a container from outside, as a crash does. Docker starts the container again; after
    `docker kill` it would not."""
    process = inspect(container)["State"]["Pid"]
    run("docker", "run", "--rm", "-u", "0", "--pid", "host", "--entrypoint", "sh", IMAGES["BACKEND_IMAGE"], "-c", f"kill -9 {process}")


CHECKS = {
    "settings": check_settings,
    "default": check_default,
    "scale": check_scale,
    "faults": check_faults,
    "cluster": check_cluster,
    "inputs": check_inputs,
    "backup": check_backup,
    "secure": check_secure,
}


def main(arguments):
    if "--list" in arguments:
        for name, check in CHECKS.items():
            say(f"{name:<10} {check.__doc__}")
        return 0
    keep = "--keep-images" in arguments
    wanted = [argument for argument in arguments if not argument.startswith("--")] or list(CHECKS)
    unknown = {argument for argument in arguments if argument.startswith("--")} - {"--keep-images", "--no-build"}
    if unknown:
        say(f"error: unknown argument {unknown.pop()}: scripts/compose-check --help")
        return 2
    for name in wanted:
        if name not in CHECKS:
            say(f"error: there is no check {name}: scripts/compose-check --list")
            return 2

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    failed = []
    try:
        if "--no-build" not in arguments:
            say("== build")
            build()
        for name in wanted:
            say(f"== {name}: {CHECKS[name].__doc__}")
            began = time.monotonic()
            try:
                CHECKS[name]()
                say(f"== {name}: ok ({time.monotonic() - began:.0f} s)")
            except (Failed, OSError, ValueError, KeyError) as error:
                say(f"== {name}: FAILED ({time.monotonic() - began:.0f} s)\n{type(error).__name__}: {error}")
                failed.append(name)
            clean_up()
    finally:
        # A second Ctrl-C would leave containers behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        clean_up()
        if not keep:
            for image in IMAGES.values():
                run("docker", "rmi", image, quiet=True, check=False)

    say(f"FAILED: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def build():
    """Builds both images with docker-compose.yml. The output is shown: it takes minutes."""
    environment = {**os.environ, **IMAGES}
    done = subprocess.run([*COMPOSE, "-p", RUN, "build", "backend", "dummy-worker"], cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise Failed("the images cannot be built")


def clean_up():
    while PROJECTS:
        PROJECTS.pop().remove()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Failed as failure:
        sys.exit(f"error: {failure}")
