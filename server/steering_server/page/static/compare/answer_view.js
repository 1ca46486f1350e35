// One arm's answer on the screen: a span for each token, and marks on those that differ.

import { element } from "../dom.js";

/** Shows an Answer. `noticed(at)` is called with the position of a token that is pointed at or focused, or null. */
export class AnswerView {
  spans = [];
  marks = []; // of the spans, as they are now
  focusable = null;

  constructor(label, noticed) {
    this.node = element("div", { class: "answer mono", role: "group", "aria-label": `Answer of ${label}` });
    const at = (event) => {
      const span = event.target.closest(".token");
      return span ? this.spans.indexOf(span) : null;
    };
    this.node.addEventListener("pointerover", (event) => noticed(at(event), event.target));
    this.node.addEventListener("pointerleave", () => noticed(null));
    this.node.addEventListener("focusin", (event) => noticed(at(event), event.target));
    this.node.addEventListener("focusout", () => noticed(null));
    this.node.addEventListener("keydown", (event) => this.move(event));
  }

  /** Show the tokens of `answer` that are not shown yet. */
  extend(answer) {
    const fresh = document.createDocumentFragment();
    for (let at = this.spans.length; at < answer.tokens.length; at += 1) {
      const { text } = answer.tokens[at];
      const end = text === "" && answer.isEnd(at);
      const span = element("span", { class: end ? "token end" : "token", tabindex: "-1" }, end ? "end" : text);
      if (text.trim() === "" && !end) span.classList.add("blank");
      this.spans.push(span);
      fresh.append(span);
    }
    this.node.append(fresh);
    if (this.focusable === null && this.spans.length) {
      [this.focusable] = this.spans;
      this.focusable.tabIndex = 0; // one token is reached with Tab, the others with arrows
    }
  }

  /** Mark tokens: `marks[at]` is "first", "later" or "". */
  mark(marks) {
    for (let at = 0; at < this.spans.length; at += 1) {
      const mark = marks[at] ?? "";
      if ((this.marks[at] ?? "") === mark) continue;
      const span = this.spans[at];
      this.marks[at] = mark;
      if (mark) {
        span.dataset.mark = mark;
        span.setAttribute("aria-description", mark === "first" ? "first difference" : "different");
      } else {
        delete span.dataset.mark;
        span.removeAttribute("aria-description");
      }
    }
  }

  /** Show which token belongs to the one that is pointed at; null for none. */
  point(at) {
    this.pointed?.classList.remove("pointed");
    this.pointed = at === null ? null : this.spans[at];
    this.pointed?.classList.add("pointed");
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !this.focusable) return;
    event.preventDefault();
    const to = Math.min(Math.max(this.spans.indexOf(this.focusable) + step, 0), this.spans.length - 1);
    this.focusable.tabIndex = -1;
    this.focusable = this.spans[to];
    this.focusable.tabIndex = 0;
    this.focusable.focus();
  }
}
