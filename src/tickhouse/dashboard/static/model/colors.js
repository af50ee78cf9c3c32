// Colour of a change: grey at 0, full at the limit of the scale, which fits the market of the moment.

const DOWN = [[58, 67, 83], [138, 45, 62], [222, 50, 78]];
const UP = [[58, 67, 83], [28, 112, 84], [20, 163, 110]];
const UNKNOWN = "rgb(52 58 70)";
export const LIMITS = [0.15, 0.3, 0.6, 1.5, 3];

/** @param {number | null} change in percent @param {number} limit in percent */
export function changeColor(change, limit) {
  if (change === null) return UNKNOWN;
  const stops = change < 0 ? DOWN : UP;
  const at = Math.min(Math.abs(change) / limit, 1) * 2;
  const index = Math.min(Math.floor(at), 1);
  const part = at - index;
  return `rgb(${stops[index].map((value, i) => Math.round(value + (stops[index + 1][i] - value) * part)).join(" ")})`;
}

/**
 * The scale that most changes fit into; it grows at once and shrinks only well below the next step.
 *
 * @param {(number | null)[]} changes @param {number} current
 */
export function fittingLimit(changes, current) {
  const sizes = changes.filter((change) => change !== null).map(Math.abs).sort((a, b) => a - b);
  if (!sizes.length) return LIMITS[LIMITS.length - 1];
  const usual = sizes[Math.floor((sizes.length - 1) * 0.85)];
  const largest = LIMITS[LIMITS.length - 1];
  const needed = LIMITS.find((limit) => usual <= limit) ?? largest;
  const roomy = LIMITS.find((limit) => usual <= limit * 0.7) ?? largest;
  return needed > current ? needed : Math.min(roomy, current);
}
