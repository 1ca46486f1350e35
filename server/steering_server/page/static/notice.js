// Notices: what failed, or what is waited for, in plain words.

import { element } from "./dom.js";
import { Failure } from "./api.js";

/** Return a notice of an error, with a button that calls `again` if it is given. */
export function failureNotice(error, again = null) {
  const failure = error instanceof Failure ? error : new Failure("The page failed.", { detail: String(error) });
  if (failure !== error) console.error(error);
  return element("div", { class: "notice bad", role: "alert", "data-code": failure.code ?? failure.status },
    element("div", {}, element("strong", {}, failure.title), failure.detail ? ` ${failure.detail}` : ""),
    again && element("button", { type: "button", class: "quiet", onclick: again }, failure.code === "invalid_api_key" ? "Enter API key" : "Try again"));
}

/** Return a notice of something that goes on. */
export function waitingNotice(text) {
  return element("div", { class: "notice", role: "status" }, element("span", { class: "spinner", "aria-hidden": "true" }), text);
}
