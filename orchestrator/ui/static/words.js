// States and quantities in words.

export const TONE = {
  running: "good", healthy: "good", ready: "good", done: "good", good: "good", active: "good", succeeded: "good",
  failed: "bad", down: "bad", unhealthy: "bad", refused: "bad", unreachable: "bad", aborted: "bad", unknown: "bad",
  pending: "busy", waiting: "busy", starting: "busy", pulling: "busy", created: "busy", restarting: "warn", stopping: "busy",
  begun: "busy", drain: "warn", pause: "warn", paused: "warn", drifted: "warn", left: "warn", superseded: "calm", degraded: "warn", updating: "busy",
  exited: "calm", stopped: "calm",
};

export function bytes(value) {
  if (!value) return "0";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  const number = value / 2 ** (10 * power);
  return `${number >= 100 || power === 0 ? Math.round(number) : number.toFixed(1)} ${units[power]}`;
}

export function ago(time) {
  const at = typeof time === "number" ? time * 1000 : Date.parse(time);
  if (!at || Number.isNaN(at) || at < 1e11) return "";
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const clock = (time) => new Date(time * 1000).toLocaleTimeString([], { hour12: false });

/** A task in one word for people: running but unhealthy is not well. */
export function stateOf(task) {
  if (task.state === "running" && task.health === "unhealthy") return "unhealthy";
  if (task.state === "running" && task.health === "starting") return "starting";
  if (task.state === "exited" && task.desired === "stopped") return "stopped";
  if (task.state === "exited" && task.exit_code) return "failed";
  return task.state;
}

export const isBad = (task) => ["failed", "unhealthy", "unknown", "restarting"].includes(stateOf(task)) || Boolean(task.error);

export function stackState(stack, tasks, rollout) {
  if (rollout?.state === "running") return "updating";
  if (tasks.some(isBad)) return "degraded";
  if (stack.wanted && stack.running === 0 && tasks.every((t) => stateOf(t) === "stopped" || t.state === "exited")) return "stopped";
  if (tasks.some((t) => TONE[stateOf(t)] === "busy")) return "starting";
  return "healthy";
}
