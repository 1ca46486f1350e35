// The state of the tab Strength curve, as it is in the address.

import { askedOf, askedToParameters } from "../prompt_editor.js";
import { LEAST_STRENGTH, MOST_STRENGTH } from "../arm.js";

/** What a curve follows. */
export const FOLLOWED = { tokens: "Likeliest next tokens", text: "A text of mine", answers: "Each arm's answer" };
/** Distances between the strengths at which the model is asked. */
export const STEPS = [0.5, 0.25];
const USUAL_TOKENS = 1;

/** Return the state that parameters of an address describe; `profiles` is the choice where they name none. */
export function stateOf(parameters, profiles) {
  const follow = parameters.get("follow");
  const step = Number(parameters.get("step"));
  const tokens = Number(parameters.get("tokens"));
  return {
    asked: askedOf(parameters),
    profiles: parameters.get("profile") ?? profiles,
    follow: follow in FOLLOWED ? follow : "tokens",
    text: parameters.get("text") ?? "",
    tokens: Number.isInteger(tokens) && tokens > 0 ? tokens : USUAL_TOKENS,
    step: STEPS.includes(step) ? step : STEPS[0],
    picked: Number(parameters.get("at") ?? 1),
  };
}

/** Return the parameters of the address for a state; defaults are left out. */
export function parametersOf(state) {
  const parameters = new URLSearchParams();
  askedToParameters(state.asked, parameters);
  parameters.set("profile", state.profiles);
  if (state.follow !== "tokens") parameters.set("follow", state.follow);
  if (state.follow === "text" && state.text) parameters.set("text", state.text);
  if (state.follow === "answers" && state.tokens !== USUAL_TOKENS) parameters.set("tokens", state.tokens);
  if (state.step !== STEPS[0]) parameters.set("step", state.step);
  if (state.picked !== 1) parameters.set("at", state.picked);
  return parameters;
}

/** Return the strengths of a curve, from the least to the most. */
export function strengthsOf(step) {
  const count = Math.round((MOST_STRENGTH - LEAST_STRENGTH) / step);
  return Array.from({ length: count + 1 }, (_, at) => LEAST_STRENGTH + at * step);
}
