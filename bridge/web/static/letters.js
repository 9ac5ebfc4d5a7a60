// Dead letters: the list, newest first, and one with its bytes.

import { get, url } from "./api.js";
import { byId, el, facts, put } from "./dom.js";
import { count, siteName, size, when } from "./format.js";
import { here } from "./place.js";
import { fill, shown } from "./table.js";

const LIMIT = 50;
const WORDS = {
  topic_malformed: "the topic is not of the agreed form",
  payload_too_large: "too large",
  payload_not_utf8: "not UTF-8",
  payload_not_json: "not JSON",
  payload_not_object: "JSON, but not an object",
  field_missing: "a member is missing",
  field_invalid: "a member is not as agreed",
  site_mismatch: "the site is not the topic's",
  timestamp_out_of_range: "the time is out of range",
};

const COLUMNS = [
  { label: "Received", cell: ({ id, received_at: at }) => el("a", { href: here({ id }) }, when(at)) },
  { label: "Reason", cell: ({ reason }) => WORDS[reason] ?? reason, words: true },
  { label: "Detail", cell: ({ detail }) => detail, words: true },
  { label: "Site", cell: ({ site }) => siteName(site), words: true },
  { label: "Refused by", cell: ({ sink }) => sink ?? "the bridge", words: true },
  { label: "Size", cell: ({ payload_bytes: bytes }) => size(bytes) },
  { label: "Begins with", cell: ({ excerpt }) => el("code", {}, excerpt ?? ""), words: true },
];

/** The view's place on the page, and how it is loaded and shown. */
export const letters = {
  name: "letters",
  form: byId("view-letters").querySelector("form"),

  async load(parameters, signal) {
    const filters = { reason: parameters.get("reason") ?? "", site: parameters.get("site") ?? "" };
    const query = { ...filters, before: parameters.get("before") ?? "", limit: LIMIT };
    const [list, one] = await Promise.all([get("dead-letters", query, signal), chosen(parameters, signal)]);
    reasons(list.reasons ?? {}, filters.reason);
    byId("letters-download").href = url("dead-letters.jsonl", filters);
    showOne(one);
    show(list, parameters.has("before"));
  },
};

async function chosen(parameters, signal) {
  const id = parameters.get("id");
  if (!id) return null;
  try {
    return await get(`dead-letters/${encodeURIComponent(id)}`, {}, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function reasons(numbers, chosenReason) {
  const select = letters.form.elements.reason;
  if (select === document.activeElement) return;
  const names = new Set([...Object.keys(numbers), ...(chosenReason ? [chosenReason] : [])]);
  const option = (name) => {
    const words = WORDS[name] ? `: ${WORDS[name]}` : "";
    return el("option", { value: name }, `${name}${words} (${count(numbers[name] ?? 0)})`);
  };
  put(select, el("option", { value: "" }, "all"), ...[...names].sort().map(option));
  select.value = chosenReason;
}

function show({ total, letters: lines }, older) {
  const view = byId("view-letters");
  fill(byId("letters-table"), COLUMNS, lines, ({ id }) => String(id));
  shown(view.querySelector(".shown"), 0, lines.length, older ? lines.length : total ?? lines.length, older ? "older letters" : "dead letters");
  const links = [];
  if (older) links.push(el("a", { href: here({ before: "" }), rel: "prev" }, "← Newest"));
  if (lines.length === LIMIT) links.push(el("a", { href: here({ before: lines.at(-1).id }), rel: "next" }, "Older →"));
  put(view.querySelector(".pages"), ...links);
}

function showOne(letter) {
  byId("letter").hidden = letter === null;
  if (letter === null) return;
  put(byId("letter-title"), `Dead letter ${letter.id}: ${WORDS[letter.reason] ?? letter.reason}`);
  byId("letter-close").setAttribute("href", here({ id: "" }));
  download(letter);
  facts(byId("letter-facts"), [
    ["Reason", letter.reason],
    ["Detail", letter.detail],
    ["Topic", el("code", {}, letter.topic)],
    ["Received", when(letter.received_at)],
    ["Refused by", letter.sink ?? "the bridge, at the entrance"],
    ["Size", `${size(letter.payload_bytes)} (${count(letter.payload_bytes)} bytes)`],
    ...(letter.event_id ? [["Event id", el("code", {}, letter.event_id)]] : []),
  ]);
  const { text, hex } = letter.payload;
  put(byId("letter-form"), text === null ? "Byte by byte, because it is no text" : "As text");
  put(byId("letter-bytes"), text ?? hex);
}

let blob = "";

function download(letter) {
  const anchor = byId("letter-download");
  if (anchor.dataset.id === String(letter.id)) return;
  URL.revokeObjectURL(blob);
  const bytes = Uint8Array.from(atob(letter.payload.payload_base64), (c) => c.charCodeAt(0));
  blob = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  anchor.dataset.id = letter.id;
  anchor.href = blob;
  anchor.download = `dead-letter-${letter.id}.bin`;
}
