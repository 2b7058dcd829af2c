import { h, icon, link, path, refill } from "../dom.js";
import { live, sorted } from "../live.js";
import { chip, empty, head } from "../widgets.js";
import { ago, isBad, stackState, stateOf } from "../words.js";
import { eventLine } from "./events.js";

const card = (name, value, words, href, tone) =>
  h("a", { class: `card ${tone}`, href }, h("span", { class: "what" }, icon(name), words), h("span", { class: "value" }, value));

export function overview() {
  const element = h("div", { class: "view" });
  const cards = h("div", { class: "cards" });
  const troubles = h("div", { class: "panel list" });
  const stacks = h("div", { class: "panel list" });
  const last = h("ul", { class: "panel feed" });
  element.append(
    head("Overview"),
    cards,
    h("div", { class: "columns" }, h("section", {}, h("h2", {}, "Needs attention"), troubles, h("h2", {}, "Stacks"), stacks), h("section", {}, h("h2", {}, "Latest events"), last)),
  );
  return {
    element,
    title: "Overview",
    update() {
      const nodes = sorted("nodes", "name");
      const tasks = [...live.tasks.values()];
      const ready = nodes.filter((n) => n.state === "ready").length;
      const running = tasks.filter((t) => t.state === "running").length;
      const bad = tasks.filter(isBad);
      refill(cards, [
        card("nodes", `${ready} / ${nodes.length}`, "nodes ready", path("nodes"), ready === nodes.length ? "good" : "bad"),
        card("stacks", live.stacks.size, "stacks", path("stacks"), ""),
        card("images", `${running} / ${tasks.length}`, "tasks running", path("stacks"), running === tasks.length ? "good" : "warn"),
        card("warn", bad.length + nodes.length - ready, "need attention", path(), bad.length || ready < nodes.length ? "bad" : "good"),
      ]);
      const away = nodes.filter((n) => n.state !== "ready");
      const found = [
        ...away.map((n) => h("a", { class: "item", href: path("nodes", n.name) }, chip("down"), h("span", { class: "grow" }, h("strong", {}, n.name), h("span", { class: "reason" }, n.error || "does not answer")))),
        ...bad.slice(0, 30).map((t) =>
          h("a", { class: "item", href: path("tasks", t.stack, t.task) }, chip(stateOf(t)), h("span", { class: "grow" }, h("strong", {}, t.task), h("span", { class: "reason" }, t.error || (t.exit_code ? `ended with status ${t.exit_code}` : `on ${t.node}`)))),
        ),
      ];
      if (!bad.length && !away.length) found.push(empty("All is well", "Every node answers, and every task is as it should be."));
      if (bad.length > 30) found.push(h("p", { class: "item muted" }, `and ${bad.length - 30} more`));
      refill(troubles, found);
      const rows = sorted("stacks").map((one) => {
        const own = tasks.filter((t) => t.stack === one.stack);
        return h("a", { class: "item", href: path("stacks", one.stack) }, chip(stackState(one, own, live.rollouts.get(one.stack))), h("span", { class: "grow" }, h("strong", {}, one.stack), h("span", { class: "reason" }, `${one.running} of ${one.wanted} tasks run, revision ${one.revision}, ${ago(one.updated)}`)));
      });
      if (!rows.length) rows.push(empty("No stack yet", ["Paste a stack file under ", link(["plan"], "Plan"), ", or run pystack up."]));
      refill(stacks, rows);
      const lines = live.events.slice(-14).reverse().map(eventLine);
      if (!lines.length) lines.push(h("li", { class: "muted" }, "Nothing has changed since the server began."));
      refill(last, lines);
    },
  };
}
