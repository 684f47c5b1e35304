"""Puts programs into the wheel: the files of the directory in KTRDR_WHEEL_PROGRAMS. Without it, the wheel is pure Python and fits everywhere.

scripts/build-wheel sets it.
"""

import os
import pathlib
import platform
import re
import sys
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


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
