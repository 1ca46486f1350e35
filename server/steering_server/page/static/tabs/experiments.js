// Experiments on live traffic: how their arms do, over time, and starting and stopping them.

import { element, refill } from "../dom.js";
import { getJson, sendJson } from "../api.js";
import { failureNotice, waitingNotice } from "../notice.js";
import { factList } from "../profiles/figures.js";
import { armsView, comparisonsView, guardrailsView, sampleRatioView, seriesView, warningsOf } from "../experiments/report_view.js";

const REFRESH_SECONDS = 5;
const STATES = { draft: "", running: "good", stopped: "warn", archived: "" };
const ACTIONS = {
  draft: [["start", "Start", "primary"]],
  running: [["stop", "Stop", ""]],
  stopped: [["start", "Start again", "primary"], ["archive", "Archive", "quiet"]],
  archived: [],
};

/** Open the tab in `panel`; see tabs.js. */
export function open(panel, app) {
  return new Experiments(panel, app);
}

class Experiments {
  name = null;
  experiments = [];
  timer = null;

  constructor(panel, app) {
    this.panel = panel;
    this.app = app;
    this.list = element("nav", { class: "profile-list", "aria-label": "Experiments" });
    this.detail = element("div", { class: "stack profile-detail" });
    this.notices = element("div", {});
    panel.append(this.notices, element("div", { class: "profiles" }, this.list, this.detail));
  }

  /** Show the experiment that the address names, or else the newest. */
  async show(parameters) {
    const name = parameters.get("name");
    if (name !== null) this.name = name;
    if (!this.experiments.length) refill(this.detail, waitingNotice("Reading the experiments …"));
    await this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      this.experiments = (await getJson("v1/experiments")).data;
      this.name ??= this.experiments[0]?.name ?? null;
      this.drawList();
      if (this.name === null) this.drawNothing();
      else await this.drawReport(this.name);
      refill(this.notices);
    } catch (error) {
      refill(this.notices, failureNotice(error, () => this.refresh()));
      if (!this.experiments.length) refill(this.detail);
      return;
    }
    const running = this.experiments.find((one) => one.name === this.name)?.state === "running";
    if (running) this.timer = setTimeout(() => this.again(), 1000 * REFRESH_SECONDS);
  }

  // Nothing is read while nobody looks.
  again() {
    if (!this.panel.hidden && !document.hidden) this.refresh();
    else this.timer = setTimeout(() => this.again(), 1000 * REFRESH_SECONDS);
  }

  drawNothing() {
    refill(this.list);
    refill(this.detail, element("div", { class: "card stack" },
      element("h2", {}, "No experiments yet"),
      element("p", {}, "An experiment assigns users to arms, steers their requests, takes the outcomes that your application reports, and compares the arms with intervals that may be looked at every day."),
      element("p", {}, "Define one with ", element("code", {}, "POST /v1/experiments"), " or ", element("code", {}, "steer experiments create"), "; then it is shown here.")));
  }

  drawList() {
    refill(this.list, this.experiments.map((one) => element("a", {
      href: `#experiments?name=${encodeURIComponent(one.name)}`, "aria-current": one.name === this.name ? "page" : null, class: "profile-link",
    }, element("span", { class: "row apart" }, element("strong", {}, one.name), element("span", { class: `badge ${STATES[one.state]}` }, one.state)),
    element("span", { class: "hint" }, one.arms.map((arm) => arm.name).join(" · ")))));
  }

  async drawReport(name) {
    const path = `v1/experiments/${encodeURIComponent(name)}`;
    const [shown, report, series] = await Promise.all([getJson(path), getJson(`${path}/report`), getJson(`${path}/series?points=60`)]);
    if (name !== this.name) return;
    refill(this.detail, this.header(shown), warningsOf(report), armsView(report), comparisonsView(report), seriesView(report, series), guardrailsView(report), sampleRatioView(report), changesView(shown));
  }

  header(experiment) {
    const actions = ACTIONS[experiment.state].map(([action, title, tone]) => element("button", { type: "button", class: tone, "data-action": action, onclick: () => this.change(experiment.name, action) }, title));
    return element("section", { class: "card stack", "aria-labelledby": "experiment-title" },
      element("div", { class: "row apart" },
        element("h2", { id: "experiment-title", class: "profile-name" }, experiment.name, element("span", { class: `badge ${STATES[experiment.state]}` }, experiment.state)),
        element("div", { class: "row" }, actions)),
      experiment.description ? element("p", {}, experiment.description) : null,
      factList([
        ["Requests", experiment.requests === "all" ? "all without steering of their own, and those that name it" : "those that name it"],
        ["Unit", experiment.unit],
        ["Outcome", `${experiment.outcome.name} (${experiment.outcome.kind}, ${experiment.outcome.better} is better)`],
        ["Model", experiment.model],
      ]));
  }

  async change(name, action) {
    const buttons = this.detail.querySelectorAll("[data-action]");
    for (const button of buttons) button.disabled = true;
    try {
      const changed = await sendJson(`v1/experiments/${encodeURIComponent(name)}/${action}`, {});
      this.app.announce(`${name} is ${changed.state}.`);
    } catch (error) {
      refill(this.notices, failureNotice(error));
      for (const button of buttons) button.disabled = false;
      return;
    }
    await this.refresh();
    this.detail.querySelector("[data-action]")?.focus();
  }
}

function changesView(experiment) {
  const rows = [...experiment.changes].reverse().map((change) => element("tr", {},
    element("td", {}, new Date(1000 * change.at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" })),
    element("td", {}, change.action), element("td", {}, change.by ?? "")));
  return element("details", { class: "card" }, element("summary", {}, `${rows.length} changes`),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ["time", "change", "API key"].map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, rows))));
}
