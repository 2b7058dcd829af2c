// Parts that several views have.

import { events } from "./api.js";
import { fill, h, icon, s } from "./dom.js";
import { TONE } from "./words.js";

export const chip = (word, tone = TONE[word] ?? "calm") => h("span", { class: `chip ${tone}` }, h("span", { class: "dot", "aria-hidden": "true" }), word);

export const empty = (title, hint) => h("div", { class: "empty" }, h("p", { class: "strong" }, title), hint && h("p", {}, hint));

export const button = (words, onClick, kind = "", more = {}) => h("button", { type: "button", class: `button ${kind}`, onClick, ...more }, words);

export function toast(message, tone = "good") {
  const one = h("div", { class: `toast ${tone}` }, icon(tone === "bad" ? "warn" : "check"), h("span", {}, message));
  document.getElementById("toasts").append(one);
  setTimeout(() => one.remove(), tone === "bad" ? 12000 : 5000);
}

export const failed = (error) => toast(error.message ?? String(error), "bad");

/** A head with a title, what leads back, and what can be done. */
export function head(title, { crumbs = [], actions = [], below } = {}) {
  return h(
    "header",
    { class: "head" },
    crumbs.length ? h("nav", { class: "crumbs", "aria-label": "Where this is" }, crumbs.flatMap((c, n) => (n ? [h("span", { "aria-hidden": "true" }, "/"), c] : [c]))) : null,
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, title), h("div", { class: "actions" }, actions)),
    below,
  );
}

/** A table whose rows are kept by key: what is as it was is not touched, so that focus, selection and scrolling stay. */
export function table({ caption, columns, key, href, empty: nothing }) {
  const body = h("tbody");
  const whole = h(
    "div",
    { class: "scroll" },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.class }, c.title)))), body),
  );
  const none = nothing ?? empty("Nothing here yet");
  none.hidden = true;
  const known = new Map();
  const update = (rows) => {
    const seen = new Set();
    let at = body.firstChild;
    for (const row of rows) {
      const id = key(row);
      seen.add(id);
      let entry = known.get(id);
      const stamp = JSON.stringify(columns.map((c) => (c.stamp ? c.stamp(row) : null))) + JSON.stringify(row);
      if (!entry) {
        entry = { element: h("tr", {}), stamp: "" };
        known.set(id, entry);
      }
      if (entry.stamp !== stamp) {
        entry.stamp = stamp;
        const to = href?.(row);
        fill(
          entry.element,
          columns.map((c, n) => h(n ? "td" : "th", { scope: n ? undefined : "row", class: c.class, "data-title": c.title }, n === 0 && to ? h("a", { href: to }, c.cell(row)) : c.cell(row))),
        );
      }
      if (entry.element !== at) body.insertBefore(entry.element, at);
      else at = at.nextSibling;
    }
    for (const [id, entry] of known)
      if (!seen.has(id)) {
        entry.element.remove();
        known.delete(id);
      }
    whole.hidden = rows.length === 0;
    none.hidden = rows.length !== 0;
  };
  return { element: h("div", { class: "panel" }, whole, none), update };
}

/** How much of a whole; *scarce*: that much of it is used, and near its end is bad. */
export function bar(part, whole, label, scarce = false) {
  const share = whole ? Math.min(100, Math.round((100 * part) / whole)) : 0;
  return h(
    "span",
    { class: "meter" },
    h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: `fill ${scarce ? (share > 90 ? "bad" : "") : share === 100 ? "good" : "some"}`, css: { width: `${share}%` } })),
    h("span", { class: "number" }, label),
  );
}

/** Asks before something is done that is hard to take back. */
export function ask(title, text, word, kind = "danger") {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "ask-title" },
      h("h2", { id: "ask-title" }, title),
      h("div", { class: "text" }, text),
      h("div", { class: "row end" }, button("Cancel", () => dialog.close("")), button(word, () => dialog.close("yes"), kind, { autofocus: true })),
    );
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const SIGNS = { create: "+", remove: "−", replace: "±", update: "~", none: "·" };

const shown = (value) => (value === null || value === undefined ? "—" : typeof value === "string" ? value : JSON.stringify(value));

/** The steps of a plan as a difference, each with its reason. */
export function planView(plan) {
  const steps = plan.steps.filter((one) => one.action !== "none");
  const counts = {};
  for (const step of steps) counts[step.action] = (counts[step.action] ?? 0) + 1;
  return h(
    "section",
    { class: "plan", "aria-label": "Plan" },
    h(
      "p",
      { class: "summary" },
      steps.length ? Object.entries(counts).map(([verb, n]) => h("span", { class: `tag ${verb}` }, `${n} to ${verb}`)) : h("span", { class: "tag none" }, "nothing to do: all is as the file says"),
    ),
    plan.warnings?.length ? h("ul", { class: "warnings" }, plan.warnings.map((w) => h("li", {}, icon("warn"), w))) : null,
    h(
      "ol",
      { class: "steps" },
      steps.map((step) =>
        h(
          "li",
          { class: `step ${step.action}` },
          h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[step.action]),
          h(
            "div",
            {},
            h("p", {}, h("span", { class: "verb" }, step.action), ` ${step.kind} `, h("strong", {}, step.name), step.node ? h("span", { class: "muted" }, ` on ${step.node}`) : null),
            h("p", { class: "reason" }, step.reason),
            step.changes?.length
              ? h(
                  "dl",
                  { class: "changes" },
                  step.changes.flatMap((c) => [
                    h("dt", {}, c.path),
                    h("dd", {}, h("del", {}, shown(c.before)), h("span", { class: "unseen" }, " becomes "), h("ins", {}, shown(c.after))),
                  ]),
                )
              : null,
          ),
        ),
      ),
    ),
  );
}

