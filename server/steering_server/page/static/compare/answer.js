// The answer of one arm, as its chunks come.

const LEAST_TIME = 20; // milliseconds

/** One arm's answer: its tokens with probabilities, and when they came (milliseconds, as performance.now() gives them). */
export class Answer {
  tokens = []; // {id, text, logprob, alternatives: [{text, logprob}]}; logprob is null and alternatives are empty where unknown
  finish = null;
  first = null;
  last = null;
  atFirst = 0; // tokens that came together with the first one
  /** Arm -> log-probabilities of this answer's tokens under that arm; known when all arms have ended. */
  scores = new Map();

  constructor(label, asked) {
    this.label = label;
    this.asked = asked;
  }

  /** Add what one choice of a chunk holds. */
  add(choice, now) {
    if (choice.finish_reason) this.finish = choice.finish_reason;
    const added = tokensOf(choice);
    if (!added.length) return;
    this.last = now;
    if (this.first === null) {
      this.first = now;
      this.atFirst = added.length;
    }
    this.tokens.push(...added);
  }

  /** Milliseconds from the request to the first token; null before it. */
  get latency() {
    return this.first === null ? null : this.first - this.asked;
  }

  /** Tokens a second after the first one; null where they came too fast together to tell. */
  get speed() {
    const elapsed = this.last - this.first;
    return this.first === null || elapsed < LEAST_TIME ? null : (1000 * (this.tokens.length - this.atFirst)) / elapsed;
  }

  /** Return whether a token stands for the end of the text and adds nothing to it. */
  isEnd(at) {
    return this.finish === "stop" && at === this.tokens.length - 1 && this.tokens[at].text === "";
  }
}

function tokensOf(choice) {
  const ids = choice.token_ids ?? [];
  const chat = choice.logprobs?.content;
  if (chat) {
    return chat.map((token, at) => ({
      id: ids[at], text: token.token, logprob: token.logprob,
      alternatives: token.top_logprobs.map((one) => ({ text: one.token, logprob: one.logprob })),
    }));
  }
  const columns = choice.logprobs;
  if (columns) {
    return columns.tokens.map((text, at) => ({
      id: ids[at], text, logprob: columns.token_logprobs[at],
      alternatives: Object.entries(columns.top_logprobs?.[at] ?? {}).map(([name, logprob]) => ({ text: name, logprob })),
    }));
  }
  // Without log-probabilities a chunk says which tokens it has, and their text together.
  const text = choice.text ?? choice.delta?.content ?? "";
  return ids.map((id, at) => ({ id, text: at === ids.length - 1 ? text : "", logprob: null, alternatives: [] }));
}
