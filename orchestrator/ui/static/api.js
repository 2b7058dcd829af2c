// The server's REST API, as a browser asks it: the session's token goes with what changes something.

let token = "";
let onSignedOut = () => {};

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const setToken = (value) => (token = value);
export const whenSignedOut = (listener) => (onSignedOut = listener);

async function send(method, path, body) {
  const headers = {};
  if (method !== "GET" || path.includes("repair=1")) headers["X-CSRF-Token"] = token;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin" });
  } catch {
    throw new ApiError(0, "the server does not answer");
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  let message = text;
  try {
    message = JSON.parse(text).message;
  } catch {
    // not the server's own words
  }
  if (reply.status === 401 && path !== "/v1/session") onSignedOut();
  throw new ApiError(reply.status, message || `status ${reply.status}`);
}

export async function call(method, path, body) {
  const reply = await send(method, path, body);
  const text = await reply.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path) => call("GET", path);

/** The events of an answer that is one JSON object a line. */
export async function* events(path, body) {
  const reply = await send("POST", path, body ?? {});
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

/** Server-sent events: *handlers* by name. Returns what closes it. */
export function follow(path, handlers, onLost = () => {}) {
  const source = new EventSource(path);
  for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (event) => handle(JSON.parse(event.data), source));
  source.addEventListener("error", () => onLost(source));
  return () => source.close();
}

export const url = (...parts) => `/v1/${parts.map(encodeURIComponent).join("/")}`;
