"""Five stacks that a user of Docker Compose 1.29 builds, brings up, looks into, changes and takes down."""

from __future__ import annotations

COUNTER = """
version: "3.7"
services:
  web:
    build: {context: web, args: {GREETING: hello}}
    command: sh -c "while :; do nc -l -p 8000 -e cat /index; done"
    depends_on: [store]
    environment: {STORE: store}
    ports: ["127.0.0.1:18821:8000"]
    stop_grace_period: 0s
  store:
    image: busybox
    command: sh -c "echo store begins; exec sleep 1000"
    volumes: ["data:/data"]
    stop_grace_period: 0s
volumes: {data: {}}
"""
QUEUE = """
version: "2.4"
services:
  broker:
    image: busybox
    command: sh -c "touch /ready; exec sleep 1000"
    healthcheck: {test: "test -e /ready", interval: 1s, retries: 20}
    stop_grace_period: 0s
    mem_limit: 64m
  worker:
    image: busybox
    command: sh -c "echo works; exec sleep 1000"
    depends_on: {broker: {condition: service_healthy}}
    stop_grace_period: 0s
    cpus: 0.5
"""
SITES = """
version: "3.7"
services:
  proxy:
    image: busybox
    command: sleep 1000
    networks: {front: {aliases: [entry]}, back: {}}
    stop_grace_period: 0s
    labels: {tier: edge}
  blog:
    image: busybox
    command: httpd -f -p 80 -h /var/www
    networks: [back]
    expose: ["80"]
    stop_grace_period: 0s
  wiki:
    image: busybox
    command: sleep 1000
    networks: [back]
    read_only: true
    tmpfs: [/tmp]
    stop_grace_period: 0s
networks:
  front: {}
  back: {driver: bridge, internal: true, ipam: {config: [{subnet: 10.89.7.0/24}]}}
"""
JOBS = """
version: "3.7"
services:
  base: &base
    image: busybox
    env_file: [own.env]
    command: sh -c "echo $$WORD; exit 0"
  fails:
    <<: *base
    command: sh -c "echo bad >&2; exit 3"
  again:
    <<: *base
    restart: on-failure
    command: sh -c "test -e /data/x || { touch /data/x; exit 1; }; echo second"
    volumes: ["left:/data"]
volumes: {left: {}}
"""
SIDES = """
version: "2.4"
services:
  app:
    build: .
    init: true
    hostname: app-host
    extra_hosts: ["outer:192.0.2.1"]
    volumes: ["./conf:/conf:ro", "/anonymous"]
    stop_grace_period: 0s
    logging: {driver: json-file, options: {max-size: 1m}}
  side:
    image: busybox
    command: sleep 1000
    network_mode: service:app
    volumes_from: [app]
    stop_grace_period: 0s
  linked:
    image: busybox
    command: sleep 1000
    links: ["app:own"]
    cap_add: [NET_ADMIN]
    stop_grace_period: 0s
"""
FILES = {"counter": COUNTER, "queue": QUEUE, "sites": SITES, "jobs": JOBS, "sides": SIDES}


def _chapter(name: str, *steps: str) -> tuple[str, ...]:
    """*steps* on the stack called *name*; `+` stands for docker-compose with its name."""
    lines = [f"cat > docker-compose.yml <<'EOF'{FILES[name]}EOF", *steps]
    return tuple(line.replace("+ ", f"docker-compose -p {name} ") for line in lines)


def _done(what: str) -> str:
    """The lines of *what* in any order: what goes on side by side ends in any."""
    return f"{what} 2>&1 | sed 's/  */ /g' | sort"


