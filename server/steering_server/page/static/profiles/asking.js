// Requests about one prompt: answers of a profile with and without components, and how likely each finds one answer.

import { sendJson } from "../api.js";
import { requestFields } from "../prompt_editor.js";
import { BASELINE } from "../arm.js";
import { Answer } from "../compare/answer.js";

const MOST_ARMS = 8; // of a request

/** Return the arm of `profile` without the components `off`, called `name`. */
export function armWithout(profile, off, name) {
  return off.length ? { profile, except: off, name } : { profile, name };
}

/** Ask the prompt under all `arms`, objects with a name; return {prompt, answers}: the prompt's tokens, and an Answer for each arm. */
export async function askArms(asked, arms, maxTokens, signal) {
  const { route, fields } = requestFields(asked);
  const chat = asked.mode === "chat";
  const body = { ...fields, arms, max_tokens: maxTokens, temperature: 0, return_token_ids: true, ...(chat ? { logprobs: true } : { logprobs: 1 }) };
  const reply = await sendJson(route, body, { signal });
  const answers = arms.map((arm) => new Answer(arm.name ?? arm, 0));
  for (const choice of reply.choices) answers[choice.index].add(choice, 0);
  return { prompt: reply.prompt_token_ids ?? reply.choices[0].prompt_token_ids, answers };
}

/** Return the log-probability of the tokens `answer` after the tokens `prompt` under each of `arms`. */
export async function scoresOf(prompt, answer, arms, signal) {
  const scores = [];
  for (let at = 0; at < arms.length; at += MOST_ARMS) {
    const body = { prompt: [...prompt, ...answer], echo: true, max_tokens: 0, logprobs: 0, temperature: 0, arms: arms.slice(at, at + MOST_ARMS) };
    const { choices } = await sendJson("v1/completions", body, { signal });
    for (const choice of choices) scores.push(sum(choice.logprobs.token_logprobs.slice(prompt.length)));
  }
  return scores;
}

/**
 * Yield {name, score} for each component that is left out alone: the log-probability of `answer` without it.
 * Components in `off` are left out of every arm.
 */
export async function* scoresWithoutEach(profile, names, off, prompt, answer, signal) {
  for (let at = 0; at < names.length; at += MOST_ARMS) {
    const some = names.slice(at, at + MOST_ARMS);
    const scores = await scoresOf(prompt, answer, some.map((name, place) => armWithout(profile, [...off, name], `without-${at + place}`)), signal);
    for (const [place, name] of some.entries()) yield { name, score: scores[place] };
  }
}

export const UNSTEERED = { profile: BASELINE, name: BASELINE };

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
