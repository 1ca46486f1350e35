// One request: its stream, the answers of its arms, and how they compare so far.

import { streamJson } from "../api.js";
import { labelOf } from "../arm.js";
import { Answer } from "./answer.js";
import { Comparison } from "./comparison.js";
import { pageRequest } from "./request.js";

const LONG = 400; // tokens of all arms, from which on they are drawn and aligned less often
const DRAW_EVERY = 50; // milliseconds
const ALIGN_EVERY = 400; // milliseconds

/** A request that is being answered. */
export class Run {
  isRunning = false;
  isStopped = false;

  constructor(state) {
    this.request = pageRequest(state);
    this.labels = state.arms.map(labelOf);
    this.abort = new AbortController();
    this.aligned = 0;
    this.compared = false;
  }

  /**
   * Send the request and read the answer to its end; `progress()` is called before a frame is drawn that shows something new.
   * Raises Failure. Returns early, without an error, after stop().
   */
  async follow(progress) {
    const asked = performance.now();
    this.isRunning = true;
    this.answers = this.labels.map((label) => new Answer(label, asked));
    this.comparison = new Comparison(this.answers, false);
    let frame = null;
    let drawn = 0;
    const draw = (now) => {
      if (this.isLong && now - drawn < DRAW_EVERY) {
        frame = requestAnimationFrame(draw);
        return;
      }
      drawn = now;
      frame = null;
      this.compare(false);
      progress();
    };
    try {
      for await (const event of streamJson(this.request.route, this.request.body, { signal: this.abort.signal })) {
        this.take(event);
        frame ??= requestAnimationFrame(draw);
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      if (frame !== null) cancelAnimationFrame(frame);
      this.isRunning = false;
      this.compare(true);
      progress();
    }
  }

  /** Give the request up. */
  stop() {
    this.isStopped = this.isRunning;
    this.abort.abort();
  }

  /** Whether all arms have ended and their tokens are being scored under the other arms. */
  get isScoring() {
    return this.isRunning && !this.compared && this.answers.every((answer) => answer.finish !== null);
  }

  get isLong() {
    return this.answers.reduce((total, answer) => total + answer.tokens.length, 0) > LONG;
  }

  take(event) {
    const now = performance.now();
    for (const choice of event.choices) this.answers[choice.index].add(choice, now);
    if (!event.comparison) return;
    this.compared = true;
    for (const { choices: [one, other], arms: [a, b], logprobs } of event.comparison.pairs) {
      if (!logprobs) continue;
      this.answers[one].scores.set(b, logprobs[a][b]);
      this.answers[other].scores.set(a, logprobs[b][a]);
    }
  }

  compare(whole) {
    const now = performance.now();
    if (!whole && this.isLong && now - this.aligned < ALIGN_EVERY) return;
    this.aligned = now;
    this.comparison = new Comparison(this.answers, whole && !this.isStopped);
  }
}
