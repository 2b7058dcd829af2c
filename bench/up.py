"""`up` of 50 one-container services against the raw floor of the same work in shell; `up` again; `ps`.

Everything runs inside a lab. Writes build/bench.json: {name: {value, unit, baseline, ratio, better}}, seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.images import archive, busybox_rootfs

COUNT = 50
LAB = "bench"
FLOOR = r"""
set -e
root=$1; layer=$2; count=$3
ip link add flr0 type bridge; ip link set flr0 up
one() {
    d=$root/f$1; mkdir -p $d/upper $d/work $d/rootfs
    mount -t overlay overlay -o lowerdir=$layer,upperdir=$d/upper,workdir=$d/work $d/rootfs
    ip netns add f$1; ip link add fv$1 type veth peer name eth0 netns f$1; ip link set fv$1 master flr0 up
    sed "s#ROOTFS#$d/rootfs#; s#NETNS#/run/netns/f$1#" $root/config.json > $d/config.json
    runc --root $root/runc run -d --bundle $d f$1 </dev/null >/dev/null 2>&1
}
export -f one; export root layer
seq $count | xargs -P 2 -I{} bash -c 'one {}'
"""
CLEAN = r"""
root=$1
for n in $(seq $2); do runc --root $root/runc delete -f f$n; umount $root/f$n/rootfs; ip netns del f$n; done
ip link del flr0; rm -rf $root
"""


def pystack(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([".venv/bin/pystack", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def on_node(script: str, *arguments: str) -> float:
    start = time.perf_counter()
    command = [".venv/bin/pystack", "lab", "exec", "--name", LAB, "n1", "--", "bash", "-c", script, "floor", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def floor(root: Path) -> float:
    work = root / "floor"
    work.mkdir()
    subprocess.run(["runc", "spec"], cwd=work, check=True)
    config = json.loads((work / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    config["root"] = {"path": "ROOTFS", "readonly": False}
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = "NETNS"
    (work / "config.json").write_text(json.dumps(config))
    layer = next((root / "layers").iterdir())
    took = on_node(FLOOR, str(work), str(layer), str(COUNT))
    on_node(CLEAN, str(work), str(COUNT))
    return took


def main() -> None:
    pystack("lab", "up", "--name", LAB)
    try:
        root = Path(f"/var/lib/pystack-lab/{LAB}/n1")
        os.environ["PYSTACK_HOST"] = f"unix://{root}/run/pystack.sock"
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            archive(directory / "b.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
            pystack("image", "load", "-i", str(directory / "b.tar"))
            file = directory / "stack.yml"
            lines = [f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}" for n in range(COUNT)]
            file.write_text("name: fifty\nservices:\n" + "\n".join(lines) + "\n")
            ups, floors = [], []
            for _ in range(3):  # paired: the machine's mood is the same for both
                floors.append(floor(root))
                ups.append(pystack("up", "-f", str(file), "--progress", "quiet"))
                again = pystack("up", "-f", str(file), "--progress", "quiet")
                ps = pystack("ps", "-f", str(file), "--format", "json")
                pystack("down", "-f", str(file), "--progress", "quiet")
    finally:
        pystack("lab", "down", "--name", LAB)
    up, raw = statistics.median(ups), statistics.median(floors)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    interpreter = time.perf_counter() - start
    results = {
        "up50": {"value": up, "unit": "s", "baseline": raw, "ratio": up / raw, "better": "lower"},
        "up50_again": {"value": again, "unit": "s", "baseline": raw, "ratio": again / raw, "better": "lower"},
        "ps50": {"value": ps, "unit": "s", "baseline": interpreter, "ratio": ps / interpreter, "better": "lower"},
    }
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, row in results.items():
        print(f"{name}: {row['value']:.3f} s, baseline {row['baseline']:.3f} s, ratio {row['ratio']:.2f}")


if __name__ == "__main__":
    main()
