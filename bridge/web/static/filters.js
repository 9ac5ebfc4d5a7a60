// A view's form and the address say the same: what is typed goes there, and a link fills the form.

import { link, place, replace } from "./place.js";

const TYPING_MS = 250;

/** Let a form's fields be parameters of the view's address. `changed` is called after each change. */
export function watch(form, view, changed) {
  let timer = 0;
  const apply = () => {
    replace(link(view, Object.fromEntries(new FormData(form))));
    changed();
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(apply, TYPING_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    apply();
  });
}

/** Put the address's parameters into the form; but not into the field that is being typed in. */
export function restore(form) {
  const { parameters } = place();
  for (const field of form.elements) {
    if (field === document.activeElement) continue;
    field.value = parameters.get(field.name) ?? field.querySelector?.("option")?.value ?? "";
  }
}
