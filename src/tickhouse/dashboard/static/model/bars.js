// The bars of one symbol and interval: history from gold, then whatever the live feed replaces.

/** @typedef {import("../api/rest.js").Row} Row */

export class Bars {
  constructor() {
    /** @type {Row[]} rising by start */
    this.rows = [];
  }

  /** @param {Row[]} rows rising by start */
  replace(rows) {
    this.rows = rows.slice();
  }

  /** @returns {Row | undefined} */
  get last() {
    return this.rows[this.rows.length - 1];
  }

  /**
   * Take bars that changed.
   *
   * @param {Row[]} changed
   * @returns {Row[] | null} rows from the last one known on, if that is all that changed; null if
   *   an older one did
   */
  apply(changed) {
    const lastStart = this.last?.[0] ?? -Infinity;
    let isOlder = false;
    for (const row of changed) {
      const at = this.position(row[0]);
      if (this.rows[at]?.[0] === row[0]) this.rows[at] = row;
      else this.rows.splice(at, 0, row);
      if (row[0] < lastStart) isOlder = true;
    }
    return isOlder ? null : changed.filter((row) => row[0] >= lastStart);
  }

  /** First place whose start is not before `start`. @param {number} start */
  position(start) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle][0] < start) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
