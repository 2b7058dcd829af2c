"""Which processors numpy's wheels run on; where they do not, placement does without."""

from __future__ import annotations

import pytest

from orchestrator.placement import node_table
from orchestrator.placement.columns import PlainColumns
from orchestrator.placement.processor import V2, has_v2, runs_numpy
from orchestrator.placement.vectors import VectorColumns

QEMU64 = (
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm nopl cpuid "
    "extd_apicid tsc_known_freq pni cx16 hypervisor lahf_lm svm 3dnowprefetch vmmcall"
)


def cpuinfo(*processors: str) -> str:
    return "\n".join(f"processor\t: {n}\nvendor_id\t: AuthenticAMD\nflags\t\t: {f}\n" for n, f in enumerate(processors))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (cpuinfo(QEMU64), False),
        (cpuinfo(f"{QEMU64} ssse3 sse4_1 sse4_2 popcnt"), True),
        (cpuinfo(" ".join(sorted(V2)), QEMU64), False),
        *((cpuinfo(" ".join(sorted(V2 - {flag}))), False) for flag in sorted(V2)),
        ("processor\t: 0\nFeatures\t: fp asimd\n", True),
        ("", True),
    ],
)
def test_what_has_every_instruction_of_x86_64_v2(text: str, want: bool) -> None:
    assert has_v2(text) is want


def test_columns_are_those_that_the_processor_can_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(node_table.columns_for(3), VectorColumns if runs_numpy() else PlainColumns)
    monkeypatch.setattr(node_table, "runs_numpy", lambda: False)
    assert isinstance(node_table.columns_for(3), PlainColumns)
