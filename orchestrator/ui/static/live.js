// What the server shows of itself, by kind and key; it says what changed, and views hear of that once a frame.

import { follow, get } from "./api.js";

const KINDS = ["nodes", "stacks", "tasks", "rollouts", "networks", "volumes"];
const KEPT = 300;

export const live = { events: [], connected: false, ready: false };
for (const kind of KINDS) live[kind] = new Map();

const listeners = new Set();
let pending = false;

function changed() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    for (const listen of [...listeners]) listen();
  });
}

export function subscribe(listen) {
  listeners.add(listen);
  return () => listeners.delete(listen);
}

export const sorted = (kind, key = kind.slice(0, -1)) =>
  [...live[kind].values()].sort((a, b) => String(a[key] ?? a.name).localeCompare(String(b[key] ?? b.name), "en", { numeric: true }));

let close = null;
let fresh = false;

export function connect() {
  disconnect();
  fresh = true;
  close = follow(
    "/v1/live",
    {
      rows({ put = {}, gone = {} }) {
        if (fresh) for (const kind of KINDS) live[kind].clear(); // of a connection before this one
        fresh = false;
        for (const [kind, rows] of Object.entries(put)) for (const [key, row] of Object.entries(rows)) live[kind]?.set(key, row);
        for (const [kind, keys] of Object.entries(gone)) for (const key of keys) live[kind]?.delete(key);
        live.connected = live.ready = true;
        changed();
      },
      past(events) {
        live.events = events;
        changed();
      },
      change(event) {
        live.events.push(event);
        if (live.events.length > KEPT) live.events.splice(0, live.events.length - KEPT);
        changed();
      },
    },
    (source) => {
      live.connected = false;
      fresh = true;
      changed();
      if (source.readyState !== EventSource.CLOSED) return;
      get("/v1/stacks").catch(() => {}); // whose session has ended with its server is asked to sign in
      setTimeout(() => close && connect(), 3000);
    },
  );
}

export function disconnect() {
  close?.();
  close = null;
  live.connected = false;
}
