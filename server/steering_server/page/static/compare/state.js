// The state of the tab Compare, as it is in the address.

import { askedOf, askedToParameters } from "../prompt_editor.js";
import { armOf, labelOf } from "../arm.js";

export const MOST_ARMS = 4;

/** The sampling settings: field of the API -> its default here and how its field looks. */
export const SETTINGS = {
  max_tokens: { title: "Max tokens", standard: 16, min: 1, step: 1 },
  temperature: { title: "Temperature", standard: 0, min: 0, max: 2, step: 0.05 },
  top_p: { title: "Top p", standard: 1, min: 0.01, max: 1, step: 0.01 },
  top_k: { title: "Top k", standard: -1, min: -1, step: 1, hint: "−1: all" },
  min_p: { title: "Min p", standard: 0, min: 0, max: 1, step: 0.01 },
  repetition_penalty: { title: "Repetition penalty", standard: 1, min: 0.01, max: 10, step: 0.05 },
  seed: { title: "Seed", standard: null, step: 1, hint: "empty: random" },
};

/** Return the state that parameters of an address describe; what they leave out has its default. */
export function stateOf(parameters) {
  const settings = {};
  for (const [name, { standard }] of Object.entries(SETTINGS)) {
    const given = parameters.get(name);
    settings[name] = given === null || given === "" || !Number.isFinite(Number(given)) ? standard : Number(given);
  }
  const labels = parameters.getAll("arm").slice(0, MOST_ARMS);
  return {
    asked: askedOf(parameters),
    arms: labels.map(armOf),
    settings,
    stop: parameters.getAll("stop"),
    logprobs: parameters.get("logprobs") !== "0",
  };
}

/** Return the parameters of the address for a state; defaults are left out. */
export function parametersOf(state) {
  const parameters = new URLSearchParams();
  askedToParameters(state.asked, parameters);
  for (const arm of state.arms) parameters.append("arm", labelOf(arm));
  for (const [name, { standard }] of Object.entries(SETTINGS)) {
    if (state.settings[name] !== standard) parameters.set(name, state.settings[name]);
  }
  for (const stop of state.stop) parameters.append("stop", stop);
  if (!state.logprobs) parameters.set("logprobs", "0");
  return parameters;
}
