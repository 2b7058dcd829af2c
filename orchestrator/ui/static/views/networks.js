// The topology as it is: published ports, the services behind them, the networks that join those, and the nodes that carry them.

import { h, link, path, s } from "../dom.js";
import { live, sorted } from "../live.js";
import { empty, head, table } from "../widgets.js";
import { isBad } from "../words.js";

const BOX = { width: 150, height: 56, gap: 26 };
const COLOURS = 8;
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function gather(only) {
  const services = new Map();
  for (const task of live.tasks.values()) {
    if (only && task.stack !== only) continue;
    const id = `${task.stack}/${task.service}`;
    const one = services.get(id) ?? { id, stack: task.stack, name: task.service, tasks: 0, running: 0, bad: false, networks: new Set(), nodes: new Set(), ports: new Set() };
    one.tasks += 1;
    one.running += task.state === "running";
    one.bad ||= isBad(task);
    for (const network of Object.keys(task.addresses)) one.networks.add(network);
    one.nodes.add(task.node);
    for (const port of task.ports) one.ports.add(port.replace(/^.*:(\d+)->.*\/(\w+)$/, "$1/$2"));
    services.set(id, one);
  }
  const used = new Set([...services.values()].flatMap((one) => [...one.networks]));
  const nodes = new Set([...services.values()].flatMap((one) => [...one.nodes]));
  return {
    services: [...services.values()].sort((a, b) => a.id.localeCompare(b.id)),
    networks: sorted("networks", "name").filter((n) => used.has(n.name) || (!only && n.nodes.length)),
    nodes: sorted("nodes", "name").filter((n) => !only || nodes.has(n.name)),
  };
}

function draw({ services, networks, nodes }) {
  const columns = Math.max(services.length, nodes.length, 2);
  const width = columns * (BOX.width + BOX.gap) + BOX.gap + 150;
  const rowOf = { ports: 14, services: 62, networks: 62 + BOX.height + 44 };
  const nodesAt = rowOf.networks + networks.length * 40 + 36;
  const height = nodesAt + BOX.height + 20;
  const x = (index, count) => {
    const step = (width - 150 - BOX.gap) / Math.max(count, 1);
    return 140 + BOX.gap + index * step + (step - BOX.gap - BOX.width) / 2;
  };
  const lines = s("g", {});
  const boxes = s("g", {});
  const lane = new Map(networks.map((n, index) => [n.name, { y: rowOf.networks + index * 40, colour: index % COLOURS }]));
  const nodeX = new Map(nodes.map((n, index) => [n.name, x(index, nodes.length) + BOX.width / 2]));
  for (const network of networks) {
    const { y, colour } = lane.get(network.name);
    boxes.append(
      s("rect", { x: 140, y, width: width - 160, height: 12, rx: 6, class: `net n${colour}` }),
      s("text", { x: 8, y: y + 4, class: "label" }, cut(network.name, 18)),
      s("text", { x: 8, y: y + 18, class: "small" }, cut(`${network.driver} ${network.subnets[0] ?? ""}`, 22)),
      s("title", {}, `${network.name}: ${network.driver}, ${network.subnets.join(", ")}`),
    );
  }
  services.forEach((one, index) => {
    const left = x(index, services.length);
    const middle = left + BOX.width / 2;
    const joined = [...one.networks].filter((n) => lane.has(n));
    joined.forEach((network, n) => {
      const { y, colour } = lane.get(network);
      const at = middle + (n - (joined.length - 1) / 2) * 14;
      lines.append(s("path", { d: `M${at} ${rowOf.services + BOX.height}V${y}`, class: `wire n${colour}` }));
      boxes.append(s("circle", { cx: at, cy: y + 6, r: 5, class: `end n${colour}` }));
    });
    for (const node of one.nodes) if (nodeX.has(node)) lines.append(s("path", { d: `M${left + 10} ${rowOf.services + BOX.height}C${left + 10} ${nodesAt - 60} ${nodeX.get(node)} ${rowOf.networks + 20} ${nodeX.get(node)} ${nodesAt}`, class: "runs" }));
    [...one.ports].slice(0, 2).forEach((port, n) => {
      const at = left + n * 76;
      lines.append(s("path", { d: `M${at + 36} 36V${rowOf.services}`, class: "wire port" }));
      boxes.append(s("rect", { x: at, y: rowOf.ports, width: 72, height: 22, rx: 11, class: "portbox" }), s("text", { x: at + 36, y: rowOf.ports + 15, class: "small middle" }, port));
    });
    boxes.append(
      s(
        "a",
        { href: path("stacks", one.stack), class: "box" },
        s("rect", { x: left, y: rowOf.services, width: BOX.width, height: BOX.height, rx: 10, class: `service ${one.bad ? "bad" : "good"}` }),
        s("text", { x: left + 12, y: rowOf.services + 23, class: "label strong" }, cut(one.name, 17)),
        s("text", { x: left + 12, y: rowOf.services + 42, class: "small" }, cut(`${one.stack} · ${one.running}/${one.tasks}`, 22)),
      ),
    );
  });
  nodes.forEach((n, index) => {
    const left = x(index, nodes.length);
    boxes.append(
      s(
        "a",
        { href: path("nodes", n.name), class: "box" },
        s("rect", { x: left, y: nodesAt, width: BOX.width, height: BOX.height, rx: 10, class: `node ${n.state === "ready" ? "" : "bad"}` }),
        s("text", { x: left + 12, y: nodesAt + 23, class: "label strong" }, cut(n.name, 17)),
        s("text", { x: left + 12, y: nodesAt + 42, class: "small" }, cut(`${n.underlay || n.address} · ${n.tasks} tasks`, 24)),
      ),
    );
  });
  const words = `${services.length} services on ${networks.length} networks and ${nodes.length} nodes`;
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "topology", role: "group", "aria-label": `Topology: ${words}` }, lines, boxes);
}

