"""Makes the crate of docs/new-worker.md, as pasted: paste_new_worker.py REPOSITORY DIRECTORY

Writes Cargo.toml and src/main.rs, the program with its test. Only the path to the clone is replaced, and the crate is a workspace of
its own, because DIRECTORY may lie inside the repository. The lock file is that of the repository, so that the crate is built with the
versions that the tests use.
"""

import pathlib
import shutil
import sys

repository, crate = map(pathlib.Path, sys.argv[1:])


def blocks(page, language):
    return [part.split("\n```")[0] + "\n" for part in page.split(f"\n```{language}\n")[1:]]


page = (repository / "docs/new-worker.md").read_text()
manifest, program, test = blocks(page, "toml")[0], *blocks(page, "rust")

(crate / "src").mkdir(parents=True, exist_ok=True)
(crate / "Cargo.toml").write_text(manifest.replace("../ktrdr-workers/", f"{repository}/") + "\n[workspace]\n")
(crate / "src/main.rs").write_text(
    f"{program}\n#[cfg(test)]\nmod tests {{\n    use super::WordCount;\n    use ktrdr_worker::testing::TestRun;\n    use serde_json::json;\n\n{test}}}\n"
)
shutil.copy(repository / "Cargo.lock", crate / "Cargo.lock")
