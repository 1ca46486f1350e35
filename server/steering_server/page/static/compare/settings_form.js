// The fields of the sampling settings.

import { element, refill } from "../dom.js";
import { escaped, unescaped } from "../escapes.js";
import { SETTINGS } from "./state.js";

/** Shows and changes the settings of a state; calls `changed` after each change. */
export class SettingsForm {
  constructor(state, changed) {
    this.changed = changed;
    this.fields = element("div", { class: "fields" });
    this.summary = element("summary", {});
    this.node = element("details", { class: "settings" }, this.summary, this.fields);
    this.set(state);
  }

  /** Show the settings of another state, and change them from now on. */
  set(state) {
    this.state = state;
    const numbers = Object.entries(SETTINGS).map(([name, { title, standard, hint, ...range }]) => element("div", { class: "field" },
      element("label", { for: `setting-${name}` }, title),
      element("input", {
        type: "number", id: `setting-${name}`, ...range, value: state.settings[name] ?? "", placeholder: hint ?? "",
        onchange: (event) => this.change(() => {
          state.settings[name] = event.target.value === "" ? standard : Number(event.target.value);
        }),
      })));
    refill(this.fields, numbers,
      element("div", { class: "field" },
        element("label", { for: "setting-stop" }, "Stop at"),
        element("input", {
          type: "text", id: "setting-stop", value: state.stop.map(escaped).join(" | "), placeholder: "such as \\n | END",
          onchange: (event) => this.change(() => {
            state.stop = event.target.value.split(" | ").filter(Boolean).map(unescaped);
          }),
        })),
      element("label", { class: "check" }, element("input", {
        type: "checkbox", checked: state.logprobs,
        onchange: (event) => this.change(() => {
          state.logprobs = event.target.checked;
        }),
      }), "Token probabilities"));
    this.summarize();
  }

  change(make) {
    make();
    this.summarize();
    this.changed();
  }

  summarize() {
    const { settings } = this.state;
    const others = Object.entries(SETTINGS).filter(([name, { standard }]) => !["max_tokens", "temperature"].includes(name) && settings[name] !== standard)
      .map(([name, { title }]) => `${title.toLowerCase()} ${settings[name]}`);
    this.summary.textContent = ["Sampling: " + (settings.temperature === 0 ? "greedy" : `temperature ${settings.temperature}`),
      `${settings.max_tokens} tokens`, ...others].join(", ");
  }
}
