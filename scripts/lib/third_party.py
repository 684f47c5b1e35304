"""Reads what `cargo metadata` says, and lists the crates that are linked into programs: name and version, licence, and where it comes from.

    cargo metadata … | third_party.py PACKAGE…
"""

import json
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
# Only what is linked: neither dependencies of tests nor of the build.
linked = {
    node["id"]: [other["pkg"] for other in node["deps"] if any(kind["kind"] is None for kind in other["dep_kinds"])]
    for node in metadata["resolve"]["nodes"]
}

waiting = [identity for identity, package in packages.items() if package["name"] in sys.argv[1:] and package["source"] is None]
if len(waiting) != len(sys.argv[1:]):
    sys.exit(f"the workspace has not all of {sys.argv[1:]}")
found = set()
while waiting:
    identity = waiting.pop()
    if identity not in found:
        found.add(identity)
        waiting += linked[identity]

rows = []
for package in (packages[identity] for identity in found):
    if package["source"] is not None:
        licence = package["license"] or f"see {package['license_file']}"
        origin = package["repository"] or f"https://crates.io/crates/{package['name']}"
        rows.append((f"{package['name']} {package['version']}", licence, origin))
print("Crates that are linked into the programs of this wheel, with their licences.\n")
widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
for name, licence, origin in sorted(rows):
    print(f"{name:{widths[0]}}  {licence:{widths[1]}}  {origin}")
