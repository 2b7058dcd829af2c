// A shell in a task: xterm.js over a WebSocket.

import { url } from "./api.js";
import { h } from "./dom.js";
import { button } from "./widgets.js";

/** xterm.js puts its colours into <style> elements, which the page's policy forbids: they go into a constructed sheet instead. */
function withSheets(make) {
  const original = document.createElement;
  document.createElement = function (tag, ...rest) {
    const element = original.call(document, tag, ...rest);
    if (String(tag).toLowerCase() !== "style") return element;
    const sheet = new CSSStyleSheet();
    const stand = original.call(document, "template");
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    Object.defineProperty(stand, "textContent", { set: (text) => sheet.replaceSync(text), get: () => "" });
    stand.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
      HTMLElement.prototype.remove.call(stand);
    };
    return stand;
  };
  try {
    return make();
  } finally {
    document.createElement = original;
  }
}

export function terminal(stack, name) {
  const place = h("div", { class: "shell" });
  const note = h("span", { class: "muted", role: "status" }, "Connecting…");
  const element = h("div", { class: "stretch" }, h("div", { class: "row tools" }, button("New shell", () => begin()), note), place);
  let socket = null;
  let screen = null;
  let observer = null;
  let closed = false;

  const end = () => {
    observer?.disconnect();
    socket?.close();
    screen?.dispose();
    socket = screen = observer = null;
    place.replaceChildren();
  };

  async function begin() {
    end();
    note.textContent = "Connecting…";
    const [{ Terminal }, { FitAddon }] = await Promise.all([import("./vendor/xterm.mjs"), import("./vendor/addon-fit.mjs")]);
    if (closed) return;
    const fit = new FitAddon();
    screen = withSheets(() => {
      const made = new Terminal({ fontSize: 13, fontFamily: "ui-monospace, 'DejaVu Sans Mono', monospace", cursorBlink: true, screenReaderMode: true, theme: { background: "#0d1117", foreground: "#e6edf3" } });
      made.loadAddon(fit);
      made.open(place);
      return made;
    });
    const own = (socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${url("stacks", stack, "tasks", name, "shell")}`));
    own.binaryType = "arraybuffer";
    const size = () => {
      if (!screen || !place.isConnected) return;
      fit.fit();
      if (own.readyState === WebSocket.OPEN) own.send(JSON.stringify({ cols: screen.cols, rows: screen.rows }));
    };
    observer = new ResizeObserver(size);
    observer.observe(place);
    const encoder = new TextEncoder();
    screen.onData((text) => own.readyState === WebSocket.OPEN && own.send(encoder.encode(text)));
    screen.onBinary((text) => own.readyState === WebSocket.OPEN && own.send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    own.onopen = () => {
      note.textContent = `A shell in ${name}. Whatever you do there is gone with its container.`;
      size();
      screen?.focus();
    };
    own.onmessage = ({ data }) => screen?.write(new Uint8Array(data));
    own.onclose = () => {
      if (own === socket) note.textContent = "The shell has ended.";
    };
    own.onerror = () => (note.textContent = "The shell does not start: has the image one, and does the task run?");
  }

  let begun = false;
  return {
    element,
    close() {
      closed = true;
      end();
    },
    update(row) {
      if (row?.id && !begun) {
        begun = true;
        begin();
      }
    },
  };
}
