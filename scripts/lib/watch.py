"""Shows the progress of operations, one line each, until all have ended: watch.py API [--until ID=PERCENT] ID=LABEL...

Redraws the lines in a terminal. Elsewhere it prints a line for each step of progress. Needs only the standard library.
"""

import json
import sys
import time
import urllib.error
import urllib.request

DONE = ("completed", "failed", "cancelled")
WIDTH = 28
# All servers are on this machine, so a configured proxy must not be used.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def operation(api, identity):
    with HTTP.open(f"{api}/api/v1/operations/{identity}", timeout=10) as answer:
        return json.load(answer)["data"]


def line(label, found):
    percentage = found["progress"]["percentage"]
    filled = round(percentage / 100 * WIDTH)
    step = found["progress"].get("current_step") or ""
    if found["status"] == "failed":
        step = found.get("error_message") or ""
    return f"  {label:<24} [{'#' * filled}{'.' * (WIDTH - filled)}] {percentage:5.1f} %  {found['status']:<9} {step}"


def main(arguments):
    api, rest, until = arguments[0], arguments[1:], None
    if rest[0] == "--until":
        until, rest = rest[1].rsplit("=", 1), rest[2:]
    wanted = [entry.split("=", 1) for entry in rest]
    terminal, drawn, said = sys.stdout.isatty(), 0, {}
    deadline = time.monotonic() + 600
    while True:
        found = {identity: operation(api, identity) for identity, _ in wanted}
        lines = [line(label, found[identity]) for identity, label in wanted]
        if terminal:
            sys.stdout.write(f"\x1b[{drawn}A" if drawn else "")
            sys.stdout.write("".join(f"\x1b[2K{text[:118]}\n" for text in lines))
            drawn = len(lines)
        else:
            for (identity, _), text in zip(wanted, lines):
                step = (found[identity]["status"], int(found[identity]["progress"]["percentage"] // 20))
                if said.get(identity) != step:
                    said[identity] = step
                    print(text)
        sys.stdout.flush()
        if all(each["status"] in DONE for each in found.values()):
            return 0
        if until and found[until[0]]["progress"]["percentage"] >= float(until[1]):
            return 0
        if time.monotonic() > deadline:
            print("the operations did not end within 10 minutes", file=sys.stderr)
            return 1
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except urllib.error.URLError as error:
        sys.exit(f"the backend does not answer: {error}")
