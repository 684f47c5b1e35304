"""Prints JSON of the REST interfaces as short tables: show.py operations|workers|schedules|field NAME|curve NAME...|backtests NAME..."""

import json
import sys


def table(head, rows):
    rows = [head] + [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def figures(operation):
    """The numbers of a result, cut to one cell."""
    if operation.get("error_message"):
        return operation["error_message"][:70]
    result, found = operation.get("result") or {}, []
    parts = [result] + [part for part in result.get("operations", []) if isinstance(part, dict)]
    for part in parts:
        found += [f"{name} {value}" for name, value in part.items() if isinstance(value, int) and value and name != "duration_seconds"]
    return ", ".join(found)[:100]


def seconds(value):
    return "" if value is None else f"{value:.2f} s"


def operations(data):
    rows = data["data"]["operations"][::-1]
    table(
        ["operation", "type", "status", "worker", "time", "result"],
        [
            [row["operation_id"], row["operation_type"], row["status"], row["worker_id"], seconds(row["duration_seconds"]), figures(row)]
            for row in rows
        ],
    )


def workers(data):
    table(
        ["worker", "type", "status", "endpoint", "capabilities"],
        [
            [row["worker_id"], row["worker_type"], row["status"], row["endpoint_url"], json.dumps(row["capabilities"])]
            for row in data
        ],
    )


def schedules(data):
    table(
        ["schedule", "cron", "time zone", "last run", "next runs"],
        [
            [row["schedule_id"], row["cron"], row["time_zone"], (row["last_run"] or {}).get("operation_id"), ", ".join(row["next_runs"][:2])]
            for row in data["data"]["schedules"]
        ],
    )


def curve(data, *names):
    """First, middle and last value of each metric."""
    points = data["data"]["metrics"]
    rows = []
    for name in names:
        values = [point["value"] for point in points if point["name"] == name]
        if values:
            rows.append([name] + [f"{values[at]:.6f}" for at in (0, len(values) // 2, -1)])
    table(["metric", "first epoch", "middle", "last"], rows)


def backtests(results, *names):
    def percent(value):
        return "" if value is None else f"{value * 100:.1f} %"

    def number(value):
        return "" if value is None else f"{value:.2f}"

    rows = []
    for name, result in zip(names, results):
        found = result["data"]["metrics"]
        rows.append(
            [name, found["total_trades"], percent(found["win_rate"]), number(found["final_equity"]), percent(found["total_return_pct"]),
             percent(found["buy_hold_return_pct"]), number(found["sharpe_ratio"]), percent(found["max_drawdown_pct"])]
        )
    table(["strategy", "trades", "won", "final equity", "return", "buy and hold", "sharpe", "max drawdown"], rows)


def field(data, name):
    for part in name.split("."):
        data = data[part]
    print(data if isinstance(data, str) else json.dumps(data))


def main(arguments):
    shows = {"operations": operations, "workers": workers, "schedules": schedules, "field": field, "curve": curve, "backtests": backtests}
    text, found, at = sys.stdin.read(), [], 0
    decoder = json.JSONDecoder()
    # Standard input may hold several JSON documents.
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    shows[arguments[0]](found if arguments[0] == "backtests" else found[0], *arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
