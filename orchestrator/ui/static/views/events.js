import { h, path, refill } from "../dom.js";
import { live } from "../live.js";
import { chip, head } from "../widgets.js";
import { clock } from "../words.js";

const word = (event) => (event.health === "unhealthy" ? "unhealthy" : event.state !== "exited" ? event.state : event.asked ? "stopped" : event.exit_code ? "failed" : event.state);

export const eventLine = (event) =>
  h(
    "li",
    {},
    h("time", {}, clock(event.at)),
    chip(word(event)),
    event.stack ? h("a", { href: path("tasks", event.stack, event.task) }, event.task) : h("span", {}, event.task),
    event.reason ? h("span", { class: "reason" }, event.reason) : null,
  );

export function events() {
  const list = h("ul", { class: "panel feed" });
  const filter = h("input", { type: "search", placeholder: "stack, task, state or reason", "aria-label": "Filter events" });
  let known = 0;
  let words = "";
  const draw = () => {
    const rows = live.events.filter((e) => `${e.stack} ${e.task} ${e.state} ${e.health} ${e.reason}`.toLowerCase().includes(words));
    refill(list, rows.length ? rows.reverse().map(eventLine) : [h("li", { class: "muted" }, "No event.")]);
  };
  filter.addEventListener("input", () => {
    words = filter.value.toLowerCase();
    draw();
  });
  return {
    element: h("div", { class: "view" }, head("Events", { actions: [filter] }), list),
    title: "Events",
    update() {
      const last = live.events.at(-1)?.at ?? 0;
      if (last !== known || !list.firstChild) draw();
      known = last;
    },
  };
}
