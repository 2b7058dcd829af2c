"""Converts Kubernetes manifests to services: Deployment, StatefulSet, DaemonSet, Job, CronJob, Pod, Service, ConfigMap, Secret,
PersistentVolumeClaim. Every other kind, and every field without a counterpart, gets a warning.

Source: Kubernetes API reference, core/v1, apps/v1, batch/v1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.convert.document import Document, escape_dollars

Body = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod", "ReplicaSet")
KNOWN_POD = {
    "containers",
    "initContainers",
    "volumes",
    "restartPolicy",
    "nodeSelector",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostname",
    "terminationGracePeriodSeconds",
    "securityContext",
    "dnsConfig",
    "hostAliases",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "imagePullSecrets",
    "schedulerName",
    "dnsPolicy",
}
KNOWN_CONTAINER = {
    "name",
    "image",
    "command",
    "args",
    "env",
    "envFrom",
    "ports",
    "resources",
    "volumeMounts",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "workingDir",
    "tty",
    "stdin",
    "imagePullPolicy",
    "securityContext",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
}


class Manifests:
    """All objects of a conversion, by kind and name; *document* is what they become."""

    def __init__(self, objects: Iterable[Any], document: Document) -> None:
        self.document = document
        self.by_kind: dict[str, dict[str, Body]] = {}
        for one in _unfolded(objects):
            kind, name = str(one.get("kind")), str((one.get("metadata") or {}).get("name", ""))
            self.by_kind.setdefault(kind, {})[name] = one

    def of(self, kind: str) -> dict[str, Body]:
        """The objects of *kind* by name."""
        return self.by_kind.get(kind, {})


def convert(objects: Iterable[Any], document: Document) -> None:
    """Convert *objects*, parsed manifests, into *document*."""
    all_ = Manifests(objects, document)
    for kind in WORKLOADS:
        for name, one in all_.of(kind).items():
            _workload(all_, kind, name, one)
    for name, claim in all_.of("PersistentVolumeClaim").items():
        if name not in document.volumes:
            document.volumes[name] = {}
        if "ReadWriteMany" in ((claim.get("spec") or {}).get("accessModes") or ()):
            document.volumes[name] = {"driver": "sshfs"}
            document.warn(f"PersistentVolumeClaim {name} is written by many nodes: driver sshfs; nfs may suit better")
    taken = {*WORKLOADS, "Service", "ConfigMap", "Secret", "PersistentVolumeClaim"}
    for kind in sorted(all_.by_kind.keys() - taken):
        document.warn(f"{kind} {', '.join(sorted(all_.of(kind)))}: has no counterpart")


def _unfolded(objects: Iterable[Any]) -> Iterable[Body]:
    for one in objects:
        if isinstance(one, dict) and one.get("kind") == "List":
            yield from _unfolded(one.get("items") or ())
        elif isinstance(one, dict) and one.get("kind"):
            yield one


def _workload(all_: Manifests, kind: str, name: str, one: Body) -> None:
    document, spec = all_.document, one.get("spec") or {}
    cron = spec if kind == "CronJob" else {}
    if cron:
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = {"metadata": one.get("metadata"), "spec": spec} if kind == "Pod" else spec.get("template") or {}
    pod, labels = template.get("spec") or {}, (template.get("metadata") or {}).get("labels") or {}
    for rest in sorted(pod.keys() - KNOWN_POD):
        document.warn(f"{kind} {name}: {rest} has no counterpart")
    first = document.unique_service_name(name)
    deploy = _deploy(kind, spec, pod)
    waits: Body = {}
    for number, container in enumerate(pod.get("initContainers") or ()):
        own = document.unique_service_name(f"{first}-{container.get('name', f'init{number}')}")
        body = _container(all_, f"{kind} {name}", container, pod)
        body |= {"restart": "no", **({"depends_on": dict(waits)} if waits else {})}
        document.services[own] = body
        waits[own] = {"condition": "service_completed_successfully"}
    for number, container in enumerate(pod.get("containers") or ()):
        own = first if not number else document.unique_service_name(f"{first}-{container.get('name', number)}")
        body = _container(all_, f"{kind} {name}", container, pod)
        if waits:
            body["depends_on"] = dict(waits)
        if number:  # containers of a pod share its network
            body["network_mode"] = f"service:{first}"
            body.pop("expose", None)
            if int(deploy.get("replicas", 1)) > 1 or deploy.get("mode") == "global":
                document.warn(f"{kind} {name}: {own} shares the network of {first}, which has several replicas")
        else:
            body |= {k: v for k, v in _pod(document, f"{kind} {name}", pod).items() if k not in body}
        if deploy:
            body["deploy"] = {**deploy, **body.get("deploy", {})}
        body["restart"] = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}.get(
            pod.get("restartPolicy", "Always" if kind not in ("Job", "CronJob") else "Never"), "always"
        )
        if cron:
            body["x-schedule"] = _schedule(document, name, cron)
        document.services[own] = body
    for claim in spec.get("volumeClaimTemplates") or ():
        document.volumes[claim["metadata"]["name"]] = {}
        if int(deploy.get("replicas", 1)) > 1:
            document.warn(f"{kind} {name}: its replicas share volume {claim['metadata']['name']} here, and so one node")
    _services(all_, labels, first)


def _schedule(document: Document, name: str, spec: Body) -> Body:
    """`x-schedule` of a CronJob. Source: Kubernetes API, CronJobSpec."""
    if spec.get("suspend"):
        document.warn(f"CronJob {name}: it is suspended: `pystack cron pause {name}` does that here")
    out: Body = {"cron": spec.get("schedule", ""), "concurrency": str(spec.get("concurrencyPolicy", "Allow")).lower()}
    if zone := spec.get("timeZone"):
        out["timezone"] = zone
    if deadline := spec.get("startingDeadlineSeconds"):
        out["deadline"] = f"{deadline}s"
    return out


def _deploy(kind: str, spec: Body, pod: Body) -> Body:
    out: Body = {}
    if kind == "DaemonSet":
        out["mode"] = "global"
    elif kind in ("Job", "CronJob"):
        out["mode"] = "replicated-job"
        if int(spec.get("completions") or 1) > 1:
            out["replicas"] = int(spec["completions"])
    elif int(spec.get("replicas", 1)) != 1:
        out["replicas"] = int(spec["replicas"])
    if selector := pod.get("nodeSelector"):
        names = {
            "kubernetes.io/hostname": "node.hostname",
            "kubernetes.io/arch": "node.platform.arch",
            "kubernetes.io/os": "node.platform.os",
        }
        out["placement"] = {"constraints": [f"{names.get(k, f'node.labels.{k}')} == {v}" for k, v in selector.items()]}
    return out


def _pod(document: Document, where: str, pod: Body) -> Body:
    out: Body = {}
    if pod.get("hostNetwork"):
        out["network_mode"] = "host"
    for key, ours in (("hostPID", "pid"), ("hostIPC", "ipc")):
        if pod.get(key):
            out[ours] = "host"
    if pod.get("hostname"):
        out["hostname"] = pod["hostname"]
    if pod.get("terminationGracePeriodSeconds") is not None:
        out["stop_grace_period"] = f"{pod['terminationGracePeriodSeconds']}s"
    if config := pod.get("dnsConfig"):
        out |= {
            ours: list(config[theirs])
            for theirs, ours in (("nameservers", "dns"), ("searches", "dns_search"))
            if config.get(theirs)
        }
    if hosts := pod.get("hostAliases"):
        out["extra_hosts"] = [f"{n}={h['ip']}" for h in hosts for n in h.get("hostnames") or ()]
    if account := pod.get("serviceAccountName") or pod.get("serviceAccount"):
        document.warn(f"{where}: serviceAccount {account} has no counterpart: there is no API server to ask")
    if pod.get("imagePullSecrets"):
        document.warn(f"{where}: imagePullSecrets: `docker login` on the server's host is what pulls use")
    return out


def _container(all_: Manifests, where: str, container: Body, pod: Body) -> Body:
    document = all_.document
    where = f"{where}, container {container.get('name', '')}"
    for rest in sorted(container.keys() - KNOWN_CONTAINER):
        document.warn(f"{where}: {rest} has no counterpart")
    out: Body = {"image": escape_dollars(str(container.get("image", "")))}
    environment = _environment(all_, where, container)
    for theirs, ours in (("command", "entrypoint"), ("args", "command")):
        if theirs in container:
            out[ours] = [_expanded(str(w), environment) for w in container[theirs]]
    for theirs, ours in (("workingDir", "working_dir"), ("tty", "tty"), ("stdin", "stdin_open")):
        if container.get(theirs):
            out[ours] = container[theirs]
    if policy := container.get("imagePullPolicy"):
        out["pull_policy"] = {"Always": "always", "Never": "never"}.get(policy, "missing")
    if environment:
        out["environment"] = environment
    if ports := [str(p["containerPort"]) for p in container.get("ports") or ()]:
        out["expose"] = ports
    if published := [f"{p['hostPort']}:{p['containerPort']}" for p in container.get("ports") or () if p.get("hostPort")]:
        out["ports"] = published
    _resources(out, container.get("resources") or {})
    _mounts(all_, where, out, container, pod)
    _security(document, where, out, {**(pod.get("securityContext") or {}), **(container.get("securityContext") or {})})
    _health(document, where, out, container)
    _hooks(document, where, out, container.get("lifecycle") or {})
    return out


def _hooks(document: Document, where: str, out: Body, lifecycle: Body) -> None:
    for theirs, ours in (("postStart", "post_start"), ("preStop", "pre_stop")):
        hook = lifecycle.get(theirs)
        if hook and "exec" in hook:
            out[ours] = [{"command": [escape_dollars(w) for w in hook["exec"]["command"]]}]
        elif hook:
            document.warn(f"{where}: {theirs} is not a command: it has no counterpart")


def _expanded(word: str, environment: Mapping[str, Any]) -> str:
    """Kubernetes replaces $(NAME) by the variable, if it exists; $$(NAME) stands for $(NAME)."""

    def value(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return escape_dollars(match[0][1:])
        return str(environment[match[1]]) if match[1] in environment else escape_dollars(match[0])

    parts = re.split(r"(\$?\$\(\w+\))", word)
    return "".join(re.sub(r"\$?\$\((\w+)\)", value, p) if n % 2 else escape_dollars(p) for n, p in enumerate(parts))


def _environment(all_: Manifests, where: str, container: Body) -> Body:
    document = all_.document
    out: Body = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        if reference := source.get("configMapRef"):
            data = _data(all_, "ConfigMap", reference["name"], where)
            out |= {prefix + k: escape_dollars(v) for k, v in data.items()}
        if reference := source.get("secretRef"):
            keys = all_.of("Secret").get(reference["name"]) or {}
            names = [*(keys.get("data") or {}), *(keys.get("stringData") or {})]
            out |= {prefix + k: _variable(document, reference["name"], k) for k in names}
            if not names:
                document.warn(f"{where}: Secret {reference['name']} is not among the manifests")
    for entry in container.get("env") or ():
        name, source = entry["name"], entry.get("valueFrom") or {}
        if "configMapKeyRef" in source:
            key = source["configMapKeyRef"]
            out[name] = escape_dollars(_data(all_, "ConfigMap", key["name"], where).get(key["key"], ""))
        elif "secretKeyRef" in source:
            out[name] = _variable(document, source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
        elif source:
            document.warn(f"{where}: env {name} comes from {', '.join(source)}, which has no counterpart")
        else:
            out[name] = _expanded(str(entry.get("value", "")), out)
    return out


def _variable(document: Document, secret: str, key: str) -> str:
    """A variable that must be set for `up`: the content of a secret does not belong in a stack file."""
    name = re.sub(r"\W", "_", f"{secret}_{key}").upper()
    document.warn(f"set {name} for `pystack up`: it is key {key} of Secret {secret}")
    return f"${{{name}:?key {key} of Secret {secret}}}"


def _data(all_: Manifests, kind: str, name: str, where: str) -> Mapping[str, str]:
    found = all_.of(kind).get(name)
    if found is None:
        all_.document.warn(f"{where}: {kind} {name} is not among the manifests")
        return {}
    return {k: str(v) for k, v in (found.get("data") or {}).items()}


def _resources(out: Body, resources: Body) -> None:
    wanted: Body = {}
    for theirs, ours in (("limits", "limits"), ("requests", "reservations")):
        found: Body = {}
        for key, value in (resources.get(theirs) or {}).items():
            if key == "cpu":
                text = str(value)
                found["cpus"] = str(int(text[:-1]) / 1000 if text.endswith("m") else float(text))
            elif key == "memory":
                found["memory"] = _bytes(str(value))
        if found:
            wanted[ours] = found
    if wanted:
        out["deploy"] = {"resources": wanted}


def _bytes(text: str) -> str:
    """Mi and Gi are powers of 1024, as m and g are here; M and G are powers of 1000."""
    match = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|k|M|G)?", text)
    if not match:
        return text
    factor = {"k": 1000, "M": 10**6, "G": 10**9}.get(match[2] or "")
    if factor:
        return str(int(float(match[1]) * factor))
    return match[1] + {"Ki": "k", "Mi": "m", "Gi": "g"}.get(match[2] or "", "")


def _mounts(all_: Manifests, where: str, out: Body, container: Body, pod: Body) -> None:
    document = all_.document
    sources = {v["name"]: v for v in pod.get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        name, target = mount["name"], mount["mountPath"]
        source = sources.get(name, {"claim": name})
        entry: Body | None = {"type": "volume", "source": name, "target": target}
        assert entry is not None
        if mount.get("subPath") and not ({"configMap", "secret"} & source.keys()):
            entry["volume"] = {"subpath": mount["subPath"]}
        if mount.get("readOnly"):
            entry["read_only"] = True
        if "configMap" in source or "secret" in source:
            _files(all_, where, out, source, mount)
            continue
        if "hostPath" in source:
            entry |= {"type": "bind", "source": source["hostPath"]["path"]}
        elif "persistentVolumeClaim" in source:
            entry["source"] = source["persistentVolumeClaim"]["claimName"]
            document.volumes.setdefault(entry["source"], {})
        elif "nfs" in source:
            document.volumes[name] = {
                "driver": "nfs",
                "driver_opts": {"server": source["nfs"]["server"], "path": source["nfs"]["path"]},
            }
        elif "emptyDir" in source:
            if (source["emptyDir"] or {}).get("medium") == "Memory":
                entry = {"type": "tmpfs", "target": target}
            else:
                document.volumes.setdefault(name, {})
        elif "claim" in source:
            document.volumes.setdefault(name, {})
        else:
            document.warn(f"{where}: volume {name} is {', '.join(source.keys() - {'name'})}, which has no counterpart")
            continue
        out.setdefault("volumes", []).append(entry)


def _files(all_: Manifests, where: str, out: Body, source: Body, mount: Body) -> None:
    """The keys of a ConfigMap or Secret, each a file."""
    document, secret = all_.document, "secret" in source
    body = source["secret"] if secret else source["configMap"]
    kind, name = ("Secret", body.get("secretName")) if secret else ("ConfigMap", body.get("name"))
    found = all_.of(kind).get(str(name)) or {}
    data = {**(found.get("data") or {}), **(found.get("stringData") or {})}
    if not data:
        document.warn(f"{where}: {kind} {name} is not among the manifests")
    items = {i["key"]: i["path"] for i in body.get("items") or ()} or {k: k for k in data}
    for key, path in items.items():
        if mount.get("subPath") and mount["subPath"] != path:
            continue
        target = mount["mountPath"] if mount.get("subPath") else f"{mount['mountPath'].rstrip('/')}/{path}"
        handle = re.sub(r"[^a-zA-Z0-9._-]+", "-", f"{name}-{key}")
        if secret:
            document.secrets[handle] = {"external": True}
            document.warn(f"make secret {handle}: `pystack secret create {handle}` with key {key} of Secret {name}")
        else:
            document.configs[handle] = {"content": escape_dollars(str(data.get(key, "")))}
        out.setdefault("secrets" if secret else "configs", []).append({"source": handle, "target": target})


def _security(document: Document, where: str, out: Body, context: Body) -> None:
    if context.get("runAsUser") is not None:
        out["user"] = f"{context['runAsUser']}" + (f":{context['runAsGroup']}" if context.get("runAsGroup") is not None else "")
    for theirs, ours in (("privileged", "privileged"), ("readOnlyRootFilesystem", "read_only")):
        if context.get(theirs):
            out[ours] = True
    if context.get("allowPrivilegeEscalation") is False:
        out.setdefault("security_opt", []).append("no-new-privileges:true")
    for theirs, ours in (("add", "cap_add"), ("drop", "cap_drop")):
        if found := (context.get("capabilities") or {}).get(theirs):
            out[ours] = list(found)
    if sysctls := context.get("sysctls"):
        out["sysctls"] = {s["name"]: str(s["value"]) for s in sysctls}
    if groups := context.get("supplementalGroups"):
        out["group_add"] = [str(g) for g in groups]
    for part, value in (context.get("seLinuxOptions") or {}).items():
        out.setdefault("security_opt", []).append(f"label={part}:{value}")
    for rest in sorted(context.keys() & {"fsGroup", "seccompProfile", "runAsNonRoot", "fsGroupChangePolicy"}):
        document.warn(f"{where}: securityContext.{rest} has no counterpart")


def _health(document: Document, where: str, out: Body, container: Body) -> None:
    probe = container.get("readinessProbe") or container.get("livenessProbe") or container.get("startupProbe")
    if not probe:
        return
    check: Body = {}
    if "exec" in probe:
        check["test"] = ["CMD", *(escape_dollars(w) for w in probe["exec"]["command"])]
    elif http := probe.get("httpGet"):
        port = _port(container, http.get("port", 80))
        scheme = str(http.get("scheme", "http")).lower()
        check["test"] = f"wget -q -O /dev/null {scheme}://127.0.0.1:{port}{http.get('path', '/')}"
        document.warn(f"{where}: its httpGet probe became wget in the container: the image must have that")
    elif tcp := probe.get("tcpSocket"):
        check["test"] = f"nc -z 127.0.0.1 {_port(container, tcp.get('port'))}"
        document.warn(f"{where}: its tcpSocket probe became nc in the container: the image must have that")
    else:
        return document.warn(f"{where}: a {', '.join(probe)} probe has no counterpart")
    for theirs, ours, least in (("periodSeconds", "interval", 10), ("timeoutSeconds", "timeout", 1)):
        check[ours] = f"{probe.get(theirs, least)}s"
    check["retries"] = int(probe.get("failureThreshold", 3))
    if probe.get("initialDelaySeconds"):
        check["start_period"] = f"{probe['initialDelaySeconds']}s"
    out["healthcheck"] = check


def _port(container: Body, port: Any) -> Any:
    return next((p["containerPort"] for p in container.get("ports") or () if p.get("name") == port), port)


def _services(all_: Manifests, labels: Mapping[str, Any], service: str) -> None:
    """Kubernetes Services that choose these pods: names for them, and published ports."""
    document = all_.document
    body = document.services[service]
    for name, one in all_.of("Service").items():
        spec = one.get("spec") or {}
        selector = spec.get("selector") or {}
        if not selector or any(labels.get(k) != v for k, v in selector.items()):
            continue
        if "network_mode" not in body:
            if name != service:
                aliases = body.setdefault("networks", {}).setdefault("default", {}).setdefault("aliases", [])
                aliases.append(name)
            mode = "dnsrr" if spec.get("clusterIP") == "None" else "vip"
            body.setdefault("deploy", {})["endpoint_mode"] = mode
        for port in spec.get("ports") or ():
            target = _port(
                {"ports": [p for c in _containers(all_, service) for p in c.get("ports") or ()]},
                port.get("targetPort", port["port"]),
            )
            kind = spec.get("type", "ClusterIP")
            if kind in ("NodePort", "LoadBalancer"):
                outer = port.get("nodePort", "") if kind == "NodePort" else port["port"]
                protocol = f"/{port['protocol'].lower()}" if port.get("protocol", "TCP") != "TCP" else ""
                body.setdefault("ports", []).append(f"{outer}:{target}{protocol}" if outer else f"{target}{protocol}")
            elif str(target) != str(port["port"]):
                document.warn(f"Service {name}: port {port['port']} leads to {target} there; here callers use {target} itself")


def _containers(all_: Manifests, service: str) -> list[Body]:
    for kind in WORKLOADS:
        if one := all_.of(kind).get(service):
            spec = one.get("spec") or {}
            spec = (spec.get("jobTemplate") or {}).get("spec") or spec
            pod = spec if kind == "Pod" else (spec.get("template") or {}).get("spec") or {}
            return list(pod.get("containers") or ())
    return []
