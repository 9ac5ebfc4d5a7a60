// Lists: a table whose rows are renewed in place, what is shown of how many, and the way to more.

import { el, put, sync } from "./dom.js";
import { count } from "./format.js";
import { here } from "./place.js";

/**
 * @template T
 * @typedef {{label: string, cell: (row: T) => string | Node | (string | Node)[], words?: boolean}} Column
 */

/**
 * Show rows in a table of the page. On a phone each row becomes a block, which takes the meaning of
 * a table away from it: so the roles are written out.
 * @template T
 * @param {HTMLTableElement} table
 * @param {Column<T>[]} columns the first one heads the row
 * @param {T[]} rows
 * @param {(row: T) => string} keyOf
 */
export function fill(table, columns, rows, keyOf) {
  if (!table.tHead || table.tHead.rows[0].cells.length !== columns.length) head(table, columns);
  const make = () => line(columns);
  const update = (node, row) =>
    columns.forEach((column, index) => put(node.cells[index].firstChild, ...[column.cell(row)].flat()));
  sync(table.tBodies[0], rows, keyOf, make, update);
  table.hidden = rows.length === 0;
}

function head(table, columns) {
  table.tHead?.remove();
  table.tBodies[0]?.remove();
  const cells = columns.map(({ label, words }) =>
    el("th", { scope: "col", role: "columnheader", class: words && "words" }, label));
  table.append(
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells)),
    el("tbody", { role: "rowgroup" }),
  );
  table.setAttribute("role", "table");
}

function line(columns) {
  const cells = columns.map(({ label, words }, index) => {
    const attributes = { "data-label": label, class: words && "words" };
    return index === 0
      ? el("th", { scope: "row", role: "rowheader", ...attributes }, el("span"))
      : el("td", { role: "cell", ...attributes }, el("span"));
  });
  return el("tr", { role: "row" }, ...cells);
}

/** `51 to 100 of 20,000 tags.` */
export function shown(paragraph, offset, rows, total, things) {
  const range = rows < total ? `${count(offset + 1)} to ${count(offset + rows)} of ` : "";
  put(paragraph, rows ? `${range}${count(total)} ${things}.` : `No ${things} here.`);
}

/** Links to the rows before and after. */
export function pages(paragraph, offset, limit, total) {
  const links = [];
  if (offset > 0) {
    const before = Math.max(0, offset - limit);
    links.push(el("a", { href: here({ offset: before || "" }), rel: "prev" }, "← Before"));
  }
  if (offset + limit < total) {
    links.push(el("a", { href: here({ offset: offset + limit }), rel: "next" }, "More →"));
  }
  put(paragraph, ...links);
}

/** The API's `sort` and `descending` of an order as the forms have it: `rate-` is the most first. */
export function ordered(order, otherwise) {
  const sort = (order || otherwise).replace("-", "");
  return { sort, descending: order?.endsWith("-") ? 1 : 0 };
}
