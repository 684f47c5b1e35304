"""What hatchling does for this package beyond its usual work.

It puts programs into the wheel: the files of the directory in KTRDR_WHEEL_PROGRAMS, which scripts/build-wheel sets. Without it, the wheel is
pure Python and fits everywhere. And it makes the description of README.md.
"""

import os
import pathlib
import platform
import re
import sys
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A link of Markdown to a file, not to the web or within the page.
LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#)([^)#]*)(?:#[^)]*)?\)")


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata):
        page = pathlib.Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": LINK.sub(without_link, page)}


def without_link(found):
    """The text, and the path in the repository unless the text names it."""
    text = found[1]
    path = os.path.normpath(os.path.join("clients/python", found[2])).replace(os.sep, "/")
    return text if path.endswith(text) else f"{text} (`{path}`)"


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        folder = os.environ.get("KTRDR_WHEEL_PROGRAMS")
        if not folder or version == "editable":
            return
        programs = sorted(path for path in pathlib.Path(folder).iterdir() if path.is_file())
        if not programs:
            raise SystemExit(f"there are no programs in {folder}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(programs)}"
        build_data["shared_scripts"] = {str(path): path.name for path in programs}


def platform_tag(programs):
    """Where the programs run: on Linux, with the newest glibc whose functions they use."""
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return machine
    used = {int(minor) for path in programs for minor in re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())}
    # Version 17 is the oldest for which there is a tag.
    return f"manylinux_2_{max({17, *used})}_{platform.machine()}"