STACKS: dict[str, tuple[str, ...]] = {
    "compose, a counter": _chapter(
        "counter",
        "mkdir web; printf 'FROM busybox\\nARG GREETING\\nRUN echo $GREETING > /index\\n' > web/Dockerfile",
        "+ config",
        "+ config --services | sort",
        "+ build",
        "+ images -q | wc -l",
        _done("+ up -d"),
        _done("+ up -d"),
        "+ ps",
        "+ ps -q | wc -l",
        "+ ps --services | sort",
        "+ exec -T web cat /index",
        "+ exec -T web sh -c 'exit 4'",
        "+ exec -T web ping -c 1 -q store | grep loss",
        "+ run --rm store echo once",
        "+ run --rm --no-deps -e MORE=1 web sh -c 'echo $STORE $MORE'",
        "+ run --rm store sh -c 'exit 5'",
        "+ port web 8000",
        "+ logs store",
        "+ logs --tail 1 --no-color store",
        "sed -i 's/STORE: store/STORE: other/' docker-compose.yml",
        _done("+ up -d"),
        "+ exec -T web sh -c 'echo $STORE'",
        "sed -i 's/GREETING > /GREETING again > /' web/Dockerfile",
        "+ up -d --build > /dev/null 2>&1; docker-compose -p counter exec -T web cat /index",
        _done("+ restart"),
        _done("+ stop"),
        "+ ps",
        _done("+ start"),
        _done("+ up -d --force-recreate"),
        _done("+ rm -fs web"),
        _done("+ down -v"),
        "docker ps -aq; docker volume ls -q; docker network ls --format '{{.Name}}' | sort",
    ),
    "compose, a queue": _chapter(
        "queue",
        "+ config -q",
        _done("+ up -d"),
        "+ ps",
        _done("+ up -d --scale worker=3"),
        "+ ps --format x; docker ps --format '{{.Names}}' | sort",
        _done("+ scale worker=2"),
        "docker ps --format '{{.Names}}' | sort",
        "+ exec -T --index 2 worker echo second",
        "+ logs worker | sort",
        "+ top broker | wc -l",
        _done("+ pause broker"),
        "+ ps broker",
        _done("+ unpause broker"),
        _done("+ kill worker"),
        "docker ps -a --format '{{.Names}} {{.State}}' | sort",
        _done("+ up -d --scale worker=1"),
        "docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}' queue_broker_1 queue_worker_1",
        "+ events --json | grep worker & sleep 1; docker-compose -p queue kill worker > /dev/null 2>&1; sleep 1; "
        "kill %1 2>/dev/null; true",
        _done("+ down"),
    ),
    "compose, sites": _chapter(
        "sites",
        _done("+ up -d"),
        "docker network ls --format '{{.Name}}' | sort",
        "+ exec -T proxy wget -q -O - http://blog/",
        "+ exec -T proxy ping -c 1 -q entry | grep loss",
        "+ exec -T wiki touch /x",
        "+ exec -T wiki touch /tmp/x",
        "docker network inspect -f '{{.Internal}} {{json .IPAM.Config}}' sites_back",
        "docker inspect -f '{{json .Config.Labels.tier}}' sites_proxy_1",
        "docker inspect -f '{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}' sites_proxy_1",
        "docker ps --filter label=com.docker.compose.service=blog --format '{{.Names}} {{.Ports}}'",
        _done("+ up -d --no-deps --force-recreate blog"),
        "+ exec -T proxy wget -q -O - http://blog/",
        _done("+ restart -t 0 wiki"),
        "sed -i '/^  wiki:/,/^networks:/{/^networks:/!d}' docker-compose.yml",
        "+ ps --services | sort",
        _done("+ up -d --remove-orphans"),
        "docker ps --format '{{.Names}}' | sort",
        _done("+ down"),
        "+ ps",
    ),
    "compose, jobs": _chapter(
        "jobs",
        "echo WORD=said > own.env",
        "+ up base 2>&1 | grep -v -e Creating -e Attaching",
        "+ up --exit-code-from fails fails > /dev/null 2>&1",
        _done("+ up -d again"),
        "docker wait jobs_again_1 > /dev/null; sleep 2; docker-compose -p jobs logs --no-color again | tail -1",
        "docker inspect -f '{{.RestartCount}} {{.State.ExitCode}}' jobs_again_1",
        "+ ps -a",
        "+ run --rm -e WORD=own base",
        "+ run --rm nosuch",
        "+ run --rm base nosuchcommand",
        "+ run -d --name detached base sleep 1000",
        "docker inspect -f '{{index .Config.Labels \"com.docker.compose.oneoff\"}}' detached",
        "+ logs --no-color fails",
        "+ logs -f --no-color base",
        "+ create",
        _done("+ rm -f"),
        _done("+ down -v --remove-orphans"),
        "docker volume ls -q",
    ),
    "compose, sides": _chapter(
        "sides",
        'mkdir conf; echo configured > conf/a; printf \'FROM busybox\\nCMD ["sleep", "1000"]\\n\' > Dockerfile',
        "+ build -q",
        _done("+ up -d"),
        "+ exec -T app cat /conf/a",
        "+ exec -T app touch /conf/b",
        "+ exec -T app hostname",
        "+ exec -T side hostname",
        "+ exec -T side cat /conf/a",
        "+ exec -T app grep outer$ /etc/hosts",
        "+ exec -T linked ping -c 1 -q own | grep loss",
        "docker inspect -f '{{.HostConfig.Init}} {{json .HostConfig.LogConfig}}' sides_app_1",
        "docker inspect -f '{{json .HostConfig.CapAdd}} {{len .HostConfig.Links}}' sides_linked_1",
        "docker inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}' sides_side_1 | tr ';' '\\n' | sort",
        _done("+ up -d --force-recreate app > /dev/null; docker-compose -p sides ps -q | wc -l"),
        "+ images | wc -l",
        _done("+ down -v --rmi local"),
        "docker images --format '{{.Repository}}'",
    ),
}
