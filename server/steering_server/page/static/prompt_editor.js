// What is asked: a prompt that the model continues, or a conversation that it answers.

import { element, refill } from "./dom.js";

const ROLES = ["system", "user", "assistant"];

/** Return the parameters of the address for what is asked. */
export function askedToParameters(asked, parameters) {
  if (asked.mode === "prompt") {
    if (asked.prompt) parameters.set("prompt", asked.prompt);
  } else {
    parameters.set("mode", "chat");
    for (const message of asked.messages) parameters.append("m", `${message.role}:${message.content}`);
  }
}

/** Return what the parameters of the address ask: {mode: "prompt", prompt, messages} or {mode: "chat", prompt, messages}. */
export function askedOf(parameters) {
  const messages = parameters.getAll("m").map((text) => {
    const cut = text.indexOf(":");
    const role = text.slice(0, cut);
    return ROLES.includes(role) ? { role, content: text.slice(cut + 1) } : { role: "user", content: text };
  });
  return {
    mode: parameters.get("mode") === "chat" ? "chat" : "prompt",
    prompt: parameters.get("prompt") ?? "",
    messages: messages.length ? messages : [{ role: "user", content: "" }],
  };
}

/** Return the route and the fields of a request for what is asked. */
export function requestFields(asked) {
  if (asked.mode === "prompt") return { route: "v1/completions", fields: { prompt: asked.prompt } };
  return { route: "v1/chat/completions", fields: { messages: asked.messages } };
}

/** Return whether nothing is asked yet. */
export function isEmpty(asked) {
  return asked.mode === "prompt" ? asked.prompt === "" : asked.messages.every((message) => message.content === "");
}

let editors = 0;

/** An editor of what is asked. `changed` is called after every change, `run` at Ctrl+Enter. */
export class PromptEditor {
  constructor({ changed, run }) {
    this.changed = changed;
    this.id = `asked-${(editors += 1)}`;
    this.asked = askedOf(new URLSearchParams());
    this.choice = element("fieldset", { class: "choice", "aria-label": "What to ask" });
    this.body = element("div", { class: "stack" });
    this.node = element("div", { class: "stack asked" }, this.body);
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        run();
      }
    });
    this.draw();
  }

  /** Show other content. */
  set(asked) {
    this.asked = structuredClone(asked);
    this.draw();
  }

  draw() {
    const radio = (mode, title) => element("label", {},
      element("input", {
        type: "radio", name: this.id, value: mode, checked: this.asked.mode === mode,
        onchange: () => {
          this.asked.mode = mode;
          this.draw();
          this.choice.querySelector(`[value=${mode}]`).focus();
          this.changed();
        },
      }), element("span", {}, title));
    refill(this.choice, radio("prompt", "Prompt"), radio("chat", "Chat"));
    if (this.asked.mode === "prompt") refill(this.body, this.promptField());
    else refill(this.body, this.asked.messages.map((_, at) => this.messageField(at)), this.addButton());
  }

  promptField() {
    return element("textarea", {
      "aria-label": "Prompt", rows: 4, spellcheck: "false", placeholder: "A text that the model continues",
      oninput: (event) => {
        this.asked.prompt = event.target.value;
        this.changed();
      },
    }, this.asked.prompt);
  }

  messageField(at) {
    const message = this.asked.messages[at];
    const set = (field) => (event) => {
      message[field] = event.target.value;
      this.changed();
    };
    return element("div", { class: "message" },
      element("select", { "aria-label": `Role of message ${at + 1}`, onchange: set("role") },
        ROLES.map((role) => element("option", { value: role, selected: role === message.role }, role))),
      element("textarea", { "aria-label": `Message ${at + 1}`, rows: 2, oninput: set("content") }, message.content),
      element("button", {
        type: "button", class: "quiet icon", "aria-label": `Remove message ${at + 1}`, disabled: this.asked.messages.length === 1,
        onclick: () => {
          this.asked.messages.splice(at, 1);
          this.draw();
          this.changed();
        },
      }, "×"));
  }

  addButton() {
    return element("div", {}, element("button", {
      type: "button", class: "quiet",
      onclick: () => {
        const last = this.asked.messages.at(-1);
        this.asked.messages.push({ role: last?.role === "user" ? "assistant" : "user", content: "" });
        this.draw();
        [...this.body.querySelectorAll(".message textarea")].at(-1).focus();
        this.changed();
      },
    }, "Add a message"));
  }
}
