"""Findings as SARIF, which forges show beside the lines of a change. Source: OASIS SARIF 2.1.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.audit.finding import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def document(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """The log of one run: a rule for each section that has findings, a result for each that is not ok."""
    titles = {f.rule: f.title for f in findings}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pystack audit",
                        "version": version,
                        "rules": [
                            {"id": _id(number), "shortDescription": {"text": title}} for number, title in sorted(titles.items())
                        ],
                    }
                },
                "results": [_result(f) for f in findings if not f.ok],
            }
        ],
    }


def _id(number: str) -> str:
    return f"CIS-Docker-{number}"


def _result(finding: Finding) -> dict[str, Any]:
    text = f"{finding.target}: {finding.detail}. {finding.fix}" if finding.fix else f"{finding.target}: {finding.detail}"
    result: dict[str, Any] = {"ruleId": _id(finding.rule), "level": finding.level, "message": {"text": text}}
    file, _, rest = finding.where.partition(":")
    line, _, column = rest.partition(":")
    if line.isdecimal() and int(line):
        region = {"startLine": int(line), **({"startColumn": int(column)} if column.isdecimal() and int(column) else {})}
        result["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": file}, "region": region}}]
    return result
