// The answers token by token: a table in which tokens that belong together share a row.

import { element, refill } from "../dom.js";
import { percent, visible } from "../format.js";
import { alignedRows } from "./alignment.js";

/** A table, made when it is opened. `noticed(k, at, target)` is called with the answer and position of a token that is pointed at. */
export class AlignedTokens {
  run = null;

  constructor(noticed) {
    this.noticed = noticed;
    this.table = element("div", { class: "scroll", tabindex: "0", "aria-label": "Tokens of all arms" });
    this.node = element("details", { class: "aligned", hidden: true, ontoggle: () => this.draw() }, element("summary", {}, "Token by token"), this.table);
    const position = (event) => event.target.closest("td[data-at]");
    this.table.addEventListener("pointerover", (event) => {
      const cell = position(event);
      if (cell) this.noticed(Number(cell.dataset.arm), Number(cell.dataset.at), cell);
      else this.noticed(0, null, null);
    });
    this.table.addEventListener("pointerleave", () => this.noticed(0, null, null));
  }

  /** Forget the answers. */
  clear() {
    this.run = null;
    this.node.hidden = true;
    refill(this.table);
  }

  /** Take what has come of the answers; the table is drawn once they are complete. */
  update(run) {
    this.run = run;
    if (run.isRunning) return;
    this.node.hidden = run.answers.every((answer) => !answer.tokens.length);
    this.draw();
  }

  draw() {
    if (!this.run || this.run.isRunning || !this.node.open) return;
    const { answers, comparison } = this.run;
    const rows = alignedRows(answers.map((answer) => answer.tokens), comparison.partners);
    const cell = (at, k) => {
      if (at === null) return element("td", { class: "gap", colspan: 2 }, "");
      const token = answers[k].tokens[at];
      return [
        element("td", { "data-arm": k, "data-at": at, "data-mark": comparison.marks[k][at] },
          element("code", {}, answers[k].isEnd(at) ? "end" : visible(token.text))),
        element("td", { class: "number muted" }, token.logprob === null ? "" : percent(Math.exp(token.logprob))),
      ];
    };
    refill(this.table, element("table", { class: "token-table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col", class: "number" }, "#"),
        answers.map((answer, k) => element("th", { scope: "colgroup", colspan: 2, class: `arm-name arm-${k}` }, answer.label)))),
      element("tbody", {}, rows.map((row, at) => element("tr", {}, element("th", { scope: "row", class: "number" }, at + 1), row.map(cell))))));
  }
}
