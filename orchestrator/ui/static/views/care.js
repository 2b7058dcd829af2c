import { call, get, url } from "../api.js";
import { h, link } from "../dom.js";
import { may } from "../session.js";
import { ask, button, chip, empty, failed, field, head, table, toast } from "../widgets.js";
import { ago } from "../words.js";

export function doctor() {
  const body = h("div", {}, h("p", { class: "muted" }, "Every layer of the networks on every node is looked at…"));
  const check = async (repair) => {
    body.replaceChildren(h("p", { class: "muted", role: "status" }, repair ? "Repairing…" : "Looking…"));
    try {
      const rows = await get(`/v1/doctor${repair ? "?repair=1" : ""}`);
      const wrong = rows.filter((r) => !r.ok);
      const mended = rows.filter((r) => r.repaired);
      body.replaceChildren(
        h("p", { class: "summary" }, h("span", { class: "tag create" }, `${rows.length - wrong.length} checks are well`), wrong.length ? h("span", { class: "tag remove" }, `${wrong.length} are not`) : null, mended.length ? h("span", { class: "tag update" }, `${mended.length} repaired`) : null),
        wrong.length || mended.length
          ? h("div", { class: "panel list" }, [...wrong, ...mended].map((r) => h("div", { class: "item" }, chip(r.ok ? "repaired" : "broken", r.ok ? "good" : "bad"), h("span", { class: "grow" }, h("strong", {}, `${r.check}: ${r.target}`), h("span", { class: "reason" }, r.detail), r.fix ? h("span", { class: "hint" }, r.fix) : null))))
          : h("div", { class: "panel" }, empty("All is well", "What the kernel has is what the plan says.")),
        h("details", { class: "panel block" }, h("summary", {}, "All checks"), h("ul", { class: "verdicts" }, rows.map((r) => h("li", { class: r.ok ? "good" : "bad" }, h("span", { "aria-hidden": "true" }, r.ok ? "✓" : "✗"), h("strong", {}, r.check), ` ${r.target} ${r.detail}`)))),
      );
    } catch (error) {
      body.replaceChildren(h("div", { class: "panel trouble", role: "alert" }, error.message));
    }
  };
  check(false);
  const actions = [button("Look again", () => check(false))];
  if (may("operate")) actions.push(button("Repair", async () => (await ask("Repair?", "What differs from the plan in the kernel of the nodes is put back. Connections through what is well are not touched.", "Repair", "primary")) && check(true), "primary"));
  return { element: h("div", { class: "view" }, head("Doctor", { actions }), body), title: "Doctor" };
}

export function gitops() {
  const body = h("div", {}, h("p", { class: "muted" }, "…"));
  const load = async () => {
    try {
      const rows = await get("/v1/gitops");
      body.replaceChildren(
        ...(rows.length
          ? rows.map((r) =>
              h(
                "section",
                { class: "panel block" },
                h("div", { class: "title" }, h("h2", {}, r.name, " ", chip(r.state)), may("operate") ? h("div", { class: "actions" }, ["sync", "approve", "pause", "resume"].filter((v) => (v === "approve" ? r.state === "waiting" : v === "resume" ? r.state === "paused" : v !== "pause" || r.state !== "paused")).map((verb) => button(verb, () => act(r.name, verb)))) : null),
                h("p", { class: "mono muted" }, `${r.url} ${r.branch} ${r.path}`),
                h("p", {}, h("code", {}, r.commit.slice(0, 12)), ` ${r.subject}`, r.author ? ` by ${r.author}` : "", r.checked ? `, looked at ${ago(r.checked)}` : ""),
                r.problem || r.message ? h("p", { class: "reason" }, r.problem || r.message) : null,
                r.plan.length ? h("pre", { tabindex: "0" }, r.plan.join("\n")) : null,
                r.drift.length ? h("div", {}, h("h3", {}, "Changed by hand"), h("pre", { tabindex: "0" }, r.drift.join("\n"))) : null,
                h("p", {}, Object.entries(r.stacks).map(([name, revision]) => [link(["stacks", name], name), ` revision ${revision} `])),
              ),
            )
          : [empty("No repository is followed", "pystack gitops add URL makes one the truth.")]),
      );
    } catch (error) {
      body.replaceChildren(h("div", { class: "panel trouble", role: "alert" }, error.message));
    }
  };
  const act = (name, verb) => call("PUT", url("gitops", name, verb)).then(() => (toast(`${verb} ${name}: done`), load()), failed);
  load();
  return { element: h("div", { class: "view" }, head("Git", { actions: [button("Look again", load)] }), body), title: "Git" };
}

