// Which of its states the page is in. Pure, so that every transition can be tested.

export const STALE_MS = 3_000;
export const DISCONNECTED_MS = 15_000;

/**
 * @typedef {"connecting" | "waiting" | "live" | "stale" | "disconnected"} State
 * @typedef {object} Facts
 * @property {boolean} socketOpen
 * @property {boolean} wasOpen      the socket has been open before
 * @property {number} failures      attempts that failed in a row
 * @property {number} silenceMs     since the last frame of any kind
 * @property {boolean} isKnown      a heartbeat has told how things are
 * @property {boolean} hasTick      the log has held a trade
 * @property {boolean} hasEnded     every connection of the feed was closed in good order
 * @property {number} tickAgeMs     since the last trade reached the log
 */

/**
 * @param {Facts} facts
 * @returns {{state: State, reason: "" | "socket" | "silence" | "feed" | "ended"}}
 */
export function connectionState(facts) {
  if (!facts.socketOpen) {
    if (!facts.wasOpen && facts.failures === 0) return { state: "connecting", reason: "" };
    return { state: "disconnected", reason: "socket" };
  }
  if (facts.silenceMs >= DISCONNECTED_MS) return { state: "disconnected", reason: "silence" };
  if (!facts.isKnown) return { state: "connecting", reason: "" };
  if (!facts.hasTick) return { state: "waiting", reason: "" };
  if (facts.hasEnded && facts.silenceMs < STALE_MS && facts.tickAgeMs >= STALE_MS) return { state: "stale", reason: "ended" };
  if (facts.tickAgeMs >= DISCONNECTED_MS) return { state: "disconnected", reason: "feed" };
  if (facts.silenceMs >= STALE_MS) return { state: "stale", reason: "silence" };
  if (facts.tickAgeMs >= STALE_MS) return { state: "stale", reason: "feed" };
  return { state: "live", reason: "" };
}
