"""Runs docker-compose.yml, breaks it, and checks that nothing is lost. scripts/compose-check calls it and says more.

Needs only the standard library. $COMPOSE is the command: "docker compose" or "docker-compose".
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from compose_project import COMPOSE, FAST, IMAGES, ROOT, RUN, WORKERS, Api, Failed, Operations, Project, clean_up, crash, expect, inspect, run, say, until


# --- the checks


def check_settings():
    """Every setting of .env.example reaches the containers; limits and rights are set."""
    project = Project("settings", profiles=["exec"], EXEC_WORKER_IMAGE=IMAGES["WORKER_IMAGE"], EXEC_WORKER_TYPE="of-a-program")
    names = re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    expect(len(names) > 30, f".env.example lists only {names}")

    # What a container decides, what is for one worker alone, and what only the worker with a program reads.
    fixed = {"KTRDR_API_ADDR", "WORKER_TYPE", "WORKER_HOST", "WORKER_PORT", "KTRDR_DATA_DIR"}
    alone = {"WORKER_ID", "WORKER_ENDPOINT_URL"}
    of_programs = {name for name in names if name.startswith("WORKER_EXEC")}
    expect(of_programs, ".env.example does not list WORKER_EXEC")
    project.environment.update({name: f"marker-{name}" for name in names})
    project.compose("up", "--no-start")
    workers = [*WORKERS, "exec-worker"]
    for service, entry in [("backend", "ktrdr-backend"), *((service, "ktrdr-worker") for service in workers)]:
        container = inspect(project.container(service))
        environment = dict(part.split("=", 1) for part in container["Config"]["Env"])
        help_text = run("docker", "run", "--rm", "-e", "WORKER_TYPE=dummy", container["Config"]["Image"], "--help")
        reads = set(re.findall(r"\[env: ([A-Z_]+)", help_text)) | ({"WORKER_TYPE"} if entry == "ktrdr-worker" else set())
        expect(len(reads) > 20, f"{entry} --help names only {sorted(reads)}")
        expect(reads <= set(names), f".env.example does not list {sorted(reads - set(names))}")
        for name in sorted(reads - alone - (of_programs if service in WORKERS else set())):
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
        if service in workers:
            expect(container["Config"]["StopTimeout"] == 45, f"{service} is killed after {container['Config'].get('StopTimeout')} s")
        if service in workers or service == "backend":
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
    expect(time.monotonic() - began < 44, "a worker was killed instead of stopping")
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


def check_exec():
    """The commands of docs/exec.md for a program in a container, as printed."""
    project = Project("exec", profiles=["exec"], **FAST)
    example = "worker/exec/examples/countdown.sh"
    (project.directory / example).parent.mkdir(parents=True)
    shutil.copy(ROOT / example, project.directory / example)

    page = (ROOT / "docs" / "exec.md").read_text()
    section = page.split("## In a container", 1)[1].split("\n## ", 1)[0]
    [commands] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    project.shell(commands)
    project.environment.update(re.findall(r'^export (\w+)="(.*)"$', commands, re.MULTILINE))
    project.wait_until_healthy()
    operations = Operations(project.api)
    operations.start("countdown-sh", {"steps": 5})
    operations.all_complete()

    lost = operations.start("countdown-sh", {"steps": 60})
    until("it runs", lambda: project.api.operation(lost)["status"] == "running")
    run("docker", "kill", project.container("exec-worker"))
    project.compose("up", "-d")
    operations.all_complete()
    expect(project.api.operation(lost)["attempt"] >= 2, "the operation was not taken over")
    say("  a program in bash runs operations, and goes on after its container was killed")


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
    volume, backup, restore = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    project.shell(volume + backup)
    project.wait_until_healthy()
    later = Operations(project.api)
    lost = later.dummy(0.1)
    later.all_complete()

    project.shell(volume + restore)
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


CHECKS = {
    "settings": check_settings,
    "default": check_default,
    "scale": check_scale,
    "faults": check_faults,
    "cluster": check_cluster,
    "inputs": check_inputs,
    "exec": check_exec,
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


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Failed as failure:
        sys.exit(f"error: {failure}")
