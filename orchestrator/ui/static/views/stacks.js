import { call, get, url } from "../api.js";
import { h, link, path } from "../dom.js";
import { live, sorted } from "../live.js";
import { may } from "../session.js";
import { ask, bar, button, chip, empty, facts, failed, head, perform, planView, table, tabs } from "../widgets.js";
import { ago, stackState, stateOf } from "../words.js";
import { topology } from "./networks.js";
import { usage } from "./usage.js";

const own = (stack) => [...live.tasks.values()].filter((t) => t.stack === stack).sort((a, b) => a.service.localeCompare(b.service) || a.index - b.index);

export const stateChip = (one) => chip(stackState(one, own(one.stack), live.rollouts.get(one.stack)));

export function stacks() {
  const rows = table({
    caption: "Stacks",
    key: (r) => r.stack,
    href: (r) => path("stacks", r.stack),
    empty: empty("No stack yet", ["Paste a stack file under ", link(["plan"], "Plan"), ", or run pystack up where one is."]),
    columns: [
      { title: "Stack", cell: (r) => r.stack },
      { title: "State", cell: stateChip, stamp: (r) => stackState(r, own(r.stack), live.rollouts.get(r.stack)) },
      { title: "Tasks", cell: (r) => bar(r.running, r.wanted, `${r.running} / ${r.wanted}`) },
      { title: "Services", class: "wide", cell: (r) => r.services.map((one) => one.name).join(", ") },
      { title: "Nodes", cell: (r) => r.nodes },
      { title: "Revision", cell: (r) => r.revision },
      { title: "Updated", cell: (r) => ago(r.updated), stamp: (r) => ago(r.updated) },
    ],
  });
  const make = may("look") ? [h("a", { class: "button primary", href: path("plan") }, "Plan a stack file")] : [];
  return { element: h("div", { class: "view" }, head("Stacks", { actions: make }), rows.element), title: "Stacks", update: () => rows.update(sorted("stacks")) };
}

export const taskColumns = [
  { title: "Task", cell: (t) => t.task },
  { title: "State", cell: (t) => chip(stateOf(t)) },
  { title: "Node", cell: (t) => link(["nodes", t.node], t.node) },
  { title: "Image", class: "wide mono", cell: (t) => t.image },
  { title: "Ports", class: "wide mono", cell: (t) => t.ports.join(" ") || "—" },
  { title: "Restarts", cell: (t) => t.restarts },
  { title: "Trouble", class: "reason", cell: (t) => t.error || "" },
];

export function stack(name, part = "tasks") {
  const element = h("div", { class: "view" });
  const state = h("span", {});
  const note = h("p", { class: "muted" });
  const body = h("div", {});
  const act = (verb, word, text) =>
    button(
      word,
      async () => {
        if (await ask(`${word} ${name}?`, text, word, verb === "start" ? "primary" : "danger")) await perform(`${word} ${name}`, url("stacks", name, verb), {});
      },
      verb === "down" ? "danger" : "",
    );
  const actions = may("operate")
    ? [
        act("restart", "Restart", "Every task is stopped and started again, in the order of what they need."),
        act("stop", "Stop", "Every task is stopped. Networks, volumes and the definition stay."),
        act("start", "Start", "Every task is started, after what it needs."),
        act("down", "Take down", "Tasks and networks are removed; volumes and the history stay."),
      ]
    : [];
  element.append(
    head([name, " ", state], { crumbs: [link(["stacks"], "Stacks"), h("span", {}, name)], actions, below: note }),
    tabs(
      [
        ["tasks", "Tasks", path("stacks", name)],
        ["rollout", "Rollout", path("stacks", name, "rollout")],
        ["history", "History", path("stacks", name, "history")],
        ["graphs", "Graphs", path("stacks", name, "graphs")],
        ["networks", "Networks", path("stacks", name, "networks")],
        ["definition", "Definition", path("stacks", name, "definition")],
      ],
      part,
    ),
    body,
  );
  const inner = PARTS[part]?.(name) ?? PARTS.tasks(name);
  body.append(inner.element);
  return {
    element,
    title: name,
    close: inner.close,
    update() {
      const row = live.stacks.get(name);
      if (!row) {
        note.textContent = live.ready ? "This stack is down. Its history is kept." : "";
        state.replaceChildren();
      } else {
        state.replaceChildren(stateChip(row));
        note.textContent = `Revision ${row.revision}, ${ago(row.updated)}${row.user ? ` by ${row.user}` : ""}${row.message ? `: ${row.message}` : ""}${row.source ? ` from ${row.source}` : ""}`;
      }
      inner.update?.();
    },
  };
}

