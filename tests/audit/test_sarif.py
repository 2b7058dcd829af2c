"""Findings as SARIF: one rule for each section, one result for each finding that is not ok, its place where it has one."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.audit import sarif
from orchestrator.audit.finding import Finding, Level


def finding(rule: str = "5.5", *, ok: bool = False, level: Level = "error", fix: str = "", where: str = "") -> Finding:
    return Finding(
        rule=rule, title=f"title of {rule}", target="services.a", ok=ok, level=level, detail="d", fix=fix, where=where
    )


def run_of(*findings: Finding) -> dict[str, Any]:
    [run] = sarif.document(findings, "1.2")["runs"]
    return dict(run)


def test_rules_are_named_once_and_sorted() -> None:
    driver = run_of(finding("5.5"), finding("4.1", ok=True), finding("5.5"))["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("pystack audit", "1.2")
    assert driver["rules"] == [
        {"id": "CIS-Docker-4.1", "shortDescription": {"text": "title of 4.1"}},
        {"id": "CIS-Docker-5.5", "shortDescription": {"text": "title of 5.5"}},
    ]


def test_what_is_ok_is_not_a_result() -> None:
    assert [r["ruleId"] for r in run_of(finding("4.1", ok=True), finding("5.5"))["results"]] == ["CIS-Docker-5.5"]


@pytest.mark.parametrize(("fix", "text"), [("", "services.a: d"), ("do it", "services.a: d. do it")])
def test_a_result_says_what_is_and_what_to_do(fix: str, text: str) -> None:
    [result] = run_of(finding(fix=fix, level="note"))["results"]
    assert (result["level"], result["message"]) == ("note", {"text": text})


@pytest.mark.parametrize(
    ("where", "region"),
    [
        ("s.yml:3:5", {"startLine": 3, "startColumn": 5}),
        ("s.yml:3", {"startLine": 3}),
        ("s.yml:3:0", {"startLine": 3}),
        ("s.yml:0:0", None),
        ("s.yml", None),
        ("", None),
    ],
)
def test_a_place_is_a_location(where: str, region: dict[str, int] | None) -> None:
    [result] = run_of(finding(where=where))["results"]
    found = [place["physicalLocation"] for place in result.get("locations", ())]
    assert found == ([{"artifactLocation": {"uri": "s.yml"}, "region": region}] if region else [])
