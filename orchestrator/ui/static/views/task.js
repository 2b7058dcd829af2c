import { follow, get, url } from "../api.js";
import { h, link, path } from "../dom.js";
import { live } from "../live.js";
import { may } from "../session.js";
import { button, chart, chip, empty, facts, failed, head, tabs } from "../widgets.js";
import { ago, bytes, stateOf } from "../words.js";
import { terminal } from "../terminal.js";

const KEPT = 5000;

export function task(stack, name, part = "logs") {
  const element = h("div", { class: "view tall" });
  const state = h("span", {});
  const trouble = h("p", { class: "trouble panel", hidden: true });
  const at = (word) => path("tasks", stack, name, word);
  const items = [["logs", "Logs", at("logs")], ["graphs", "Graphs", at("graphs")], ["details", "Details", at("details")], ["why", "Why here", at("why")]];
  if (may("operate")) items.splice(1, 0, ["shell", "Shell", at("shell")]);
  const inner = (PARTS[part] ?? PARTS.logs)(stack, name);
  element.append(head([name, " ", state], { crumbs: [link(["stacks"], "Stacks"), link(["stacks", stack], stack), h("span", {}, name)] }), trouble, tabs(items, part), inner.element);
  return {
    element,
    title: name,
    close: inner.close,
    update() {
      const row = live.tasks.get(name);
      state.replaceChildren(row ? chip(stateOf(row)) : live.ready ? chip("gone", "bad") : "");
      const why = row?.error || (row && row.state === "exited" && row.exit_code ? `It ended with status ${row.exit_code}.` : "");
      trouble.hidden = !why;
      trouble.textContent = why;
      inner.update?.(row);
    },
  };
}

function logs(stack, name) {
  const list = h("div", { class: "log", role: "log", tabindex: "0", "aria-label": `Log of ${name}` });
  const note = h("span", { class: "muted", role: "status" });
  const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter lines" });
  const times = h("input", { type: "checkbox" });
  const following = h("input", { type: "checkbox", checked: true });
  let words = "";
  let container = null;
  let close = () => {};
  let programmatic = false;

  const line = ([stream, text]) => {
    const space = text.indexOf(" ");
    const [time, rest] = space > 0 ? [text.slice(0, space), text.slice(space + 1)] : ["", text];
    const one = h("div", { class: stream === 2 ? "err" : "" }, h("time", {}, time.slice(11, 23)), h("span", {}, plain(rest)));
    one.hidden = Boolean(words) && !rest.toLowerCase().includes(words);
    return one;
  };
  const down = () => {
    if (!following.checked) return;
    programmatic = true;
    list.scrollTop = list.scrollHeight;
  };
  const connect = () => {
    close();
    list.replaceChildren();
    note.textContent = "";
    close = follow(
      `${url("stacks", stack, "tasks", name, "logs")}?tail=1000`,
      {
        lines(found) {
          list.append(...found.map(line));
          while (list.childElementCount > KEPT) list.firstChild.remove();
          down();
        },
        end(reason, source) {
          source.close();
          note.textContent = reason || "The log has ended.";
        },
      },
      (source) => {
        source.close();
        note.textContent = "The stream broke off.";
      },
    );
  };
  list.addEventListener("scroll", () => {
    if (!programmatic) following.checked = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    programmatic = false;
  });
  following.addEventListener("change", down);
  times.addEventListener("change", () => list.classList.toggle("times", times.checked));
  filter.addEventListener("input", () => {
    words = filter.value.toLowerCase();
    for (const one of list.children) one.hidden = Boolean(words) && !one.lastChild.textContent.toLowerCase().includes(words);
    down();
  });
  return {
    element: h("div", { class: "stretch" }, h("div", { class: "row tools" }, filter, h("label", { class: "check" }, times, "Times"), h("label", { class: "check" }, following, "Follow"), button("Read again", connect), note), list),
    close: () => close(),
    update(row) {
      const now = row?.id ?? "";
      if (now && now !== container) connect(); // a new container of the task has a log of its own
      else if (!now && container === null) note.textContent = "It has no container yet.";
      container = now || container;
    },
  };
}

