// Profiles: what each scales, what it was fitted on, what got better and what got worse, and what single components do.

import { element, refill } from "../dom.js";
import { getJson, ask, urlOf } from "../api.js";
import { apiKey } from "../key.js";
import { failureNotice, waitingNotice } from "../notice.js";
import { saved } from "../download.js";
import { askedToParameters } from "../prompt_editor.js";
import { EXAMPLES } from "../examples.js";
import { componentsOf, numberText } from "../profiles/components.js";
import { ComponentMap } from "../profiles/map.js";
import { accuracyTable, factList, originOf, shareTable, sideEffectTable } from "../profiles/figures.js";
import { Trial, askedAtFirst } from "../profiles/trial.js";

/** Open the tab in `panel`; see tabs.js. */
export function open(panel, app) {
  return new Profiles(panel, app);
}

class Profiles {
  name = null;
  detail = null;
  off = new Set();

  constructor(panel, app) {
    this.app = app;
    this.list = element("nav", { class: "profile-list", "aria-label": "Profiles" });
    this.about = element("div", { class: "stack" });
    this.left = element("p", { class: "row", role: "status" });
    this.map = new ComponentMap((names, on) => this.toggle(names, on));
    this.trial = new Trial({ changed: () => this.keep(), off: () => this.offNames(), announce: app.announce });
    this.mapCard = element("section", { class: "card stack", "aria-labelledby": "map-title" },
      element("h2", { id: "map-title" }, "What it changes"), this.map.node, this.left);
    this.detailNode = element("div", { class: "stack profile-detail" });
    panel.append(element("div", { class: "profiles" }, this.list, this.detailNode));
    app.server.addEventListener("change", () => this.drawList());
  }

  /** Show the profile that the address names, or else the first one. */
  async show(parameters) {
    const { profiles, usable } = this.app.server;
    const name = parameters.get("name") ?? this.name ?? (usable[0] ?? profiles[0])?.name ?? null;
    if (name === this.name && this.detail && ![...parameters.keys()].length) return;
    this.name = name;
    this.drawList();
    if (name === null) {
      refill(this.detailNode, element("p", { class: "card muted" }, "This server has no profiles. steer fit makes one; --profiles gives the server a folder of them."));
      return;
    }
    if (this.detail?.name !== name) {
      refill(this.detailNode, waitingNotice("Reading the profile …"));
      try {
        this.detail = await getJson(`v1/profiles/${encodeURIComponent(name)}`);
      } catch (error) {
        this.detail = null;
        refill(this.detailNode, failureNotice(error, () => this.show(parameters)));
        return;
      }
    }
    if (this.name === name) this.draw(parameters);
  }

  drawList() {
    refill(this.list, this.app.server.profiles.map((profile) => element("a", {
      href: `#profiles?name=${encodeURIComponent(profile.name)}`, "aria-current": profile.name === this.name ? "page" : null, class: "profile-link",
    }, element("strong", {}, profile.name), element("span", { class: "hint clamped", title: profile.summary }, profile.summary), badges(profile))));
  }

  draw(parameters) {
    const { detail } = this;
    this.components = componentsOf(detail.profile);
    const known = new Set(this.components.map((one) => one.name));
    this.off = new Set((parameters.get("off") ?? "").split(",").filter((name) => known.has(name)));
    this.map.draw(detail.profile, this.components);
    const { provenance } = detail.profile;
    const figures = [accuracyTable(provenance ?? {}), sideEffectTable(detail.side_effects), shareTable(detail.side_effects)].filter(Boolean);
    refill(this.detailNode,
      element("section", { class: "card stack", "aria-labelledby": "profile-title" },
        element("div", { class: "row apart" },
          element("h2", { id: "profile-title", class: "profile-name" }, detail.name, badges(detail)),
          element("div", { class: "row" }, this.compareButton(), this.reportButton())),
        element("p", {}, detail.description),
        this.warnings(),
        factList(originOf(detail))),
      this.mapCard,
      figures.length
        ? element("section", { class: "card stack", "aria-labelledby": "figures-title" }, element("h2", { id: "figures-title" }, "Before and after"), element("div", { class: "figures" }, figures))
        : element("p", { class: "card muted" }, "The profile records no measurements."),
      this.trial.node);
    this.trial.open(detail, this.components, askedAtFirst(parameters, detail.name, EXAMPLES), Number(parameters.get("tokens")) || 1);
    this.mark();
    if (parameters.has("prompt") || parameters.has("m")) this.trial.ask();
  }

