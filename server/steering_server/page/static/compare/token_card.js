// What is known of one token: how likely every arm finds it, and what else the arm might have said.

import { element, refill } from "../dom.js";
import { percent, visible } from "../format.js";

/** A card beside the token that is pointed at or focused. */
export class TokenCard {
  constructor() {
    this.node = element("div", { class: "token-card", role: "tooltip", id: "token-card", hidden: true });
    this.target = null;
    window.addEventListener("scroll", () => this.hide(), { passive: true });
    window.addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
  }

  /**
   * Show the card of a token beside `target`. `probabilities` has, for each arm, its label and the probability of this token under
   * it; null where it is not known yet.
   */
  show(target, { token, at, count, label, end, probabilities }) {
    const meter = (probability, index = null) => {
      const fill = element("span", { class: "meter-fill" });
      fill.style.width = `${100 * (probability ?? 0)}%`;
      return element("span", { class: index === null ? "meter" : `meter arm-${index}`, "aria-hidden": "true" }, fill);
    };
    refill(this.node,
      element("p", { class: "row apart" },
        element("code", { class: "token-name" }, end ? "end of the text" : visible(token.text)),
        element("span", { class: "muted" }, `${label}, token ${at + 1} of ${count}`)),
      token.logprob === null ? element("p", { class: "muted" }, "Probabilities are switched off.") : [
        element("h3", {}, "Probability under"),
        element("div", { class: "meters" }, probabilities.map(({ label: arm, index, probability }) => [
          element("span", { class: `arm-name arm-${index}` }, arm), meter(probability, index),
          element("span", { class: "number" }, probability === null ? "…" : percent(probability)),
        ])),
        token.alternatives.length > 0 && [
          element("h3", {}, `Likeliest in ${label}`),
          element("div", { class: "meters" }, token.alternatives.map((one) => [
            element("code", { class: one.text === token.text ? "chosen" : "" }, visible(one.text)), meter(Math.exp(one.logprob)),
            element("span", { class: "number" }, percent(Math.exp(one.logprob))),
          ])),
        ],
      ]);
    this.release();
    this.target = target;
    target.setAttribute("aria-describedby", this.node.id);
    this.node.hidden = false;
    this.place(target);
  }

  place(target) {
    const beside = target.getClientRects()[0] ?? target.getBoundingClientRect();
    const { width, height } = this.node.getBoundingClientRect();
    const left = Math.min(Math.max(8, beside.left - 12), document.documentElement.clientWidth - width - 8);
    const below = beside.bottom + 8;
    const top = below + height > window.innerHeight && beside.top > height + 8 ? beside.top - height - 8 : below;
    this.node.style.left = `${left}px`;
    this.node.style.top = `${top}px`;
  }

  release() {
    this.target?.removeAttribute("aria-describedby");
    this.target = null;
  }

  /** Put the card away. */
  hide() {
    this.release();
    this.node.hidden = true;
  }
}
