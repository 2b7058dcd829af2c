"""The commands by what they are for: `--help`, the man pages and the reference show them so."""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "Run a stack": (
        *("up", "deploy", "down", "plan", "apply", "watch", "scale", "create", "start", "stop", "restart", "kill"),
        *("pause", "unpause", "wait", "rm", "history", "rollback", "job", "cron"),
    ),
    "Look": ("ps", "ls", "logs", "events", "top", "stats", "images", "volumes", "port", "why", "why-not"),
    "Go inside": ("exec", "run", "attach", "cp", "port-forward", "export", "commit"),
    "Files": ("config", "graph", "check", "convert", "schema", "compose", "lock", "audit", "harden", "profile"),
    "Images": ("build", "pull", "push", "publish", "image"),
    "Single things": ("container", "network", "volume", "secret", "configs"),
    "Hosts and the cluster": (
        "node",
        "doctor",
        "rebalance",
        "gitops",
        "monitoring",
        "notify",
        "cluster",
        "store",
        "server",
        "agent",
        "lab",
    ),
    "Who may, and the page": ("ui", "user", "token", "audit-log"),
    "pystack itself": ("system", "version", "completion", "help"),
}
OTHERS = "More"
"""The group of a command that no other has."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("pystack plan", "pystack up", "pystack ps", "pystack help states"),
    "up": ("pystack up", "pystack -f stack.yml up --build web", "pystack up --scale web=3 --remove-orphans"),
    "deploy": ("pystack deploy", "pystack deploy -m 'the new prices'"),
    "down": ("pystack down", "pystack down -v"),
    "plan": ("pystack plan", "pystack plan -o next.plan", "pystack plan --exit-code --json"),
    "apply": ("pystack apply next.plan",),
    "watch": ("pystack watch",),
    "scale": ("pystack scale web=5",),
    "ps": ("pystack ps", "pystack ps --format json", "pystack ps --format '{{.task}} {{.node}} {{.state}}'"),
    "ls": ("pystack ls", "pystack ls --format 'table {{.stack}}\\t{{.running}}'"),
    "logs": ("pystack logs -f web", "pystack logs --tail 20 --since 10m"),
    "exec": ("pystack exec web sh", "pystack exec -T db pg_dump shop"),
    "run": ("pystack run --rm web sh",),
    "cp": ("pystack cp web:/etc/nginx/nginx.conf .", "pystack cp page.html web:/www/"),
    "port-forward": ("pystack port-forward db 5432",),
    "why": ("pystack why web-1",),
    "why-not": ("pystack why-not db n3",),
    "config": ("pystack config", "pystack config --services"),
    "graph": ("pystack graph", "pystack graph -o stack.svg", "pystack graph --format dot --nodes"),
    "check": ("pystack check docker-compose.yml",),
    "audit": ("pystack audit", "pystack audit --cluster", "pystack audit --format sarif --fail-on warning"),
    "harden": ("pystack harden web", "pystack harden db --test 'pg_isready -h 127.0.0.1'"),
    "profile record": ("pystack profile record web --for 1m --test 'wget -qO /dev/null http://127.0.0.1/'",),
    "convert run": ("pystack convert run docker run -d -p 80:80 nginx",),
    "build": ("pystack build", "pystack build --no-cache web"),
    "image load": ("pystack image load -i images.tar",),
    "image ls": ("pystack image ls --format '{{.name}} {{.size}}'",),
    "container run": ("pystack container run -d --name web -p 8080:80 nginx",),
    "node add": ("pystack node add root@10.0.0.2 root@10.0.0.3 --label zone=b",),
    "node ls": ("pystack node ls", "pystack node ls --format '{{.name}} {{.state}}'"),
    "node upgrade": ("pystack node upgrade n2", "pystack node upgrade --all"),
    "node drain": ("pystack node drain n3",),
    "volume move": ("pystack volume move shop_db n2",),
    "secret create": ("pystack secret create db_password password.txt",),
    "doctor": ("pystack doctor", "pystack doctor --repair", "pystack doctor --host root@10.0.0.2"),
    "gitops add": ("pystack gitops add https://git.example.org/infra.git --path prod",),
    "lab up": ("pystack lab up --nodes 3", "pystack lab up --servers 3 --store etcd"),
    "store backup": ("pystack store backup backup.json",),
    "store recover": ("pystack store recover --force-new",),
    "server init": ("pystack server init --advertise root@10.0.0.1",),
    "server join": ("pystack server join root@10.0.0.1 --advertise root@10.0.0.2",),
    "cluster backup": ("pystack cluster backup cluster.backup",),
    "cluster restore": ("pystack cluster restore cluster.backup --node n2=root@10.0.0.12",),
    "volume restore": ("pystack volume restore shop_data --as shop_old", "pystack volume restore shop_data 1a2b3c4d --stop"),
    "ui": ("pystack ui", "pystack ui --port 8080 --no-open"),
    "user create": ("pystack user create ada --role operator --stack 'shop-*'",),
    "token create": ("pystack token create ci --role operator --stack shop --days 90",),
    "notify test": ("pystack notify test",),
    "audit-log": ("pystack audit-log", "pystack audit-log --stack shop --format json"),
    "completion": ("pystack completion bash > /etc/bash_completion.d/pystack",),
    "help": ("pystack help states", "pystack help up"),
}
"""Lines by command; each is tried by a test."""


def group_of(command: str) -> str:
    """The group of a top-level *command*."""
    return next((group for group, names in GROUPS.items() if command in names), OTHERS)
