// The list of sites.

import { get } from "./api.js";
import { byId, el } from "./dom.js";
import { ago, coarse, count, rate, share, siteName, size } from "./format.js";
import { sinkLine } from "./overview.js";
import { link } from "./place.js";
import { fill, ordered, pages, shown } from "./table.js";

const LIMIT = 100;

const FIRST = [
  { label: "Site", cell: ({ site }) => (site ? el("a", { href: link("tags", { site }) }, site) : siteName(site)) },
  { label: "Rate", cell: (line) => rate(line.rate) },
  { label: "Last reading", cell: (line) => ago(line.last_reading_seconds) },
  { label: "Received", cell: (line) => count(line.received) },
  { label: "= accepted", cell: (line) => count(line.accepted) },
  { label: "+ duplicates", cell: (line) => count(line.duplicates) },
  { label: "+ refused", cell: refused, words: true },
];
const LAST = [
  { label: "Balances", cell: ({ balanced }) => (balanced ? "✓ yes" : "✗ no") },
  { label: "Key", cell: key, words: true },
];

/** The view's place on the page, and how it is loaded and shown. */
export const sites = {
  name: "sites",
  form: byId("view-sites").querySelector("form"),

  async load(parameters, signal) {
    const offset = Number(parameters.get("offset") ?? 0);
    const order = ordered(parameters.get("order"), "site");
    const query = { search: parameters.get("search") ?? "", ...order, offset, limit: LIMIT };
    show(await get("sites", query, signal), offset);
  },
};

function show({ total, sites: lines }, offset) {
  const view = byId("view-sites");
  fill(byId("sites-table"), columns(lines), lines, ({ site }) => site);
  shown(view.querySelector(".shown"), offset, lines.length, total, "sites");
  pages(view.querySelector(".pages"), offset, LIMIT, total);
}

function columns(lines) {
  const names = [...new Set(lines.flatMap((line) => Object.keys(line.sinks)))];
  const sinks = names.map((name) => ({
    label: name,
    words: true,
    cell: (line) => (line.sinks[name] ? sinkLine(line.sinks[name]) : "–"),
  }));
  return [...FIRST, ...sinks, ...LAST];
}

function refused({ site, rejected, refused: reasons }) {
  const kept = Object.entries(reasons).map(([reason, number]) =>
    el("a", { class: "reason", href: link("letters", { site, reason }) }, `${reason} ${count(number)}`));
  return [count(rejected), ...kept];
}

function key({ key_bytes_per_second: bytes, key_share: part, key_seconds_until_limit: left }) {
  if (bytes === null || bytes === undefined) return "–";
  const forecast = left === null ? "" : `, full in ${coarse(left)} at this growth`;
  return `${share(part)} (${size(Math.round(bytes))}/s)${forecast}`;
}