/** Carries out a request whose answer is a stream of events, and shows them in *log*. Returns whether all went well. */
export async function carryOut(path, body, log) {
  const say = (tone, ...words) => {
    log.append(h("li", { class: tone }, words));
    log.scrollTop = log.scrollHeight;
  };
  let well = false;
  try {
    for await (const event of events(path, body)) {
      if (event.event === "step" && event.action !== "none") say("busy", `${event.action} ${event.kind} `, h("strong", {}, event.name), ` ${event.reason ?? ""}`);
      else if (event.event === "task") say(TONE[event.state] ?? "calm", h("strong", {}, event.task), ` ${event.state} ${event.health ?? ""} ${event.error ?? ""}`);
      else if (event.event === "pull" && !event.id) say("calm", `pull ${event.image} ${event.status ?? ""}`);
      else if (event.event === "warning" || event.event === "volume") say("warn", event.message);
      else if (event.event === "move") say("busy", `move ${event.tasks.join(", ")} from ${event.from} to ${event.to}: ${event.reason}`);
      else if (event.event === "error") say("bad", event.message);
      else if (event.event === "done") {
        well = event.failures.length === 0;
        for (const one of event.failures) say("bad", h("strong", {}, one.task), ` ${one.reason}`, one.where ? ` (${one.where})` : "", one.log?.length ? h("pre", {}, one.log.join("\n")) : null);
        say(well ? "good" : "bad", well ? "Done." : "It did not succeed.");
      }
    }
  } catch (error) {
    say("bad", error.message);
  }
  return well;
}

/** A dialog that does it and shows how it goes. */
export async function perform(title, path, body) {
  const log = h("ol", { class: "progress", "aria-live": "polite", tabindex: "0", "aria-label": "Progress" });
  const done = button("Close", () => dialog.close(), "primary", { disabled: true });
  const dialog = h("dialog", { class: "dialog wide", "aria-labelledby": "perform-title" }, h("h2", { id: "perform-title" }, title), log, h("div", { class: "row end" }, done));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  const well = await carryOut(path, body, log);
  done.disabled = false;
  done.focus();
  return well;
}

/** A line of the last values. *format* makes words of a value. */
export function chart(title, format, limit = 120) {
  const values = [];
  const line = s("polyline", { class: "line", "vector-effect": "non-scaling-stroke" });
  const area = s("polygon", { class: "area" });
  const now = h("strong", {}, "—");
  const most = h("span", { class: "muted" });
  const drawing = s("svg", { viewBox: "0 0 300 90", preserveAspectRatio: "none", role: "img", "aria-label": title }, s("path", { class: "grid", d: "M0 22.500H300M0 45H300M0 67.500H300" }), area, line);
  const element = h("figure", { class: "chart panel" }, h("figcaption", {}, h("span", {}, title), now), drawing, h("div", { class: "foot" }, most, h("span", { class: "muted" }, "last 2 minutes")));
  return {
    element,
    push(value) {
      values.push(value);
      if (values.length > limit) values.shift();
      const top = Math.max(...values, 1e-9) * 1.15;
      const points = values.map((v, n) => `${(300 * (limit - values.length + n)) / (limit - 1)},${88 - (84 * v) / top}`);
      line.setAttribute("points", points.join(" "));
      area.setAttribute("points", `${points[0].split(",")[0]},90 ${points.join(" ")} 300,90`);
      now.textContent = format(value);
      most.textContent = `most ${format(Math.max(...values))}`;
      drawing.setAttribute("aria-label", `${title}: ${format(value)} now, ${format(Math.max(...values))} at most`);
    },
  };
}

export function tabs(items, current) {
  return h(
    "nav",
    { class: "tabs", "aria-label": "Parts" },
    items.map(([id, words, href]) => h("a", { href, "aria-current": id === current ? "page" : undefined }, words)),
  );
}

export const facts = (pairs) => h("dl", { class: "facts panel" }, pairs.filter(([, v]) => v !== undefined && v !== "" && v !== null && v.length !== 0).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

export const field = (label, input, hint) => {
  input.id ||= `f${Math.random().toString(36).slice(2)}`;
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint && h("p", { class: "hint" }, hint));
};
