"""A real GPU of NVIDIA's in a container, on a node with its driver and no container toolkit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no NVIDIA GPU")]
SQUARES = r"""
#include <cstdio>
__global__ void square(int *x) { x[threadIdx.x] *= x[threadIdx.x]; }
int main() {
    int there[64], *device;
    for (int i = 0; i < 64; i++) there[i] = i;
    if (cudaMalloc(&device, sizeof there) || cudaMemcpy(device, there, sizeof there, cudaMemcpyHostToDevice)) return 1;
    square<<<1, 64>>>(device);
    if (cudaMemcpy(there, device, sizeof there, cudaMemcpyDeviceToHost)) return 2;
    int sum = 0;
    for (int i = 0; i < 64; i++) sum += there[i];
    printf("sum %d\n", sum);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if not compiler:
        pytest.skip("nvcc is not installed")
    source = tmp_path_factory.mktemp("cuda") / "squares.cu"
    source.write_text(SQUARES)
    subprocess.run([compiler, "-o", str(source.with_suffix("")), str(source)], check=True, timeout=120)
    return source.with_suffix("")


@pytest.fixture(scope="module")
def image(lab: Pystack, program: Path) -> str:
    """busybox, the C libraries that the host's programs are linked to, and *program*: nothing of the driver."""
    needed = {str(program)} | {p for p in [shutil.which("nvidia-smi")] if p}
    linked = {p for n in needed for p in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", n], text=True))}
    files: dict[str, bytes | str | None] = dict.fromkeys(("usr/lib/x86_64-linux-gnu", "lib64", "usr/bin", "bin", "etc"))
    for path in linked:
        where = "lib64" if "/ld-linux" in path else "usr/lib/x86_64-linux-gnu"
        files[f"{where}/{Path(path).name}"] = Path(path).read_bytes()
    busybox = shutil.which("busybox")
    assert busybox
    files |= {"bin/busybox": Path(busybox).read_bytes(), "bin/sh": "busybox", "usr/bin/squares": program.read_bytes()}
    path = Path(lab.environment["PYSTACK_ROOT"]) / "gpu.tar"
    archive(path, [tar_of(files)], name="docker.io/library/gpu:latest")
    lab("image", "load", "-i", str(path))
    return "gpu"


def test_a_container_sees_the_gpu(lab: Pystack, image: str) -> None:
    there = subprocess.check_output(["nvidia-smi", "-L"], text=True)
    assert lab("container", "run", "--rm", "--gpus", "all", image, "nvidia-smi", "-L").stdout == there
    uuid = re.search(r"UUID: (\S+)\)", there)
    assert uuid
    assert lab("container", "run", "--rm", "--gpus", f"device={uuid[1]}", image, "nvidia-smi", "-L").stdout == there
    without = lab("container", "run", "--rm", image, "sh", "-c", "busybox ls /dev; nvidia-smi", check=False)
    assert without.returncode == 127
    assert "nvidia" not in without.stdout


def test_a_service_computes_on_the_gpu(stack: Stack, image: str) -> None:
    asks = "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}"
    stack.up(f"services:\n  sum:\n    image: {image}\n    command: [sh, -c, squares; busybox sleep 1000]\n    {asks}\n")

    def computed() -> None:
        assert "sum 85344" in stack.run("logs", "--no-log-prefix", "sum").stdout

    eventually(computed, 20)
