import { call, get, url } from "../api.js";
import { h, link, path } from "../dom.js";
import { live, sorted } from "../live.js";
import { may } from "../session.js";
import { ask, bar, button, chip, empty, facts, failed, head, perform, table, toast } from "../widgets.js";
import { bytes } from "../words.js";
import { taskColumns } from "./stacks.js";
import { verdict } from "./task.js";
import { usage } from "./usage.js";

const availability = (n) => (n.availability === "active" ? chip("active") : chip(n.availability, "warn"));

export function nodes() {
  const rows = table({
    caption: "Nodes",
    key: (n) => n.name,
    href: (n) => path("nodes", n.name),
    columns: [
      { title: "Node", cell: (n) => n.name },
      { title: "State", cell: (n) => [chip(n.state), n.availability === "active" ? null : [" ", availability(n)]] },
      { title: "Address", class: "mono", cell: (n) => n.underlay || n.address },
      { title: "Tasks", cell: (n) => n.tasks },
      { title: "CPU reserved", cell: (n) => bar(n.reserved.cpus, n.capacity.cpus, `${n.reserved.cpus.toFixed(1)} / ${n.capacity.cpus}`, true) },
      { title: "Memory reserved", cell: (n) => bar(n.reserved.memory, n.capacity.memory, `${bytes(n.reserved.memory)} / ${bytes(n.capacity.memory)}`, true) },
      { title: "Version", cell: (n) => n.version },
      { title: "Problem", class: "reason", cell: (n) => n.error },
    ],
  });
  return { element: h("div", { class: "view" }, head("Nodes"), rows.element), title: "Nodes", update: () => rows.update(sorted("nodes", "name")) };
}

export function node(name) {
  const state = h("span", {});
  const actions = h("span", { class: "row" });
  const what = h("div", {});
  const rows = table({ caption: `Tasks on ${name}`, key: (t) => t.task, href: (t) => path("tasks", t.stack, t.task), columns: taskColumns.filter((c) => c.title !== "Node"), empty: empty("No task here") });
  let stamp = "";
  const drain = async () => {
    if (await ask(`Drain ${name}?`, "Its tasks move to other nodes, where they can; it gets no new ones until it is activated again.", "Drain")) await perform(`Draining ${name}`, url("nodes", name, "drain"), {});
  };
  const activate = () => call("PATCH", url("nodes", name), { availability: "active" }).then(() => toast(`${name} takes tasks again`), failed);
  const used = usage(url("nodes", name, "usage"), false);
  const asked = whyNot(name);
  return {
    element: h(
      "div",
      { class: "view" },
      head([name, " ", state], { crumbs: [link(["nodes"], "Nodes"), h("span", {}, name)], actions: [actions] }),
      what,
      h("h2", {}, "What its tasks use"),
      used.element,
      h("h2", {}, "Why, or why not, here"),
      asked.element,
      h("h2", {}, "Tasks"),
      rows.element,
    ),
    title: name,
    close: used.close,
    update() {
      asked.update();
      rows.update([...live.tasks.values()].filter((t) => t.node === name).sort((a, b) => a.task.localeCompare(b.task)));
      const n = live.nodes.get(name);
      const next = JSON.stringify(n ?? null);
      if (next === stamp) return;
      stamp = next;
      if (!n) return what.replaceChildren(live.ready ? empty("There is no such node") : "");
      state.replaceChildren(chip(n.state), " ", availability(n));
      actions.replaceChildren(...[may("operate") && n.availability === "active" ? button("Drain", drain, "danger") : null, may("administer") && n.availability !== "active" ? button("Activate", activate, "primary") : null].filter(Boolean));
      what.replaceChildren(
        facts([
          ["Problem", n.error ? h("span", { class: "bad" }, n.error) : ""],
          ["Address", h("code", {}, n.address)],
          ["Underlay", h("code", {}, n.underlay)],
          ["MTU", n.mtu],
          ["Platform", n.platform],
          ["Version", n.version],
          ["Transport", n.transport],
          ["CPU reserved", bar(n.reserved.cpus, n.capacity.cpus, `${n.reserved.cpus.toFixed(1)} of ${n.capacity.cpus} cores`, true)],
          ["Memory reserved", bar(n.reserved.memory, n.capacity.memory, `${bytes(n.reserved.memory)} of ${bytes(n.capacity.memory)}`, true)],
          ["Labels", Object.entries(n.labels).map(([k, v]) => h("span", { class: "tag" }, v ? `${k}=${v}` : k))],
          ["Taints", n.taints.map((t) => h("span", { class: "tag" }, t))],
          ["Devices", n.devices.join(", ")],
        ]),
      );
    },
  };
}

