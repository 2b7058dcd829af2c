// Elements without a template language: every text is a text node, so that no name, label or log line is ever markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "css") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name === "class" ? "class" : name, value === true ? "" : String(value));
  }
  element.append(...flat(children));
  return element;
}

function* flat(children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) yield* flat(child);
    else yield child instanceof Node ? child : document.createTextNode(String(child));
  }
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const fill = (element, ...children) => {
  element.replaceChildren(...flat(children));
  return element;
};

/** Has *nodes* in *element*; those that are as they were stay, and with them focus and what a pointer is about to press. */
export function refill(element, nodes) {
  const there = [...element.childNodes];
  nodes.forEach((node, n) => {
    if (!there[n]) element.append(node);
    else if (!there[n].isEqualNode(node)) there[n].replaceWith(node);
  });
  for (const one of there.slice(nodes.length)) one.remove();
}

/** Links lead to our own views alone. */
export const path = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
export const link = (parts, ...children) => h("a", { href: path(...parts) }, ...children);

const PATHS = {
  home: "M4 11l8-7 8 7v9h-5v-6H9v6H4z",
  stacks: "M12 3l9 5-9 5-9-5zM3 12l9 5 9-5M3 16l9 5 9-5",
  nodes: "M4 4h16v6H4zM4 14h16v6H4zM7 7h.01M7 17h.01M11 7h6M11 17h6",
  networks: "M9 3h6v5H9zM3 16h6v5H3zM15 16h6v5h-6zM12 8v4M6 16v-4h12v4",
  volumes: "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0",
  images: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM12 12l8-4.500M12 12v9M12 12L4 7.500",
  events: "M13 3L5 14h6l-1 7 8-11h-6z",
  plan: "M5 4h14v16H5zM8 9l1.500 1.500L12 8M14 9h3M8 15l1.500 1.500L12 14M14 15h3",
  doctor: "M3 12h4l2-5 4 10 2-5h6",
  git: "M7 4v12M7 16a2 2 0 100 4 2 2 0 000-4zM17 6a2 2 0 100 4 2 2 0 000-4zM17 10c0 4-10 2-10 6",
  access: "M14 10a4 4 0 10-3.500 3.900L12 15.500h2V18h3v2h3v-3l-6.200-5.800A4 4 0 0014 10zM9 9.500h.01",
  theme: "M12 3a9 9 0 109 9c-5 2-11-4-9-9z",
  out: "M14 4h5v16h-5M4 12h11M11 8l4 4-4 4",
  menu: "M4 6h16M4 12h16M4 18h16",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.500l4.500 4.500L19 7",
  warn: "M12 4l9 16H3zM12 10v4M12 17h.01",
  search: "M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l4 4",
};

export const icon = (name) =>
  s("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, s("path", { d: PATHS[name] ?? "" }));
