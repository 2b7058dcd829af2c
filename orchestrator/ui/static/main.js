import { call, get, setToken, whenSignedOut } from "./api.js";
import { fill, h, icon, path } from "./dom.js";
import { connect, disconnect, live, subscribe } from "./live.js";
import { isLimited, may, session } from "./session.js";
import { field } from "./widgets.js";
import { access, doctor, gitops } from "./views/care.js";
import { events } from "./views/events.js";
import { images, node, nodes, volumes } from "./views/nodes.js";
import { networks } from "./views/networks.js";
import { overview } from "./views/overview.js";
import { plan } from "./views/plan.js";
import { stack, stacks } from "./views/stacks.js";
import { task } from "./views/task.js";

const app = document.getElementById("app");
const ROUTES = { "": overview, stacks: (name, part) => (name ? stack(name, part) : stacks()), tasks: (name, one, part) => (one ? task(name, one, part) : stacks()), nodes: (name) => (name ? node(name) : nodes()), networks, volumes, images, events, plan, doctor, gitops, access };
const NAV = [
  ["", "home", "Overview", () => true],
  ["stacks", "stacks", "Stacks", () => true],
  ["nodes", "nodes", "Nodes", () => true],
  ["networks", "networks", "Networks", () => true],
  ["volumes", "volumes", "Volumes", () => true],
  ["images", "images", "Images", () => !isLimited()],
  ["events", "events", "Events", () => true],
  ["plan", "plan", "Plan", () => true],
  ["doctor", "doctor", "Doctor", () => !isLimited()],
  ["gitops", "git", "Git", () => !isLimited()],
  ["access", "access", "Access", () => may("administer")],
];

let view = null;
let content = null;
let nav = null;

function theme(next) {
  if (next) localStorage.setItem("theme", next);
  const wanted = localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = wanted;
  return wanted;
}

function show() {
  if (!content) return;
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  view?.close?.();
  const make = Object.hasOwn(ROUTES, parts[0]) ? ROUTES[parts[0]] : overview;
  view = make(...parts.slice(1).map((part) => part || undefined));
  fill(content, view.element);
  view.update?.();
  document.title = `${view.title} · pystack`;
  for (const one of nav.querySelectorAll("a")) one.toggleAttribute("aria-current", false);
  const here = parts[0] === "tasks" ? "stacks" : parts[0];
  nav.querySelector(`a[data-id="${CSS.escape(here)}"]`)?.setAttribute("aria-current", "page");
  document.body.classList.remove("open");
  content.querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function frame() {
  const status = h("p", { class: "connection", role: "status" });
  nav = h(
    "nav",
    { "aria-label": "Main" },
    NAV.filter(([, , , there]) => there()).map(([id, symbol, words]) => h("a", { href: path(id), "data-id": id }, icon(symbol), h("span", {}, words))),
  );
  content = h("main", { id: "content", tabindex: "-1" });
  const menu = h("button", { type: "button", class: "icon-button menu", "aria-label": "Menu", onClick: () => document.body.classList.toggle("open") }, icon("menu"));
  const toggle = h("button", { type: "button", class: "icon-button", "aria-label": "Light or dark", onClick: () => theme(theme() === "dark" ? "light" : "dark") }, icon("theme"));
  const leave = h("button", { type: "button", class: "icon-button", "aria-label": "Sign out", onClick: signOut }, icon("out"));
  fill(
    app,
    h("a", { class: "skip", href: "#content", onClick: (event) => (event.preventDefault(), content.focus()) }, "Skip to the content"),
    h(
      "aside",
      { class: "side" },
      h("div", { class: "brand" }, h("img", { src: "icon.svg", alt: "", width: 28, height: 28 }), h("span", {}, "pystack"), menu),
      nav,
      h("div", { class: "who" }, h("div", { class: "grow" }, h("strong", {}, session.name), h("span", {}, session.role + (isLimited() ? ` of ${session.stacks.join(", ")}` : ""))), toggle, leave),
    ),
    h("div", { class: "content" }, status, content),
  );
  subscribe(() => {
    status.textContent = live.connected || !live.ready ? "" : "The server does not answer: what is shown may be old. Trying again…";
    status.hidden = !status.textContent;
    view?.update?.();
  });
  show();
}

async function signOut() {
  await call("DELETE", "/v1/session").catch(() => {});
  location.reload();
}

function signedIn(found) {
  Object.assign(session, found);
  setToken(found.token);
  frame();
  connect();
}

function signIn(message = "") {
  disconnect();
  view?.close?.();
  view = content = null;
  const problem = h("p", { class: "trouble", role: "alert", hidden: !message }, message);
  const name = h("input", { type: "text", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false" });
  const password = h("input", { type: "password", autocomplete: "current-password", required: true });
  const submit = h("button", { type: "submit", class: "button primary" }, "Sign in");
  const form = h(
    "form",
    {
      class: "panel sign-in",
      onSubmit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        try {
          signedIn(await call("POST", "/v1/session", { name: name.value, password: password.value }));
        } catch (error) {
          problem.textContent = error.message;
          problem.hidden = false;
          submit.disabled = false;
          password.select();
        }
      },
    },
    h("div", { class: "brand" }, h("img", { src: "icon.svg", alt: "", width: 36, height: 36 }), h("h1", {}, "pystack")),
    problem,
    field("Name", name),
    field("Password", password),
    submit,
    h("p", { class: "hint" }, "On a server, ", h("code", {}, "pystack ui"), " opens this page signed in."),
  );
  get("/v1/session/ways").then(({ oidc }) => oidc && submit.after(h("a", { class: "button", href: "/v1/session/oidc" }, `Sign in with ${oidc}`)), () => {});
  document.title = "Sign in · pystack";
  fill(app, h("main", { class: "center" }, form));
  name.focus();
}

async function begin() {
  theme();
  whenSignedOut(() => signIn("The session has ended."));
  const code = location.hash.match(/^#code=(.+)$/)?.[1];
  if (code) {
    history.replaceState(null, "", "#/"); // a link is good once, and is in no history
    try {
      return signedIn(await call("POST", "/v1/session", { code }));
    } catch (error) {
      return signIn(error.message);
    }
  }
  try {
    signedIn(await get("/v1/session"));
  } catch {
    signIn();
  }
}

addEventListener("hashchange", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
begin();
