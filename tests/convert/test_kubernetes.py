"""Kubernetes manifests: what they say becomes services, and what cannot is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.convert.document import Document
from orchestrator.convert.kubernetes import convert
from orchestrator.stackfile.load import Loaded, Options, load

SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {disk: ssd, kubernetes.io/hostname: n1}
      terminationGracePeriodSeconds: 30
      serviceAccountName: robot
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 5}
      initContainers:
      - {name: migrate, image: "app:1", command: [migrate]}
      containers:
      - name: app
        image: app:1
        args: ["--port=$(PORT)", "$HOME", "$$(PORT) $(OTHER)"]
        env:
        - {name: PORT, value: "8080"}
        - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        envFrom: [{configMapRef: {name: settings}, prefix: S_}]
        ports: [{containerPort: 8080, name: http}]
        resources: {limits: {cpu: 500m, memory: 128Mi}, requests: {cpu: "1", memory: 64M}}
        readinessProbe: {httpGet: {path: /ok, port: http}, initialDelaySeconds: 5, periodSeconds: 3}
        volumeMounts:
        - {name: files, mountPath: /etc/app}
        - {name: files, mountPath: /etc/one.conf, subPath: app.conf}
        - {name: keys, mountPath: /keys}
        - {name: data, mountPath: /data, readOnly: true}
        - {name: scratch, mountPath: /tmp/x}
        - {name: host, mountPath: /var/log}
        securityContext:
          allowPrivilegeEscalation: false
          seLinuxOptions: {level: 's0:c1,c2'}
          capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
        lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 5"]}}}
      - {name: side, image: "side:2", resizePolicy: []}
      volumes:
      - {name: files, configMap: {name: settings, items: [{key: app.conf, path: app.conf}]}}
      - {name: keys, secret: {secretName: db}}
      - {name: data, persistentVolumeClaim: {claimName: pictures}}
      - {name: scratch, emptyDir: {medium: Memory}}
      - {name: host, hostPath: {path: /var/log}}
---
apiVersion: v1
kind: Service
metadata: {name: frontend}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {mode: fast, app.conf: "price=$5\\nname=x\\n"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: db}, data: {password: aHVudGVyMg==}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: pictures}, spec: {accessModes: [ReadWriteMany]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: way-in}}
"""


def converted(text: str) -> Document:
    document = Document()
    convert(list(yaml.safe_load_all(text)), document)
    return document


def loaded(document: Document, folder: Path) -> Loaded:
    (folder / "stack.yml").write_text(yaml.safe_dump(document.plain(), sort_keys=False))
    return load(Options(files=(str(folder / "stack.yml"),), project_name="p"), {"DB_PASSWORD": "x"})


