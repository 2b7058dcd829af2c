// What services and nodes use, drawn as it comes.

import { follow } from "../api.js";
import { h } from "../dom.js";
import { chart, empty } from "../widgets.js";
import { bytes } from "../words.js";

const EACH_S = 2;
const PARTS = [
  ["cpu", "CPU, cores", (v) => v.toFixed(v < 1 ? 3 : 2)],
  ["memory", "Memory", bytes],
  ["received", "Network in, a second", bytes],
  ["sent", "Network out, a second", bytes],
];

/** Graphs of each of what *path* streams; *titled*: with its name above. */
export function usage(path, titled = true) {
  const groups = new Map();
  const note = h("p", { class: "muted", role: "status" }, "Measuring…");
  const element = h("div", {}, note);
  const made = (name) => {
    const charts = new Map(PARTS.map(([key, title, format]) => [key, chart(titled ? `${title}, ${name}` : title, format, 120 / EACH_S)]));
    const section = h("section", {}, titled ? h("h2", {}, name) : null, h("div", { class: "charts four" }, [...charts.values()].map((one) => one.element)));
    const after = [...groups.keys()].filter((other) => other > name).sort()[0];
    element.insertBefore(section, after ? groups.get(after).section : null);
    return { section, charts };
  };
  const close = follow(path, {
    usage(found) {
      for (const [name, group] of groups)
        if (!Object.hasOwn(found, name)) {
          group.section.remove();
          groups.delete(name);
        }
      for (const [name, values] of Object.entries(found)) {
        if (!groups.has(name)) groups.set(name, made(name));
        for (const [key, one] of groups.get(name).charts) one.push(values[key] ?? 0);
      }
      note.replaceChildren(groups.size ? "" : empty("No task runs"));
    },
  });
  return { element, close };
}
