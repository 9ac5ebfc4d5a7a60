// The list of tags, and the one that is looked at more closely.

import { get } from "./api.js";
import { Chart, spark } from "./charts.js";
import { byId, el, facts, put } from "./dom.js";
import { ago, count, duration, siteName, value, when } from "./format.js";
import { here, link } from "./place.js";
import { fill, ordered, pages, shown } from "./table.js";

const LIMIT = 50;
const WORDS = {
  stale: "silent",
  flat: "unchanged",
  ahead: "clock ahead",
  behind: "clock behind",
  disorder: "out of order",
};

const COLUMNS = [
  { label: "Tag", cell: ({ site, pi_tag: tag }) => el("a", { href: here({ at: site, tag }) }, `${siteName(site)} / ${tag}`) },
  { label: "Last value", cell: (tag) => value(tag.last_value) },
  { label: "Received", cell: (tag) => ago(tag.age_seconds) },
  { label: "1 min", cell: (tag) => value(tag.average_1m) },
  { label: "5 min", cell: (tag) => value(tag.average_5m) },
  { label: "30 min", cell: (tag) => value(tag.average_30m) },
  { label: "Last half hour", cell: (tag) => spark(tag.spark) },
  { label: "State", cell: ({ states }) => states.map((state) => WORDS[state] ?? state).join(", ") || "✓", words: true },
];

let chart;

/** The view's place on the page, and how it is loaded and shown. */
export const tags = {
  name: "tags",
  form: byId("view-tags").querySelector("form"),

  async load(parameters, signal) {
    const offset = Number(parameters.get("offset") ?? 0);
    const filters = Object.fromEntries(["search", "site", "state"].map((name) => [name, parameters.get(name) ?? ""]));
    const query = { ...filters, ...ordered(parameters.get("order"), "tag"), offset, limit: LIMIT };
    const [list, one] = await Promise.all([get("tags", query, signal), chosen(parameters, signal)]);
    showOne(one);
    show(list, offset);
  },
};

// A tag that is not known (any more) is as good as none: the list beside it stays.
async function chosen(parameters, signal) {
  if (!parameters.has("tag")) return null;
  const query = { site: parameters.get("at") ?? "", pi_tag: parameters.get("tag") };
  try {
    return await get("tag", query, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function show({ total, tags: lines }, offset) {
  const view = byId("view-tags");
  fill(byId("tags-table"), COLUMNS, lines, ({ site, pi_tag: tag }) => `${site}/${tag}`);
  shown(view.querySelector(".shown"), offset, lines.length, total, "tags");
  pages(view.querySelector(".pages"), offset, LIMIT, total);
}

function showOne(tag) {
  byId("tag").hidden = tag === null;
  if (tag === null) return;
  put(byId("tag-title"), `${siteName(tag.site)} / ${tag.pi_tag}`);
  byId("tag-close").setAttribute("href", here({ at: "", tag: "" }));
  facts(byId("tag-facts"), details(tag));
  chart ??= new Chart(byId("chart-tag"), value, { band: true });
  drawMinutes(tag.series);
}

// The bridge leaves out the minutes without a reading: in the chart they are a gap.
function drawMinutes(series) {
  const places = new Map(series.at.map((at, index) => [at, index]));
  const at = [];
  for (let minute = series.at[0]; minute <= series.at.at(-1); minute += 60) at.push(minute);
  const values = (of) => at.map((minute) => (places.has(minute) ? of[places.get(minute)] : null));
  chart.show(at, [
    { label: "average", values: values(series.average) },
    { label: "lowest", values: values(series.minimum) },
    { label: "highest", values: values(series.maximum) },
  ]);
}

function details(tag) {
  const states = tag.states.map((state) => WORDS[state] ?? state).join(", ");
  return [
    ["State", states ? `! ${states}` : "✓ nothing to note"],
    ["Last value", value(tag.last_value)],
    ["Its time", when(tag.last_event_time)],
    ["Received", [when(tag.last_received_at), ` (${ago(tag.age_seconds)})`]],
    ["Usual interval", duration(tag.usual_interval_seconds)],
    ["Average of 1, 5, 30 minutes", [tag.average_1m, tag.average_5m, tag.average_30m].map(value).join(" · ")],
    ["Readings in 30 minutes", count(tag.count_30m)],
    ["Its clock", offset(tag.clock_offset_seconds)],
    ["Out of time order in 30 minutes", count(tag.out_of_order_30m)],
    ["Unchanged for", duration(tag.unchanged_seconds)],
    ["Site", el("a", { href: link("sites", { search: tag.site }) }, siteName(tag.site))],
  ];
}

// Received − event: positive where the sensor's clock is behind (or the reading was on its way).
function offset(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (Math.abs(seconds) < 1) return "right, to the second";
  return `${duration(Math.abs(seconds))} ${seconds > 0 ? "behind, or the readings take that long" : "ahead"}`;
}