/** Without what moves a terminal's cursor or colours it. */
const plain = (text) => text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/\u001b\][^\u0007]*(\u0007|$)/g, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "");

function graphs(stack, name) {
  const parts = {
    cpu: chart("CPU, cores", (v) => v.toFixed(v < 1 ? 3 : 2)),
    memory: chart("Memory", bytes),
    received: chart("Network in, a second", bytes),
    sent: chart("Network out, a second", bytes),
    read: chart("Disk read, a second", bytes),
    written: chart("Disk written, a second", bytes),
  };
  const note = h("p", { class: "muted", role: "status" }, "Measuring…");
  let close = () => {};
  let container = null;
  const connect = () => {
    close();
    close = follow(
      url("stacks", stack, "tasks", name, "stats"),
      {
        stats(now) {
          note.textContent = "";
          for (const [key, one] of Object.entries(parts)) one.push(now[key] ?? 0);
        },
        end(reason, source) {
          source.close();
          note.textContent = reason || "It does not run.";
        },
      },
      (source) => source.close(),
    );
  };
  return {
    element: h("div", {}, note, h("div", { class: "charts" }, Object.values(parts).map((one) => one.element))),
    close: () => close(),
    update(row) {
      if (row?.id && row.id !== container) {
        container = row.id;
        connect();
      }
    },
  };
}

function details(stack, name) {
  const element = h("div", {});
  let stamp = "";
  return {
    element,
    update(row) {
      const next = JSON.stringify(row ?? null);
      if (next === stamp) return;
      stamp = next;
      if (!row) return element.replaceChildren(empty("There is no such task any more"));
      element.replaceChildren(
        facts([
          ["Service", row.service],
          ["Node", link(["nodes", row.node], row.node)],
          ["Image", h("code", {}, row.image)],
          ["Container", h("code", {}, row.id.slice(0, 12))],
          ["Health", row.health],
          ["Exit status", row.exit_code],
          ["Restarts", row.restarts],
          ["Ports", row.ports.length ? h("code", {}, row.ports.join(" ")) : ""],
          ...Object.entries(row.addresses).map(([network, address]) => [`On ${network}`, h("code", {}, address)]),
          ["Created", ago(row.created)],
          ["Started", ago(row.started)],
          ["Definition", h("code", {}, row.definition)],
        ]),
      );
    },
  };
}

export const verdicts = (found) => h("div", { class: "panel list" }, found.candidates.map((one) => verdict(one, found.node, one.node === found.node || !one.feasible)));

/** What speaks for and against a node, of a task that is on *here*. */
export function verdict(one, here, open) {
  return h(
    "details",
    { class: "item block", open },
    h("summary", {}, chip(one.feasible ? (one.node === here ? "here" : "fits") : "does not fit", one.feasible ? "good" : "bad"), " ", h("strong", {}, one.node), h("span", { class: "muted" }, ` score ${one.score}`)),
    h("ul", { class: "verdicts" }, one.reasons.map((r) => h("li", { class: r.ok ? "good" : "bad" }, h("span", { "aria-hidden": "true" }, r.ok ? "✓" : "✗"), h("span", { class: "unseen" }, r.ok ? "holds: " : "does not hold: "), h("strong", {}, r.filter), ` ${r.detail}`))),
  );
}

function why(stack, name) {
  const element = h("div", {}, h("p", { class: "muted" }, "…"));
  const load = (service) => get(`${url("stacks", stack, "services", service, "why")}?task=${encodeURIComponent(name)}`).then((found) => element.replaceChildren(h("p", {}, "What every node was found to be good for, the best first."), verdicts(found)), failed);
  let loaded = false;
  return {
    element,
    update(row) {
      if (row && !loaded) {
        loaded = true;
        load(row.service);
      }
    },
  };
}

const PARTS = { logs, graphs, details, why, shell: terminal };