def test_a_deployment_with_all_about_it(tmp_path: Path) -> None:
    document = converted(SHOP)
    assert list(document.services) == ["web-migrate", "web", "web-side"]
    web: dict[str, Any] = document.services["web"]
    assert web["depends_on"] == {"web-migrate": {"condition": "service_completed_successfully"}}
    assert web["command"] == ["--port=8080", "$$HOME", "$$(PORT) $$(OTHER)"]
    assert web["environment"] == {
        "S_mode": "fast",
        "S_app.conf": "price=$$5\nname=x\n",
        "PORT": "8080",
        "MODE": "fast",
        "PASSWORD": "${DB_PASSWORD:?key password of Secret db}",
    }
    assert web["deploy"]["replicas"] == 3
    assert web["deploy"]["placement"]["constraints"] == ["node.labels.disk == ssd", "node.hostname == n1"]
    assert web["deploy"]["resources"] == {
        "limits": {"cpus": "0.5", "memory": "128m"},
        "reservations": {"cpus": "1.0", "memory": "64000000"},
    }
    assert web["healthcheck"] == {
        "test": "wget -q -O /dev/null http://127.0.0.1:8080/ok",
        "interval": "3s",
        "timeout": "1s",
        "retries": 3,
        "start_period": "5s",
    }
    assert web["configs"] == [
        {"source": "settings-app.conf", "target": "/etc/app/app.conf"},
        {"source": "settings-app.conf", "target": "/etc/one.conf"},
    ]
    assert web["secrets"] == [{"source": "db-password", "target": "/keys/password"}]
    assert web["volumes"] == [
        {"type": "volume", "source": "pictures", "target": "/data", "read_only": True},
        {"type": "tmpfs", "target": "/tmp/x"},
        {"type": "bind", "source": "/var/log", "target": "/var/log"},
    ]
    assert (web["user"], web["cap_drop"], web["cap_add"]) == ("1000:1000", ["ALL"], ["NET_BIND_SERVICE"])
    assert web["security_opt"] == ["no-new-privileges:true", "label=level:s0:c1,c2"]
    assert (web["stop_grace_period"], web["restart"], web["ports"]) == ("30s", "always", ["80:8080"])
    assert web["networks"] == {"default": {"aliases": ["frontend"]}}
    assert document.services["web-side"]["network_mode"] == "service:web"
    assert document.configs == {"settings-app.conf": {"content": "price=$$5\nname=x\n"}}
    assert document.volumes == {"pictures": {"driver": "sshfs"}}
    stack = loaded(document, tmp_path).stack
    assert next(s for s in stack.services if s.name == "web").replicas == 3
    said = "\n".join(document.warnings)
    for word in (
        "serviceAccount robot",
        "fsGroup",
        "POD comes from fieldRef",
        "Ingress way-in",
        "resizePolicy",
        "pystack secret create db-password",
        "set DB_PASSWORD",
    ):
        assert word in said
    assert "hunter2" not in yaml.safe_dump(document.plain()) + said
    assert "aHVudGVyMg" not in yaml.safe_dump(document.plain()) + said


@pytest.mark.parametrize(
    ("kind", "spec", "want"),
    [
        (
            "StatefulSet",
            "{replicas: 1, volumeClaimTemplates: [{metadata: {name: data}}], template: {spec: {containers: "
            "[{name: a, image: i, volumeMounts: [{name: data, mountPath: /d}]}]}}}",
            {"volumes": [{"type": "volume", "source": "data", "target": "/d"}]},
        ),
        (
            "DaemonSet",
            "{template: {spec: {hostNetwork: true, containers: [{name: a, image: i}]}}}",
            {"deploy": {"mode": "global"}, "network_mode": "host"},
        ),
        (
            "Job",
            "{completions: 2, template: {spec: {restartPolicy: OnFailure, containers: [{name: a, image: i}]}}}",
            {"deploy": {"mode": "replicated-job", "replicas": 2}, "restart": "on-failure"},
        ),
        (
            "CronJob",
            "{schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: "
            "[{name: a, image: i}]}}}}}",
            {"x-schedule": {"cron": "* * * * *", "concurrency": "allow"}, "restart": "no"},
        ),
        (
            "Pod",
            "{containers: [{name: a, image: i, livenessProbe: {exec: {command: [ok]}}, "
            "ports: [{containerPort: 1, hostPort: 2}]}]}",
            {"ports": ["2:1"], "expose": ["1"]},
        ),
    ],
)
def test_the_common_kinds(kind: str, spec: str, want: dict[str, Any], tmp_path: Path) -> None:
    document = converted(f"kind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n")
    one = document.services["one"]
    assert {k: one.get(k) for k in want} == want
    loaded(document, tmp_path)


def test_a_list_and_a_headless_service(tmp_path: Path) -> None:
    document = converted("""
kind: List
items:
- {kind: Pod, metadata: {name: db, labels: {app: db}}, spec: {containers: [{name: a, image: i}]}}
- {kind: Service, metadata: {name: db}, spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}}
- {kind: Service, metadata: {name: other}, spec: {selector: {app: none}, ports: [{port: 1}]}}
""")
    assert document.services["db"]["deploy"] == {"endpoint_mode": "dnsrr"}
    assert "networks" not in document.services["db"]
    loaded(document, tmp_path)


