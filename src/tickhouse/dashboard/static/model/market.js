// The market by columns, as the server sends it; row numbers never change their symbol.

import { UNKNOWN } from "./standing.js";

/**
 * @typedef {object} Columns
 * @property {string[]} symbol @property {string[]} name @property {string[]} sector
 * @property {string[]} industry @property {(number|null)[]} market_cap
 * @property {(number|null)[]} reference @property {string[]} reference_is
 * @property {(number|null)[]} price @property {number[]} at_ms @property {number[]} trades
 * @property {number[]} volume @property {number[]} dollar_volume @property {string[]} source
 * @property {string[]} disagreements @property {number[]} missing_s @property {boolean[]} is_complete
 * @property {import("./standing.js").Standing[]} standing
 */

/** @type {Columns} */
const EMPTY = {
  symbol: [], name: [], sector: [], industry: [], market_cap: [], reference: [], reference_is: [],
  price: [], at_ms: [], trades: [], volume: [], dollar_volume: [], source: [], disagreements: [],
  missing_s: [], is_complete: [], standing: [],
};

export class Market {
  constructor() {
    /** @type {Columns} */
    this.columns = EMPTY;
    /** @type {Map<string, number>} */
    this.numbers = new Map();
  }

  get size() {
    return this.columns.symbol.length;
  }

  /** @param {Columns} columns */
  replace(columns) {
    this.columns = columns;
    this.numbers = new Map(columns.symbol.map((symbol, number) => [symbol, number]));
  }

  /**
   * @param {number[]} rows @param {number[]} prices
   * @returns {number[]} the rows that are known here
   */
  apply(rows, prices) {
    const known = [];
    rows.forEach((row, i) => {
      if (row >= this.size) return;
      this.columns.price[row] = prices[i];
      known.push(row);
    });
    return known;
  }

  /**
   * @param {[number, ...import("./standing.js").Standing][]} told row and its standing
   * @returns {number[]} the rows that are known here
   */
  applyStandings(told) {
    const known = told.filter(([row]) => row < this.size);
    for (const [row, ...standing] of known) this.columns.standing[row] = standing;
    return known.map(([row]) => row);
  }

  /** @param {number | undefined} row */
  standing(row) {
    return (row === undefined ? undefined : this.columns.standing[row]) ?? UNKNOWN;
  }

  /** @param {number} row */
  change(row) {
    const price = this.columns.price[row];
    const reference = this.columns.reference[row];
    return price === null || !reference ? null : (price / reference - 1) * 100;
  }

  /** Whether most symbols have a market value, so that it can size the map. */
  hasCaps() {
    const known = this.columns.market_cap.filter((value) => value !== null).length;
    return known * 2 >= this.size && known > 0;
  }

  /**
   * @param {"cap" | "turnover"} area
   * @returns {import("./treemap.js").Item[]}
   */
  items(area) {
    const { symbol, sector, market_cap, dollar_volume } = this.columns;
    const sizes = area === "cap" ? market_cap : dollar_volume;
    return symbol.map((name, number) => ({ symbol: name, sector: sector[number], size: sizes[number] ?? 0, number }));
  }
}
