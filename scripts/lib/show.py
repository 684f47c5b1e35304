"""Turns the APIs' JSON on standard input into short tables: show.py operations|workers|field NAME."""

import json
import sys


def table(head, rows):
    rows = [head] + [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def figures(operation):
    """The numbers of a result that fit into one cell."""
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


def field(data, name):
    for part in name.split("."):
        data = data[part]
    print(data if isinstance(data, str) else json.dumps(data))


def main(arguments):
    data = json.load(sys.stdin)
    {"operations": operations, "workers": workers, "field": field}[arguments[0]](data, *arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
