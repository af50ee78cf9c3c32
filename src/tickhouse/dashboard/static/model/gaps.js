// Gaps on the time axis of a chart: which bars they touch, and where bars are missing for them.

/**
 * @typedef {object} Gap
 * @property {string} name @property {string} kind @property {string} stream
 * @property {number} from_ms @property {number} to_ms
 * @property {string[]} symbols @property {string} cause
 * @property {string | null} filled_by @property {number | null} trades
 */

/** A long gap does not push the candles off the chart: so many places without a bar at each end. */
export const EDGE_SLOTS = 30;

/**
 * The places that gaps take on the time axis, where bars are or would be, rising. A missing gap
 * wins over a filled one.
 *
 * @param {Gap[]} gaps
 * @param {number} stepS length of a bar in seconds
 * @param {number} fromS start of the oldest bar shown; what is older is left out
 * @returns {{time: number, gap: Gap}[]}
 */
export function gapSlots(gaps, stepS, fromS) {
  /** @type {Map<number, Gap>} */
  const slots = new Map();
  for (const gap of gaps) {
    const first = Math.max(Math.floor(gap.from_ms / 1000 / stepS), Math.floor(fromS / stepS));
    const last = Math.floor(Math.max(gap.to_ms - 1, gap.from_ms) / 1000 / stepS);
    for (let slot = first; slot <= last; slot += 1) {
      if (last - first >= 2 * EDGE_SLOTS && slot === first + EDGE_SLOTS) slot = last - EDGE_SLOTS + 1;
      const known = slots.get(slot * stepS);
      if (!known || (known.filled_by !== null && gap.filled_by === null)) slots.set(slot * stepS, gap);
    }
  }
  return [...slots].map(([time, gap]) => ({ time, gap })).sort((a, b) => a.time - b.time);
}

/** The gap that holds most of a bar, a missing one before a filled one. @param {Gap[]} gaps @param {number} time @param {number} stepS */
export function gapAt(gaps, time, stepS) {
  const touching = gaps.filter((gap) => gap.from_ms < (time + stepS) * 1000 && Math.max(gap.to_ms, gap.from_ms + 1) > time * 1000);
  return touching.find((gap) => gap.filled_by === null) ?? touching[0] ?? null;
}
