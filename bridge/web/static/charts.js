// Lines over time, drawn by uPlot. Beside each chart stands what it says in words, and a table.

import { el, put } from "./dom.js";
import { clock } from "./format.js";

const HEIGHT = 190;
const ROWS = 35;
const MINUTES = [1, 2, 5, 10, 15, 30, 60].map((minutes) => minutes * 60);
const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];

/** Whether the library is there. */
export const available = () => typeof globalThis.uPlot === "function";

/**
 * @typedef {{label: string, values: (number | null)[]}} Line
 */

/** The chart of one figure element of the page. */
export class Chart {
  #figure;
  #unit;
  #options;
  #plot = null;
  #labels = "";
  #canvas = el("div", { class: "canvas", "aria-hidden": "true" });
  #summary = el("p");
  #table = el("details", {}, el("summary", {}, "As a table"));
  #last = null;

  /**
   * @param {HTMLElement} figure
   * @param {(value: number | null) => string} unit how a value is written
   * @param {{band?: boolean, zero?: boolean, whole?: boolean}} options band: the second and third
   *   line are the limits around the first. zero: the scale begins at 0. whole: of whole numbers
   */
  constructor(figure, unit, options = {}) {
    this.#figure = figure;
    this.#unit = unit;
    this.#options = options;
    figure.firstElementChild.append(this.#summary);
    figure.append(this.#canvas, this.#table);
    this.#table.addEventListener("toggle", () => this.#fillTable());
    new ResizeObserver(() => this.#fit()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Show these lines over `at` (Unix seconds). */
  show(at, lines) {
    this.#last = { at, lines };
    put(this.#summary, lines.map((line) => this.#words(line)).join(" "));
    this.#fillTable();
    const labels = lines.map((line) => line.label).join();
    if (labels !== this.#labels) this.#forget();
    this.#labels = labels;
    const data = [at, ...lines.map((line) => line.values)];
    if (this.#plot) this.#plot.setData(data);
    else this.#draw();
  }

  #words({ label, values }) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${label}: nothing yet.`;
    return `${label}: ${this.#unit(known.at(-1))} now, ${this.#unit(Math.max(...known))} at most.`;
  }

  #forget() {
    this.#plot?.destroy();
    this.#plot = null;
  }

  #draw() {
    this.#forget();
    const width = this.#canvas.clientWidth;
    if (!available() || !this.#last || !width) return;
    const { at, lines } = this.#last;
    const data = [at, ...lines.map((line) => line.values)];
    this.#plot = new globalThis.uPlot(this.#settings(width, lines), data, this.#canvas);
  }

  #fit() {
    const width = this.#canvas.clientWidth;
    if (!width) return;
    if (!this.#plot) this.#draw();
    else if (this.#plot.width !== width) this.#plot.setSize({ width, height: HEIGHT });
  }

  #settings(width, lines) {
    const time = (_, seconds) => (seconds === null ? "–" : clock(new Date(seconds * 1000)));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    return {
      width,
      height: HEIGHT,
      scales: { y: { range: this.#options.zero ? fromZero : undefined } },
      series: [{ label: "Time", value: time }, ...lines.map((line, index) => this.#line(line, index))],
      bands: this.#options.band ? [{ series: [3, 2], fill: colour("--band") }] : [],
      axes: [
        { ...axis, size: 30, incrs: MINUTES, values: (_, ticks) => ticks.map((tick) => clock(new Date(tick * 1000)).slice(-8, -3)) },
        { ...axis, size: 78, values: (_, ticks) => ticks.map((tick) => this.#tick(tick)) },
      ],
    };
  }

  #tick(value) {
    return this.#options.whole && !Number.isInteger(value) ? "" : this.#unit(value);
  }

  #line({ label }, index) {
    return {
      label,
      stroke: colour(COLOURS[index % COLOURS.length]),
      dash: DASHES[index % DASHES.length],
      width: 2,
      points: { show: false },
      value: (_, value) => this.#unit(value),
    };
  }

  // Some thousand cells, so only for those who open it.
  #fillTable() {
    if (!this.#table.open || !this.#last) return;
    const { at, lines } = this.#last;
    const step = Math.max(1, Math.ceil(at.length / ROWS));
    const rows = [];
    for (let index = at.length - 1; index >= 0; index -= step) {
      const cells = lines.map((line) => el("td", {}, this.#unit(line.values[index])));
      rows.push(el("tr", {}, el("th", { scope: "row" }, clock(new Date(at[index] * 1000))), ...cells));
    }
    const heads = ["Time", ...lines.map((line) => line.label)].map((label) => el("th", { scope: "col" }, label));
    const title = this.#figure.querySelector("h3, h4").textContent;
    put(
      this.#table,
      el("summary", {}, "As a table"),
      el("table", {}, el("caption", {}, title), el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)),
    );
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A flat line at 0 has a scale, too.
const fromZero = (_, __, max) => [0, max > 0 ? max * 1.05 : 1];

const SVG = "http://www.w3.org/2000/svg";

/** A small line without a scale; a gap where a value is null. Hidden from screen readers: what it
 * shows stands beside it as averages. */
export function spark(values) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 24");
  picture.setAttribute("class", "spark");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", outline(values));
  picture.append(path);
  return picture;
}

function outline(values) {
  const known = values.filter((value) => value !== null);
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  let pen = "M";
  let drawn = "";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const x = (index / Math.max(1, values.length - 1)) * 96 + 2;
    const y = 22 - ((value - low) / span) * 20;
    // A minute alone between two gaps is a dot.
    drawn += `${pen}${x.toFixed(1)} ${y.toFixed(1)}${pen === "M" ? "h.1" : ""}`;
    pen = "L";
  });
  return drawn;
}