/** What speaks for and against this node, for any service. */
function whyNot(node) {
  const choice = h("select", { "aria-label": "Service", class: "short" });
  const answer = h("div", { role: "status" });
  const look = async () => {
    const [stack, service] = choice.value.split("/");
    if (!service) return answer.replaceChildren();
    try {
      const found = await get(url("stacks", stack, "services", service, "why"));
      const one = found.candidates.find((c) => c.node === node);
      answer.replaceChildren(one ? h("div", { class: "panel list" }, verdict(one, found.node, true)) : empty("The server does not know this node"));
    } catch (error) {
      failed(error);
    }
  };
  choice.addEventListener("change", look);
  let stamp = "";
  return {
    element: h("div", {}, h("p", {}, choice), answer),
    update() {
      const names = sorted("stacks").flatMap((one) => one.services.map((service) => `${one.stack}/${service.name}`));
      if (stamp === names.join()) return;
      stamp = names.join();
      const before = choice.value;
      choice.replaceChildren(h("option", { value: "" }, "Choose a service"), ...names.map((one) => h("option", { value: one }, one)));
      if (names.includes(before)) choice.value = before;
    },
  };
}

export function images() {
  const element = h("div", {}, h("p", { class: "muted" }, "Asking the nodes…"));
  const rows = table({
    caption: "Images",
    key: (i) => i.id,
    columns: [
      { title: "Name", class: "mono", cell: (i) => i.tags.join(", ") || "—" },
      { title: "ID", class: "mono", cell: (i) => i.id.replace("sha256:", "").slice(0, 12) },
      { title: "Size", cell: (i) => bytes(i.size) },
      { title: "Nodes", cell: (i) => i.nodes.join(", ") },
    ],
  });
  let asked = false;
  const load = async () => {
    const found = new Map();
    const ready = sorted("nodes", "name").filter((n) => n.state === "ready");
    await Promise.all(
      ready.map(async (n) => {
        for (const one of await get(`/v1/nodes/${encodeURIComponent(n.name)}/engine/images/json`)) {
          const entry = found.get(one.Id) ?? { id: one.Id, tags: one.RepoTags ?? [], size: one.Size, nodes: [] };
          entry.nodes.push(n.name);
          found.set(one.Id, entry);
        }
      }),
    );
    rows.update([...found.values()].sort((a, b) => (a.tags[0] ?? "~").localeCompare(b.tags[0] ?? "~")));
    element.replaceChildren(rows.element);
  };
  return {
    element: h("div", { class: "view" }, head("Images"), element),
    title: "Images",
    update() {
      if (asked || !live.ready) return;
      asked = true;
      load().catch(failed);
    },
  };
}

export function volumes() {
  const rows = table({
    caption: "Volumes",
    key: (v) => v.name,
    empty: empty("No volume"),
    columns: [
      { title: "Volume", cell: (v) => v.name },
      { title: "Stack", cell: (v) => (v.stack ? link(["stacks", v.stack], v.stack) : "—") },
      { title: "Node", cell: (v) => (v.node ? link(["nodes", v.node], v.node) : "—") },
      { title: "Driver", cell: (v) => v.driver },
      { title: "Follows its users", cell: (v) => (v.follow ? "yes" : "no") },
    ],
  });
  return { element: h("div", { class: "view" }, head("Volumes"), rows.element), title: "Volumes", update: () => rows.update(sorted("volumes", "name")) };
}