function tasks(name) {
  const rows = table({ caption: `Tasks of ${name}`, key: (t) => t.task, href: (t) => path("tasks", t.stack, t.task), columns: taskColumns, empty: empty("No task") });
  return { element: rows.element, update: () => rows.update(own(name)) };
}

function history(name) {
  const element = h("div", {});
  const load = async () => {
    try {
      const rows = await get(url("stacks", name, "history"));
      element.replaceChildren(
        rows.length
          ? h(
              "ol",
              { class: "panel list", reversed: true },
              rows.reverse().map((one) =>
                h(
                  "li",
                  { class: "item" },
                  h("span", { class: "rev" }, one.revision),
                  h("span", { class: "grow" }, h("strong", {}, one.message || one.services.join(", ")), h("span", { class: "reason" }, `${ago(one.updated)}${one.user ? ` by ${one.user}` : ""}`)),
                  one.current ? chip("current", "good") : may("operate") ? button("Roll back", () => back(one), "", { "aria-label": `Roll back to revision ${one.revision}` }) : null,
                ),
              ),
            )
          : empty("No history"),
      );
    } catch (error) {
      failed(error);
    }
  };
  const back = async (one) => {
    try {
      const plan = await call("POST", url("stacks", name, "plan"), { revision: one.revision });
      if (!(await ask(`Roll ${name} back to revision ${one.revision}?`, planView(plan), "Roll back", "primary"))) return;
      await perform(`Rolling ${name} back`, url("stacks", name, "rollback"), { revision: one.revision });
      await load();
    } catch (error) {
      failed(error);
    }
  };
  load();
  return { element };
}

function rollout(name) {
  const element = h("div", {});
  let stamp = "";
  return {
    element,
    update() {
      const one = live.rollouts.get(name);
      const next = JSON.stringify(one ?? null);
      if (next === stamp && element.firstChild) return;
      stamp = next;
      if (!one) return element.replaceChildren(empty("No rollout yet"));
      const verb = (word, label) => button(label, () => (word === "pause" || word === "promote" ? call("POST", url("stacks", name, "rollout", word)).catch(failed) : perform(label, url("stacks", name, "rollout", word), {})));
      const running = one.state === "running";
      element.replaceChildren(
        facts([
          ["State", [chip(one.state), one.phase ? ` ${one.phase}` : ""]],
          ["From revision", one.before],
          ["By", one.user],
          ["Why", one.message],
          ["Begun", ago(one.begun)],
          ["Ended", ago(one.ended)],
          ["Reason", one.reason],
        ]),
        may("operate") ? h("div", { class: "row" }, running ? [verb("pause", "Pause"), verb("promote", "Go on now"), verb("abort", "Give up")] : ["succeeded", "superseded"].includes(one.state) ? [] : [verb("resume", "Resume"), verb("abort", "Go back")]) : "",
        h("h2", {}, "Services"),
        h("div", { class: "panel list" }, Object.entries(one.services ?? {}).map(([service, [done, total]]) => h("div", { class: "item" }, h("span", { class: "grow" }, h("strong", {}, service)), bar(done, total, `${done} / ${total} updated`)))),
        one.failures?.length ? h("div", {}, h("h2", {}, "What failed"), one.failures.map((f) => h("div", { class: "panel trouble" }, h("p", {}, h("strong", {}, f.task), ` ${f.reason}`), f.where ? h("p", { class: "muted" }, f.where) : null, f.log?.length ? h("pre", { tabindex: "0" }, f.log.join("\n")) : null))) : "",
      );
    },
  };
}

function definition(name) {
  const text = h("pre", { class: "panel source", tabindex: "0", "aria-label": "Definition" }, "…");
  get(url("stacks", name)).then((record) => (text.textContent = JSON.stringify(record.stack, null, 2)), failed);
  return { element: text };
}

const PARTS = { tasks, history, rollout, definition, graphs: (name) => usage(url("stacks", name, "usage")), networks: (name) => topology(() => name) };
