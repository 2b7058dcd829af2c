import { call } from "../api.js";
import { h, path } from "../dom.js";
import { may } from "../session.js";
import { button, carryOut, empty, field, head, planView } from "../widgets.js";

const EXAMPLE = `name: hello
services:
  web:
    image: nginx
    ports: ["8080:80"]
    deploy: {replicas: 2}
`;

export function plan() {
  const text = h("textarea", { rows: 18, spellcheck: "false", class: "mono", placeholder: EXAMPLE });
  const file = h("input", { type: "file", accept: ".yml,.yaml" });
  const name = h("input", { type: "text", placeholder: "if the file has no name:", autocomplete: "off" });
  const note = h("input", { type: "text", placeholder: "kept in the history", autocomplete: "off" });
  const result = h("div", { class: "result", "aria-live": "polite" }, h("div", { class: "panel" }, empty("No plan yet", "What would change stands here, step by step, each with its reason.")));
  const make = button("Make the plan", () => work(), "primary");
  file.addEventListener("change", async () => {
    if (file.files[0]) text.value = await file.files[0].text();
  });

  async function work() {
    make.disabled = true;
    result.replaceChildren(h("p", { class: "muted" }, "Planning…"));
    try {
      const read = await call("POST", "/v1/stackfile", { text: text.value, name: name.value || "stack" });
      const options = { remove_orphans: true, message: note.value };
      const made = await call("POST", "/v1/plan", { stack: read.stack, options });
      const log = h("ol", { class: "progress", hidden: true, tabindex: "0", "aria-label": "Progress" });
      const changes = made.steps.filter((one) => one.action !== "none").length;
      const apply = button(`Apply these ${changes} steps`, async () => {
        apply.disabled = true;
        log.hidden = false;
        const well = await carryOut("/v1/apply", { stack: read.stack, options, plan: made }, log);
        log.after(h("p", {}, h("a", { class: "button", href: path("stacks", made.stack) }, well ? `See ${made.stack}` : `Look at ${made.stack}`)));
      }, "primary");
      result.replaceChildren(
        h("h2", {}, `Plan of ${made.stack}`),
        read.warnings?.length ? h("ul", { class: "warnings" }, read.warnings.map((w) => h("li", {}, w))) : "",
        planView(made),
        changes && may("operate") ? h("div", { class: "row" }, apply, h("span", { class: "muted" }, "Exactly this is done, or nothing if the state has moved meanwhile.")) : "",
        log,
      );
    } catch (error) {
      result.replaceChildren(h("div", { class: "panel trouble", role: "alert" }, h("pre", {}, error.message)));
    } finally {
      make.disabled = false;
    }
  }
  return {
    element: h(
      "div",
      { class: "view" },
      head("Plan a stack file", { below: h("p", { class: "muted" }, "A plan changes nothing. The file stands alone: what it would build or read from other files is for pystack up.") }),
      h("div", { class: "columns even" }, h("section", {}, field("Stack file", text), h("div", { class: "pair" }, field("Or pick one", file), field("Name of the stack", name)), field("Why", note), h("div", { class: "row" }, make)), h("section", {}, result)),
    ),
    title: "Plan",
  };
}
