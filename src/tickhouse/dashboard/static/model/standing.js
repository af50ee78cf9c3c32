// What a price is worth and where it is from, in words. Pure.

import { formatCount, formatDuration } from "./format.js";

/**
 * What the server tells of a symbol besides its price (see `Standing` in standing.py).
 *
 * @typedef {[word: string, from: string, channel: string, reason: string, every_s: number | null, quoted_ms: number]} Standing
 */

/** @type {Standing} */
export const UNKNOWN = ["", "", "", "", null, 0];
const ACHIEVED = "achieved";
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

/** @param {number | null} seconds */
const cadence = (seconds) => (seconds === null ? "" : `, every ${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`);

/** How a symbol comes. @param {Standing} standing */
export function coverageText([, , channel, reason, every]) {
  const why = !reason || reason === ACHIEVED || reason === "subscribed" ? "" : reason;
  if (channel === "socket") return `on the socket${why ? ` (${why})` : ""}`;
  if (channel === "none") return `not covered${why ? `: ${why}` : ""}`;
  if (channel !== "polling") return "";
  const falls = why.startsWith("silent") ? `${why}: falls back to polling` : why;
  return `polled${cadence(every)}${falls ? ` (${falls})` : ""}`;
}

/** Where a price is from. @param {Standing} standing */
export function sourceText([, from, , , every]) {
  if (from === "quote") return `polled quote${cadence(every)}`;
  return from;
}

/** A moment of today, or with its day if it is another. UTC. @param {number} at @param {number} now */
export function momentText(at, now) {
  const date = new Date(at);
  const clock = date.toISOString().slice(11, 16);
  if (Math.floor(at / DAY_MS) === Math.floor(now / DAY_MS)) return clock;
  const isNear = Math.abs(at - now) < 6 * DAY_MS;
  return `${isNear ? DAYS[date.getUTCDay()] : date.toISOString().slice(0, 10)} ${clock}`;
}

/**
 * The mark beside a symbol: the most important thing that its price alone does not say.
 *
 * @param {Standing} standing
 * @param {number} now UNIX milliseconds
 * @returns {{kind: string, text: string, title: string}} an empty kind means no mark
 */
export function markOf(standing, now) {
  const [word, , channel, , , quoted] = standing;
  const covered = coverageText(standing);
  const title = [wordText(standing, now), covered].filter(Boolean).join("; ");
  if (channel === "none") return { kind: "none", text: "none", title };
  if (word === "stale") return { kind: "stale", text: "stale", title };
  if (word === "halted-or-quiet") return { kind: "quiet", text: "quiet", title };
  if (channel === "polling" || (quoted && channel === "")) return { kind: "polled", text: "polled", title };
  return { kind: "", text: "", title };
}

/** @param {Standing} standing @param {number} now */
export function wordText([word, from, , , , quoted], now) {
  const isOfQuote = quoted > 0 && from !== "trade";
  const of = isOfQuote ? `: quote of ${momentText(quoted, now)} UTC` : "";
  if (word === "stale") return `stale${of}`;
  if (word === "halted-or-quiet") return "halted or quiet: others trade, this one does not";
  return word;
}

/**
 * What the exchange does, in a few words.
 *
 * @param {{state: string, until_ms: number | null, opens_ms: number | null, is_early_close: boolean} | null | undefined} market
 * @param {number} now
 */
export function marketText(market, now) {
  if (!market) return "–";
  if (market.state === "always-open") return "open 24 h";
  const half = market.is_early_close ? " (half day)" : "";
  const opens = market.opens_ms ? `, opens ${momentText(market.opens_ms, now)}` : "";
  if (market.state === "regular") return `regular${half}, until ${momentText(market.until_ms ?? now, now)}`;
  return `${market.state}${opens}${half}`;
}

/** Until the opening bell. @param {any} market @param {number} now */
export const opensIn = (market, now) => (market?.opens_ms ? `opens in ${formatDuration(Math.max(Math.ceil((market.opens_ms - now) / MINUTE_MS) * MINUTE_MS, MINUTE_MS))}` : "");

/**
 * The coverage of all symbols, summed up.
 *
 * @param {{socket: number, polling: number, none: number, silent: number, every_s: number | null} | null | undefined} coverage
 */
export function coverageSum(coverage) {
  if (!coverage) return "";
  const { socket, polling, none, silent, every_s: every } = coverage;
  const parts = [];
  if (socket) parts.push(`${formatCount(socket)} on the socket`);
  if (polling) parts.push(`${formatCount(polling)} polled${cadence(every)}${silent ? ` (${formatCount(silent)} silent on the socket)` : ""}`);
  if (none) parts.push(`${formatCount(none)} not covered`);
  return parts.join(" · ");
}