export function access() {
  const users = table({
    caption: "Users",
    key: (u) => u.name,
    empty: empty("No user", "Whoever may use the socket signs in by pystack ui."),
    columns: [
      { title: "User", cell: (u) => u.name },
      { title: "Role", cell: (u) => u.role },
      { title: "Stacks", class: "mono", cell: (u) => u.stacks.join(", ") },
      { title: "Created", cell: (u) => ago(u.created) },
      { title: "", cell: (u) => remove("users", u.name) },
    ],
  });
  const tokens = table({
    caption: "Tokens",
    key: (t) => t.name,
    empty: empty("No token"),
    columns: [
      { title: "Token", cell: (t) => t.name },
      { title: "Role", cell: (t) => t.role },
      { title: "Stacks", class: "mono", cell: (t) => t.stacks.join(", ") },
      { title: "Expires", cell: (t) => t.expires || "never" },
      { title: "", cell: (t) => remove("tokens", t.name) },
    ],
  });
  const log = table({
    caption: "Log of changes",
    key: (l) => l.id,
    empty: empty("No change yet"),
    columns: [
      { title: "Time", cell: (l) => new Date(l.time * 1000).toLocaleString([], { hour12: false }) },
      { title: "Who", cell: (l) => l.user },
      { title: "From", class: "mono", cell: (l) => l.source },
      { title: "What", class: "mono wide", cell: (l) => l.action },
      { title: "Outcome", cell: (l) => chip(l.outcome ?? "begun") },
      { title: "Plan, or why not", class: "note", cell: (l) => l.steps?.slice(0, 6).join("; ") || l.target || l.message || "" },
    ],
  });
  const name = h("input", { type: "text", required: true, autocomplete: "off" });
  const password = h("input", { type: "password", autocomplete: "new-password" });
  const role = h("select", {}, ["viewer", "operator", "admin"].map((r) => h("option", { value: r }, r)));
  const patterns = h("input", { type: "text", value: "*", autocomplete: "off" });
  const secret = h("p", { class: "secret", role: "status" });
  const load = async () => {
    try {
      const [u, t, l] = await Promise.all([get("/v1/users"), get("/v1/tokens"), get("/v1/audit-log?last=200")]);
      users.update(u);
      tokens.update(t);
      log.update(l.reverse());
    } catch (error) {
      failed(error);
    }
  };
  const remove = (kind, one) =>
    button("Remove", async () => {
      if (await ask(`Remove ${one}?`, "Whoever uses it is refused from now on.", "Remove")) call("DELETE", url(kind, one)).then(load, failed);
    }, "", { "aria-label": `Remove ${one}` });
  const make = async (kind) => {
    const stacks = patterns.value.split(/[\s,]+/).filter(Boolean);
    const body = kind === "users" ? { role: role.value, stacks, password: password.value } : { role: role.value, stacks };
    try {
      const made = await call("PUT", url(kind, name.value), body);
      secret.textContent = made.secret ? `The token, shown this once: ${made.secret}` : "";
      toast(`${name.value} is there`);
      password.value = "";
      await load();
    } catch (error) {
      failed(error);
    }
  };
  load();
  return {
    element: h(
      "div",
      { class: "view" },
      head("Access"),
      h("h2", {}, "Users"),
      users.element,
      h("h2", {}, "Tokens"),
      tokens.element,
      h("h2", {}, "Add one"),
      h("form", { class: "panel block", onSubmit: (event) => event.preventDefault() }, h("div", { class: "pair" }, field("Name", name), field("Role", role), field("Stacks", patterns, "patterns, such as shop-*; * for all"), field("Password", password, "of a user")), h("div", { class: "row" }, button("Add user", () => make("users"), "primary"), button("Add token", () => make("tokens"))), secret),
      h("h2", {}, "Log of changes"),
      log.element,
    ),
    title: "Access",
  };
}