  warnings() {
    const { detail } = this;
    const warn = (text) => element("p", { class: "notice warn" }, text);
    return [
      detail.usable ? null : warn(`It does not fit the model of this server: ${detail.reason}.`),
      detail.forced ? warn(`It was made for another model and is forced: ${detail.reason}.`) : null,
      detail.enabled ? null : warn("An administrator has disabled it."),
      detail.flags.length ? warn(`It makes other text less likely: ${detail.flags.join(", ")}.`) : null,
      detail.own_attention_range ? element("p", { class: "hint" },
        `Self-only attention is a share: strengths below ${numberText(detail.own_attention_range[0])} or above ${numberText(detail.own_attention_range[1])} have no further effect on it.`) : null,
    ];
  }

  compareButton() {
    if (this.detail.model_name === null) return null;
    return element("button", {
      type: "button",
      onclick: () => {
        const parameters = new URLSearchParams();
        askedToParameters(this.trial.editor.asked, parameters);
        for (const arm of ["baseline", this.detail.name]) parameters.append("arm", arm);
        this.app.go("compare", parameters);
      },
    }, "Compare");
  }

  // A link carries no key, so with one the page reads the report and saves it.
  reportButton() {
    if (!this.detail.has_report) return null;
    const route = `v1/profiles/${encodeURIComponent(this.detail.name)}/report`;
    if (apiKey() === null) return element("a", { class: "button", href: urlOf(route), target: "_blank", rel: "noopener" }, "Report of the fit");
    const button = element("button", {
      type: "button",
      onclick: async () => {
        try {
          saved(`${this.detail.name}.html`, await (await ask(route)).blob());
        } catch (error) {
          button.replaceWith(failureNotice(error));
        }
      },
    }, "Save the report");
    return button;
  }

  toggle(names, on) {
    for (const name of names) {
      if (on) this.off.delete(name);
      else this.off.add(name);
    }
    this.mark();
    this.keep();
    this.trial.switched();
  }

  offNames() {
    return this.components.map((one) => one.name).filter((name) => this.off.has(name));
  }

  mark() {
    this.map.mark(this.off);
    const off = this.offNames();
    const all = this.components.length;
    refill(this.left,
      element("span", {}, off.length ? `${off.length} of ${all} left out: ${off.slice(0, 8).join(", ")}${off.length > 8 ? ", …" : ""}` : `All ${all} components are on.`),
      off.length ? element("button", { type: "button", class: "quiet", onclick: () => this.toggle(off, true) }, "Switch all on") : null,
      off.length < all ? element("button", { type: "button", class: "quiet", onclick: () => this.toggle(this.components.map((one) => one.name), false) }, "Switch all off") : null);
  }

  keep() {
    const parameters = new URLSearchParams({ name: this.name });
    const off = this.offNames();
    if (off.length) parameters.set("off", off.join(","));
    if (this.trial.result) {
      askedToParameters(this.trial.editor.asked, parameters);
      parameters.set("tokens", this.trial.maxTokens);
    }
    this.app.keep(parameters);
  }
}

function badges(profile) {
  const badge = (text, tone = "") => element("span", { class: `badge ${tone}` }, text);
  return element("span", { class: "row tight" },
    profile.model_name === null ? badge(profile.usable ? "disabled" : "does not fit", "bad") : null,
    profile.forced ? badge("forced", "warn") : null,
    profile.flags.length ? badge("side effects", "warn") : null);
}
