// The tabs: one module each, loaded when it is first shown, and the list of tabs that a keyboard goes through with arrows.

import { element } from "./dom.js";
import { failureNotice } from "./notice.js";
import { fragmentOf, readFragment, writeFragment } from "./fragment.js";

/**
 * Every tab's module exports `open(panel, app)`. It fills `panel`, an empty element, and returns an object with
 * `show(parameters)`, which is called each time that the tab is shown or a link changes its state.
 * `app` has `server` (server.js), `announce(text)` for screen readers, `keep(parameters)`, which puts the state of this tab in the
 * address, and `go(name, parameters)`, which shows another tab.
 */
const TABS = [
  { name: "compare", title: "Compare", load: () => import("./tabs/compare.js") },
  { name: "curve", title: "Strength curve", load: () => import("./tabs/curve.js") },
  { name: "profiles", title: "Profiles", load: () => import("./tabs/profiles.js") },
  { name: "experiments", title: "Experiments", load: () => import("./tabs/experiments.js") },
  { name: "dataset", title: "Data set", load: () => import("./tabs/dataset.js") },
];

/** Fill the list of tabs, and show the one that the address names, now and when the address changes. */
export function openTabs(list, main, app) {
  const tabs = TABS.map((tab) => {
    const panel = element("section", { role: "tabpanel", id: `panel-${tab.name}`, "aria-labelledby": `tab-${tab.name}`, hidden: true });
    const button = element("a", { role: "tab", id: `tab-${tab.name}`, href: `#${tab.name}`, "aria-controls": panel.id, "aria-selected": "false" }, tab.title);
    return { ...tab, panel, button, opened: null, kept: new URLSearchParams() };
  });
  list.replaceChildren(...tabs.map((tab) => tab.button));
  main.replaceChildren(...tabs.map((tab) => tab.panel));
  let current = null;

  async function show(name, parameters) {
    const tab = tabs.find((each) => each.name === name) ?? tabs[0];
    current = tab;
    tab.kept = parameters;
    for (const each of tabs) {
      each.panel.hidden = each !== tab;
      each.button.setAttribute("aria-selected", String(each === tab));
      each.button.tabIndex = each === tab ? 0 : -1;
    }
    document.title = `${tab.title} · steering-server`;
    try {
      tab.opened ??= tab.load().then((module) => module.open(tab.panel, {
        ...app,
        keep(kept) {
          tab.kept = kept;
          tab.button.setAttribute("href", fragmentOf(tab.name, kept));
          if (tab === current) writeFragment(tab.name, kept);
        },
        go(target, given) {
          location.hash = fragmentOf(target, given);
        },
      }));
      const opened = await tab.opened;
      if (tab === current) await opened.show(parameters);
    } catch (error) {
      tab.opened = null;
      tab.panel.replaceChildren(failureNotice(error, () => show(tab.name, tab.kept)));
    }
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = tabs.indexOf(current);
    const to = step ? (at + step + tabs.length) % tabs.length : { Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[to].button.focus();
    tabs[to].button.click();
  });
  const follow = () => {
    const { name, parameters } = readFragment();
    return show(name, parameters);
  };
  window.addEventListener("hashchange", follow);
  return follow();
}
