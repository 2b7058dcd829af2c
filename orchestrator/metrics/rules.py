"""Alerts over the metrics, as Prometheus' rule file, and a dashboard for Grafana. Pure.

Source: Prometheus, "Alerting rules"; Grafana, "Dashboard JSON model".
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Alert(NamedTuple):
    """An alert: its *expression* must hold for so long (*after*)."""

    name: str
    expression: str
    after: str
    severity: str
    summary: str


OF_SERVICE = "{{ $labels.stack }}/{{ $labels.service }}"
ALERTS = (
    Alert("PystackNodeDown", "pystack_node_up == 0", "1m", "critical", "Node {{ $labels.node }} does not answer."),
    Alert(
        "PystackTasksMissing",
        "pystack_tasks_wanted - pystack_tasks_running > 0",
        "5m",
        "warning",
        f"{{{{ $value }}}} tasks of {OF_SERVICE} do not run.",
    ),
    Alert(
        "PystackTasksUnhealthy",
        "pystack_tasks_unhealthy > 0",
        "5m",
        "warning",
        f"{{{{ $value }}}} tasks of {OF_SERVICE} are unhealthy.",
    ),
    Alert("PystackTasksRestart", "pystack_task_restarts > 3", "5m", "warning", f"{OF_SERVICE} is restarted again and again."),
    Alert(
        "PystackCertificateEnds",
        "pystack_certificate_expiry_timestamp_seconds - time() < 7 * 86400",
        "10m",
        "critical",
        "The certificate of {{ $labels.host }} ends in less than a week.",
    ),
    Alert(
        "PystackProxyNotReady",
        "pystack_ingress_proxy_ready == 0",
        "2m",
        "critical",
        "{{ $labels.task }} does not have its configuration.",
    ),
    Alert(
        "PystackVolumeFull",
        "pystack_volume_used_bytes / pystack_volume_limit_bytes > 0.9",
        "5m",
        "warning",
        "Volume {{ $labels.volume }} is full to 90 %.",
    ),
    Alert(
        "PystackDiskFull",
        "pystack_disk_free_bytes / pystack_disk_size_bytes < 0.1",
        "5m",
        "warning",
        "The disk of images, containers and volumes on {{ $labels.instance }} is full to 90 %.",
    ),
    Alert(
        "PystackStoreSlow",
        "rate(pystack_store_operation_seconds_sum[5m]) / rate(pystack_store_operation_seconds_count[5m]) > 0.5",
        "5m",
        "warning",
        "The store takes more than half a second for {{ $labels.operation }}.",
    ),
)
OF_STORE = "sum by(le, operation) (rate(pystack_store_operation_seconds_bucket[5m]))"
PANELS = (
    ("Nodes that answer", "sum(pystack_node_up)", "none"),
    ("Tasks that are to run", "sum by(stack) (pystack_tasks_wanted)", "none"),
    ("Tasks that run", "sum by(stack) (pystack_tasks_running)", "none"),
    ("Restarts", "sum by(stack, service) (pystack_task_restarts)", "none"),
    ("CPU", "sum by(name) (rate(container_cpu_usage_seconds_total[5m]))", "none"),
    ("Memory", "sum by(name) (container_memory_working_set_bytes)", "bytes"),
    ("Received", "sum by(name) (rate(container_network_receive_bytes_total[5m]))", "Bps"),
    ("Sent", "sum by(name) (rate(container_network_transmit_bytes_total[5m]))", "Bps"),
    ("Volumes", "pystack_volume_used_bytes", "bytes"),
    ("Disk that is free", "pystack_disk_free_bytes / pystack_disk_size_bytes", "percentunit"),
    ("Questions of DNS", "sum by(outcome) (rate(pystack_dns_queries_total[5m]))", "reqps"),
    ("Connections", "node_nf_conntrack_entries", "none"),
    ("Endpoints on other nodes", "sum by(network) (pystack_network_fdb_entries)", "none"),
    (
        "Steps towards the manifest, the slowest of twenty",
        "histogram_quantile(0.95, sum by(le, step) (rate(pystack_reconcile_seconds_bucket[5m])))",
        "s",
    ),
    ("The store, the slowest of twenty", f"histogram_quantile(0.95, {OF_STORE})", "s"),
    ("Requests", "sum by(host, code) (rate(pystack_ingress_requests_total[5m]))", "reqps"),
    ("Days until certificates end", "(pystack_certificate_expiry_timestamp_seconds - time()) / 86400", "d"),
)
"""Title, expression and Grafana's unit of each panel."""


def alerts() -> dict[str, Any]:
    """The rule file."""
    rules = [
        {
            "alert": one.name,
            "expr": one.expression,
            "for": one.after,
            "labels": {"severity": one.severity},
            "annotations": {"summary": one.summary},
        }
        for one in ALERTS
    ]
    return {"groups": [{"name": "pystack", "rules": rules}]}


def dashboard() -> dict[str, Any]:
    """A dashboard with all PANELS, two in a row."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": number % 2 * 12, "y": number // 2 * 8},
            "targets": [{"refId": "A", "expr": expression, "datasource": source}],
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        }
        for number, (title, expression, unit) in enumerate(PANELS)
    ]
    chosen = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
    return {
        "title": "pystack",
        "uid": "pystack",
        "schemaVersion": 38,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [chosen]},
        "panels": panels,
    }
