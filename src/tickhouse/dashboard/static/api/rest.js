// Plain GET requests; every failure is an Error that says what to show.

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function getJson(path, options) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error ?? `the server answered ${response.status}`);
  return body;
}

export const getSnapshot = () => getJson("/api/v1/snapshot");
export const getPipeline = () => getJson("/api/v1/pipeline");

/**
 * @param {string} symbol
 * @param {string} interval
 * @param {number} limit
 * @param {AbortSignal} signal
 * @returns {Promise<{symbol: string, interval: string, version: number | null, rows: Row[]}>}
 * @typedef {[number, number?, number?, number?, number?, number?, number?, boolean?]} Row
 */
export function getCandles(symbol, interval, limit, signal) {
  const path = symbol.split("/").map(encodeURIComponent).join("/");
  return getJson(`/api/v1/candles/${path}?interval=${interval}&limit=${limit}`, { signal });
}

/**
 * @param {string} symbol
 * @param {number} fromS UNIX seconds
 * @param {AbortSignal} signal
 * @returns {Promise<{gaps: import("../model/gaps.js").Gap[]}>}
 */
export function getGaps(symbol, fromS, signal) {
  return getJson(`/api/v1/gaps?symbol=${encodeURIComponent(symbol)}&from=${Math.max(Math.floor(fromS), 0)}`, { signal });
}
