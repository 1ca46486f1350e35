// The request that a state of the tab Compare stands for.

import { requestFields } from "../prompt_editor.js";
import { labelOf } from "../arm.js";
import { SETTINGS } from "./state.js";

const ALTERNATIVES = 5;
const ALWAYS = new Set(["max_tokens", "temperature"]); // whose default here is not the API's

/** Return the route and the body of the request, without what only the page needs. */
export function plainRequest(state) {
  const { route, fields } = requestFields(state.asked);
  const body = { ...fields, arms: state.arms.map(labelOf) };
  for (const [name, { standard }] of Object.entries(SETTINGS)) {
    const value = state.settings[name];
    if (value !== null && (ALWAYS.has(name) || value !== standard)) body[name] = value;
  }
  if (state.stop.length) body.stop = state.stop;
  return { route, body };
}

/** Return the route and the body of the request that the page sends: a stream, with token ids and log-probabilities. */
export function pageRequest(state) {
  const { route, body } = plainRequest(state);
  const more = { stream: true, stream_options: { include_usage: true }, return_token_ids: true };
  if (state.logprobs) Object.assign(more, state.asked.mode === "chat" ? { logprobs: true, top_logprobs: ALTERNATIVES } : { logprobs: ALTERNATIVES });
  return { route, body: { ...body, ...more } };
}
