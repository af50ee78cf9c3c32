// Numbers and times as text. Everything is English and UTC, whatever the browser's locale.

/** @param {number | null | undefined} price */
export function decimals(price) {
  const size = Math.abs(price ?? 0);
  if (size >= 1) return 2;
  return size >= 0.01 ? 4 : 8;
}

/** @param {number | null | undefined} price @param {number} [places] */
export function formatPrice(price, places = decimals(price)) {
  if (price === null || price === undefined) return "–";
  return price.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: Math.max(places, 2) });
}

/** @param {number | null | undefined} percent */
export function formatPercent(percent) {
  if (percent === null || percent === undefined) return "–";
  const rounded = Math.abs(percent) < 0.005 ? 0 : percent;
  const sign = rounded > 0 ? "+" : rounded < 0 ? "−" : "";
  return `${sign}${Math.abs(rounded).toFixed(2)}%`;
}

const UNITS = /** @type {const} */ ([[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]);

/** @param {number | null | undefined} value */
export function formatShort(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, letter] of UNITS) {
    if (Math.abs(value) >= size * 0.99995) {
      const scaled = value / size;
      return `${scaled.toFixed(Math.abs(scaled) >= 100 ? 1 : 2)}${letter}`;
    }
  }
  return value.toLocaleString("en-US", { maximumFractionDigits: Math.abs(value) < 10 ? 4 : 0 });
}

/** @param {number | null | undefined} value */
export function formatCount(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");
}

/** @param {number | null | undefined} milliseconds */
export function formatDuration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 10_000) return `${(Math.max(milliseconds, 0) / 1000).toFixed(1)} s`;
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

/** @param {number} milliseconds UNIX milliseconds */
export function formatClock(milliseconds) {
  return new Date(milliseconds).toISOString().slice(11, 19);
}

/** @param {number} milliseconds UNIX milliseconds */
export function formatDateTime(milliseconds) {
  return new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");
}

/** A symbol without its venue: BTCUSDT of BINANCE:BTCUSDT. @param {string} symbol */
export const shortSymbol = (symbol) => symbol.slice(symbol.indexOf(":") + 1);

/** @param {string} symbol */
export const venueOf = (symbol) => symbol.slice(0, Math.max(symbol.indexOf(":"), 0));

/** A number with its noun. @param {number} number @param {string} noun */
export const counted = (number, noun) => `${formatCount(number)} ${noun}${number === 1 ? "" : "s"}`;

/** @param {number | null | undefined} change */
export const direction = (change) => (!change || Math.abs(change) < 0.005 ? "" : change > 0 ? "up" : "down");
