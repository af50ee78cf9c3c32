// Which of its states the page is in. Pure, so that every transition can be tested.

export const STALE_MS = 3_000;
export const DISCONNECTED_MS = 15_000;
/** So many times the server's limit without a trade, and the feed counts as gone. */
export const PATIENCE = DISCONNECTED_MS / STALE_MS;

/**
 * @typedef {"connecting" | "waiting" | "live" | "closed" | "stale" | "disconnected"} State
 * @typedef {"" | "socket" | "silence" | "feed" | "quiet" | "lost" | "ended"} Reason
 * @typedef {object} Facts
 * @property {boolean} socketOpen
 * @property {boolean} wasOpen      the socket has been open before
 * @property {number} failures      attempts that failed in a row
 * @property {number} silenceMs     since the last frame of any kind
 * @property {boolean} isKnown      a heartbeat has told how things are
 * @property {boolean} hasTick      the log has held a trade or quote
 * @property {boolean} hasEnded     every connection of the feed was closed in good order
 * @property {boolean} isLost       the feed's connection was lost and has not come back
 * @property {string} word          the server's word for the feed
 * @property {number} tickAgeMs     since the last trade or quote reached the log
 * @property {number} limitMs       the age from which on the feed is not live
 */

/**
 * @param {Facts} facts
 * @returns {{state: State, reason: Reason}}
 */
export function connectionState(facts) {
  const { silenceMs, tickAgeMs, limitMs } = facts;
  if (!facts.socketOpen) {
    if (!facts.wasOpen && facts.failures === 0) return { state: "connecting", reason: "" };
    return { state: "disconnected", reason: "socket" };
  }
  if (silenceMs >= DISCONNECTED_MS) return { state: "disconnected", reason: "silence" };
  if (!facts.isKnown) return { state: "connecting", reason: "" };
  const isTold = silenceMs < STALE_MS;
  const isOld = !facts.hasTick || tickAgeMs >= STALE_MS;
  if (facts.hasTick && facts.hasEnded && isTold && isOld) return { state: "stale", reason: "ended" };
  if (facts.word === "closed" && isTold) return { state: "closed", reason: "" };
  if (!facts.hasTick) return { state: "waiting", reason: "" };
  if (facts.isLost && isTold && isOld) return { state: tickAgeMs >= DISCONNECTED_MS ? "disconnected" : "stale", reason: "lost" };
  if (facts.word === "halted-or-quiet" && isTold && tickAgeMs >= limitMs) return { state: "stale", reason: "quiet" };
  if (tickAgeMs >= limitMs * PATIENCE) return { state: "disconnected", reason: "feed" };
  if (silenceMs >= STALE_MS) return { state: "stale", reason: "silence" };
  if (tickAgeMs >= limitMs) return { state: "stale", reason: "feed" };
  return { state: "live", reason: "" };
}
