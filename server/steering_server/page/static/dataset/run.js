// A run: every item is asked under all arms by one request, several requests at once, and graded as its answers come.

import { Failure, sendJson } from "../api.js";
import { isRight } from "./grading.js";

const MOST_TRIES = 6;
const BUSY = [429, 503];

/** The questions, and what has been answered. Faults of items are {line, reason}. */
export class Run {
  records = new Map(); // id of an item -> {item, seconds, answers: [{text, finish, tokens, right}]} in the order of the arms
  refused = [];
  steering = null; // of the first answer
  isRunning = false;

  constructor({ dataset, items, labels, grader, maxTokens, temperature, atOnce }) {
    Object.assign(this, { dataset, items, labels, grader, maxTokens, temperature, atOnce });
  }

  /** Items that have neither answers nor a fault. */
  get open() {
    const done = new Set(this.refused.map((one) => one.line));
    return this.items.filter((item) => !this.records.has(item.id) && !done.has(item.line));
  }

  /**
   * Ask what is open; `progress(record)` is called after each item, with null for one that was refused.
   * Raises the Failure that ended the run. Returns early after stop().
   */
  async follow(progress) {
    this.abort = new AbortController();
    this.isRunning = true;
    const waiting = this.open;
    const work = async () => {
      while (waiting.length && !this.abort.signal.aborted) progress(await this.answer(waiting.shift()));
    };
    try {
      await Promise.all(Array.from({ length: this.atOnce }, work));
    } catch (error) {
      const stopped = this.abort.signal.aborted;
      this.abort.abort();
      if (!stopped) throw error;
    } finally {
      this.isRunning = false;
    }
  }

  /** Send nothing more, and give up what is being answered. */
  stop() {
    this.abort?.abort();
  }

  async answer(item) {
    const chat = item.messages !== null;
    const body = {
      ...(chat ? { messages: item.messages } : { prompt: item.prompt }),
      arms: this.labels, max_tokens: item.max_tokens ?? this.maxTokens, temperature: this.temperature, seed: item.line, return_token_ids: true,
    };
    const started = performance.now();
    let reply;
    try {
      reply = await this.patiently(chat ? "v1/chat/completions" : "v1/completions", body);
    } catch (error) {
      if (!(error instanceof Failure) || ![400, 413, 422].includes(error.status)) throw error;
      this.refused.push({ line: item.line, reason: error.detail || error.title });
      return null;
    }
    this.steering ??= reply.steering;
    const answers = [];
    for (const choice of reply.choices) {
      const text = chat ? choice.message.content ?? "" : choice.text;
      answers[choice.index] = { text, finish: choice.finish_reason, tokens: choice.token_ids?.length ?? null, right: isRight(item, this.grader, text) };
    }
    const record = { item, answers, seconds: (performance.now() - started) / 1000 };
    this.records.set(item.id, record);
    return record;
  }

  // A busy server says when to come back.
  async patiently(route, body) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await sendJson(route, body, { signal: this.abort.signal });
      } catch (error) {
        if (!(error instanceof Failure) || !BUSY.includes(error.status) || tries >= MOST_TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? tries)));
      }
    }
  }
}
