// The operators' page: what is visible is asked for, and nothing else.

import { get } from "./api.js";
import { byId, put } from "./dom.js";
import { restore, watch } from "./filters.js";
import { letters } from "./letters.js";
import { overview } from "./overview.js";
import { place } from "./place.js";
import { Poll } from "./poll.js";
import { sites } from "./sites.js";
import { tags } from "./tags.js";
import { unreachable, verdict } from "./verdict.js";

const OVERVIEW_SECONDS = 5;
const LIST_SECONDS = 10;
const lists = { sites, tags, letters };

let silentSince = null;

const glance = new Poll(OVERVIEW_SECONDS, loadOverview, (error, seconds) => {
  silentSince ??= new Date();
  unreachable(error, silentSince, seconds);
});
const list = new Poll(LIST_SECONDS, loadList, (error) => listFailed(error));

async function loadOverview(signal) {
  const data = await get("overview", {}, signal);
  // What was not asked for while nobody answered is asked for now.
  if (silentSince) list.start();
  silentSince = null;
  verdict(data);
  overview(data);
}

async function loadList(signal) {
  const { view, parameters } = place();
  if (lists[view]) await lists[view].load(parameters, signal);
}

// That nobody answers at all, the banner says.
function listFailed(error) {
  const { view } = place();
  if (error.status) put(byId(`view-${view}`).querySelector(".shown"), `✗ Not available: ${error.message}.`);
}

function go(event) {
  const { view } = place();
  for (const section of byId("main").children) section.hidden = section.id !== `view-${view}`;
  for (const anchor of document.querySelectorAll("nav a")) {
    const current = anchor.getAttribute("href") === `#${view}`;
    if (current) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  if (lists[view]) restore(lists[view].form);
  list.start();
  // A link leads to the view's heading, for the keyboard and the screen reader.
  if (event) byId(`${view}-title`).focus();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
for (const { name, form } of Object.values(lists)) watch(form, name, () => list.start());
addEventListener("hashchange", go);
go();
glance.start();