ODD = """
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  suspend: true
  timeZone: Europe/Berlin
  startingDeadlineSeconds: 60
  concurrencyPolicy: Forbid
  jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: a}]}}}}
---
kind: Pod
metadata: {name: tool}
spec:
  hostPID: true
  hostname: tooth
  priorityClassName: high
  dnsConfig: {nameservers: [10.0.0.1], searches: [a.example]}
  hostAliases: [{ip: 10.0.0.2, hostnames: [one, two]}]
  imagePullSecrets: [{name: pull}]
  securityContext: {sysctls: [{name: net.core.somaxconn, value: 512}], supplementalGroups: [7]}
  containers:
  - name: a
    image: a
    imagePullPolicy: Always
    tty: true
    workingDir: /w
    envFrom: [{secretRef: {name: known, }, prefix: K_}, {secretRef: {name: gone}}, {configMapRef: {name: gone}}]
    livenessProbe: {tcpSocket: {port: 80}}
    lifecycle: {postStart: {httpGet: {path: /}}}
    securityContext: {privileged: true, readOnlyRootFilesystem: true}
    volumeMounts: [{name: odd, mountPath: /o}, {name: none, mountPath: /n}, {name: lost, mountPath: /l}]
  - {name: b, image: b, imagePullPolicy: IfNotPresent, livenessProbe: {grpc: {port: 1}}}
  volumes: [{name: odd, flexVolume: {}}, {name: lost, configMap: {name: gone}}]
---
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  template: {spec: {containers: [{name: db, image: db, volumeMounts: [{name: data, mountPath: /d, subPath: in}]}]}}
  volumeClaimTemplates: [{metadata: {name: data}}]
---
kind: Secret
metadata: {name: known}
stringData: {token: hunter2}
---
kind: PersistentVolumeClaim
metadata: {name: unused}
spec: {}
"""


def test_less_usual_fields_have_their_counterparts_or_a_warning() -> None:
    document = Document()
    convert(yaml.safe_load_all(ODD), document)
    nightly, tool, db = (document.services[n] for n in ("nightly", "tool", "db"))
    schedule = {"cron": "0 3 * * *", "concurrency": "forbid", "timezone": "Europe/Berlin", "deadline": "60s"}
    assert nightly["x-schedule"] == schedule
    assert (tool["pid"], tool["hostname"], tool["pull_policy"], tool["tty"], tool["working_dir"]) == (
        "host",
        "tooth",
        "always",
        True,
        "/w",
    )
    assert (tool["dns"], tool["dns_search"], tool["extra_hosts"]) == (
        ["10.0.0.1"],
        ["a.example"],
        ["one=10.0.0.2", "two=10.0.0.2"],
    )
    assert (tool["sysctls"], tool["group_add"]) == ({"net.core.somaxconn": "512"}, ["7"])
    assert (tool["privileged"], tool["read_only"]) == (True, True)
    assert tool["healthcheck"]["test"] == "nc -z 127.0.0.1 80"
    assert set(tool["environment"]) == {"K_token"}
    assert document.services["tool-b"]["pull_policy"] == "missing"
    assert db["volumes"] == [{"type": "volume", "source": "data", "target": "/d", "volume": {"subpath": "in"}}]
    assert {"unused", "data"} <= document.volumes.keys()
    said = "\n".join(document.warnings)
    for word in (
        "CronJob nightly: it is suspended",
        "priorityClassName has no counterpart",
        "imagePullSecrets",
        "Secret gone is not among the manifests",
        "ConfigMap gone is not among the manifests",
        "its tcpSocket probe became nc",
        "a grpc probe has no counterpart",
        "postStart is not a command",
        "volume odd is flexVolume, which has no counterpart",
        "its replicas share volume data",
    ):
        assert word in said, said
    assert "hunter2" not in yaml.safe_dump(document.plain()) + said
