// A dialog with the request as code, to copy.

import { element } from "../dom.js";
import { LANGUAGES, codeOf } from "./code.js";

/** Show the code of `state` for a server whose model has the name `model`. */
export function showCode(state, model) {
  const code = element("code", {});
  const copy = element("button", { type: "button", class: "primary" }, "Copy");
  const show = (language) => {
    code.textContent = codeOf(language, state, model);
    copy.textContent = "Copy";
  };
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(code.textContent)) ? "Copied" : "Select and copy it";
  });
  const choice = element("fieldset", { class: "choice", "aria-label": "Language" }, Object.entries(LANGUAGES).map(([name, title], at) =>
    element("label", {}, element("input", { type: "radio", name: "language", value: name, checked: at === 0, onchange: () => show(name) }), element("span", {}, title))));
  const dialog = element("dialog", { class: "dialog", "aria-labelledby": "code-title" },
    element("div", { class: "stack" },
      element("div", { class: "row apart" }, element("h2", { id: "code-title" }, "This request as code"), choice),
      element("pre", { tabindex: "0", "aria-label": "Code" }, code),
      element("div", { class: "row end" }, element("button", { type: "button", onclick: () => dialog.close() }, "Close"), copy)));
  dialog.addEventListener("close", () => dialog.remove());
  show("curl");
  document.body.append(dialog);
  dialog.showModal();
}

/** Put a text into the clipboard; return whether the browser allowed it. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // only pages of secure or loopback addresses may
  }
}
