// Probabilities over strengths: one request, in which every strength is an arm.

import { Failure, sendJson } from "../api.js";
import { BASELINE, labelOf } from "../arm.js";
import { requestFields } from "../prompt_editor.js";
import { strengthsOf } from "./state.js";

const ALTERNATIVES = 20; // the most that the API gives
const MOST_SERIES = 6;
const LEAST_PROBABILITY = 0.02; // of a token at its best strength, to be shown

/**
 * Return {strengths, series: [{name, probabilities}]} for a state. A probability is null at strengths at which a token is not among
 * the likeliest that the API gives. Raises Failure.
 */
export async function measure(state, signal) {
  const options = { signal };
  const asked = await tokensOf(requestFields(state.asked).fields, options);
  if (!asked.length) throw new Failure("There is no prompt yet.", { detail: "Write one, or choose an example in Compare." });
  const followed = await FOLLOWING[state.follow](state, asked, options);
  const strengths = strengthsOf(state.step);
  // Where nothing particular is followed, any token after the prompt makes the model say what it would have liked there.
  const ends = followed.length ? followed.map((each) => each.ids) : [[asked.at(-1)]];
  const answer = await sendJson("v1/completions", {
    prompt: ends.map((ids) => [...asked, ...ids]), max_tokens: 0, echo: true, prompt_logprobs: state.follow === "answers" ? 0 : ALTERNATIVES,
    arms: strengths.map((strength) => labelOf({ profiles: strength === 0 ? BASELINE : state.profiles, strength })),
  }, options);
  const at = (which, arm) => answer.choices[which * strengths.length + arm].prompt_logprobs;
  const series = followed.map(({ name, ids }, which) => ({
    name, probabilities: strengths.map((_, arm) => Math.exp(sum(ids.map((id, place) => at(which, arm)[asked.length + place][id].logprob)))),
  }));
  if (state.follow === "answers" || (followed.length && ends[0].length > 1)) return { strengths, series };
  const others = likeliest(strengths.map((_, arm) => at(0, arm)[asked.length]), new Set(followed.map(({ ids }) => String(ids[0]))));
  return { strengths, series: [...series, ...others].slice(0, MOST_SERIES) };
}

const FOLLOWING = {
  tokens: async () => [],

  async text(state, asked, options) {
    if (!state.text) throw new Failure("There is no text to follow yet.", { detail: "Write the text whose probability you want to see." });
    return [{ name: state.text, ids: await continuation(state, asked, options) }];
  },

  async answers(state, asked, options) {
    const { route, fields } = requestFields(state.asked);
    const arms = [BASELINE, state.profiles];
    const answer = await sendJson(route, { ...fields, arms, max_tokens: state.tokens, temperature: 0, return_token_ids: true }, options);
    const found = new Map();
    for (const choice of answer.choices) {
      const name = choice.text ?? choice.message.content ?? "";
      if (choice.token_ids.length && !found.has(name)) found.set(name, { name, ids: choice.token_ids });
    }
    return [...found.values()];
  },
};

async function tokensOf(fields, options) {
  return (await sendJson("tokenize", fields, options)).tokens;
}

// The tokens that a text adds to what is asked: as it is tokenized after the prompt, or else by itself.
async function continuation(state, asked, options) {
  if (state.asked.mode === "prompt") {
    const whole = await tokensOf({ prompt: state.asked.prompt + state.text }, options);
    if (whole.length > asked.length && asked.every((id, at) => id === whole[at])) return whole.slice(asked.length);
  }
  return tokensOf({ prompt: state.text, add_special_tokens: false }, options);
}

// The likeliest tokens at any strength, with their probability at each.
function likeliest(positions, taken) {
  const best = new Map();
  for (const position of positions) {
    const sorted = Object.entries(position).sort(([, one], [, other]) => other.logprob - one.logprob).slice(0, ALTERNATIVES);
    for (const [id, { logprob, decoded_token: name }] of sorted) {
      const { peak = -Infinity } = best.get(id) ?? {};
      best.set(id, { id, name, peak: Math.max(peak, logprob) });
    }
  }
  return [...best.values()].filter(({ id, peak }) => !taken.has(id) && peak >= Math.log(LEAST_PROBABILITY)).sort((one, other) => other.peak - one.peak)
    .map(({ id, name }) => ({ name, probabilities: positions.map((position) => (position[id] ? Math.exp(position[id].logprob) : null)) }));
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