export function topology(only) {
  const place = h("div", { class: "panel drawing", tabindex: "0", role: "region", "aria-label": "Topology" });
  let stamp = "";
  return {
    element: place,
    update() {
      const found = gather(only());
      const next = JSON.stringify([found.services.map((one) => [one.id, one.running, one.tasks, one.bad, ...one.networks, ...one.nodes, ...one.ports]), found.networks, found.nodes.map((n) => [n.name, n.state, n.tasks])]);
      if (next === stamp) return;
      stamp = next;
      place.replaceChildren(found.services.length || found.networks.length ? draw(found) : empty("Nothing is connected yet"));
    },
  };
}

export function networks() {
  const choice = h("select", { "aria-label": "Stack" }, h("option", { value: "" }, "All stacks"));
  const drawing = topology(() => choice.value);
  choice.addEventListener("change", () => drawing.update());
  const rows = table({
    caption: "Networks",
    key: (n) => n.name,
    empty: empty("No network"),
    columns: [
      { title: "Network", cell: (n) => n.name },
      { title: "Stack", cell: (n) => (n.stack ? link(["stacks", n.stack], n.stack) : "—") },
      { title: "Driver", cell: (n) => n.driver },
      { title: "Subnets", class: "mono", cell: (n) => n.subnets.join(" ") || "—" },
      { title: "Nodes", cell: (n) => n.nodes.join(", ") || "—" },
      { title: "Services' addresses", class: "mono wide", cell: (n) => Object.entries(n.vips).map(([name, address]) => `${name} ${address}`).join(", ") || "—" },
    ],
  });
  return {
    element: h("div", { class: "view" }, head("Networks", { actions: [choice] }), drawing.element, rows.element),
    title: "Networks",
    update() {
      const names = sorted("stacks").map((one) => one.stack);
      const known = [...choice.options].slice(1).map((one) => one.value);
      if (names.join() !== known.join()) {
        const value = choice.value;
        choice.replaceChildren(h("option", { value: "" }, "All stacks"), ...names.map((n) => h("option", { value: n }, n)));
        choice.value = names.includes(value) ? value : "";
      }
      drawing.update();
      rows.update(sorted("networks", "name"));
    },
  };
}
