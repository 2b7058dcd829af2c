"""Makes the Python environment of a Debian package: `environment.py WHEELS TARGET EXTRA`, from wheels alone.

It has the form that the agent's environment has on a node: a pyvenv.cfg beside the host's interpreter, nothing that names the
place where it was built, and no bytecode, which the package's installation makes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

NODE_ONLY = "orchestrator"
"""What an agent's package leaves out of our own wheel."""


def main(wheels: Path, target: Path, extra: str) -> None:
    """Fill *target*. Raises CalledProcessError where a wheel is missing."""
    site = target / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (own,) = wheels.glob("pystack_orchestrator-*.whl")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-compile"),
            *("--no-warn-script-location", "--root-user-action", "ignore", "--find-links", wheels, "--target", site),
            f"{own}[{extra}]",
        ],
        check=True,
    )
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (target / "bin").mkdir()
    (target / "bin/python3").symlink_to("/usr/bin/python3")
    shutil.rmtree(site / "bin", ignore_errors=True)
    for package in ("numpy", "networkx"):  # a third of their size, and never imported
        for tests in sorted((site / package).rglob("tests")):
            shutil.rmtree(tests, ignore_errors=True)
    if extra == "node":
        shutil.rmtree(site / NODE_ONLY)
        for console_only in ("click", "watchfiles", "anyio"):
            shutil.rmtree(site / console_only, ignore_errors=True)
            for folder in site.glob(f"{console_only}-*.dist-info"):
                shutil.rmtree(folder)
    for made in site.rglob("direct_url.json"):
        made.unlink()  # where the wheel lay
    for path in sorted(target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
