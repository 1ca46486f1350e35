// The API key: asked for when the server wants one, and kept until this tab of the browser is closed.

import { element, refill } from "./dom.js";

const KEY = "steering-api-key";
let held = null;

/** Return the key, or null. */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? held;
  } catch {
    return held;
  }
}

function keepKey(key) {
  held = key;
  try {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  } catch {
    // It holds until the page is loaded again.
  }
}

let asking = null;

/**
 * Ask for a key, saying `why`; resolve to true if one was given. Several callers at once share one question.
 * A key that is saved empty is forgotten.
 */
export function askForKey(why) {
  asking ??= ask(why).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(why) {
  const field = element("input", {
    type: "password", id: "key-field", autocomplete: "off", spellcheck: "false", placeholder: "sk-steer-…", value: apiKey() ?? "",
  });
  const dialog = element("dialog", { class: "dialog", "aria-labelledby": "key-title" },
    element("form", { method: "dialog", class: "stack" },
      element("h2", { id: "key-title" }, "API key"),
      element("p", {}, why),
      element("label", { for: "key-field" }, "Key"),
      field,
      element("p", { class: "hint" }, "It is kept until you close this tab, and sent to this server only."),
      element("div", { class: "row end" },
        element("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
        element("button", { type: "submit", class: "primary", value: "save" }, "Use this key"))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "save";
      if (given) keepKey(field.value.trim() || null);
      dialog.remove();
      resolve(given && apiKey() !== null);
    });
  });
}

/** Show the button by which a key is changed, once the server has asked for one. */
export function showKeyButton(button) {
  button.hidden = false;
  refill(button, apiKey() === null ? "Enter API key" : "API key");
}
