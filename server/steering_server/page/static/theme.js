// Light, dark, or as the system says. The choice is kept by the browser.

const KEY = "steering-theme";
const NAMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Apply the theme that was chosen last, and make `button` go through the themes. */
export function openTheme(button) {
  let chosen = kept();
  const show = () => {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = NAMES[chosen];
  };
  button.addEventListener("click", () => {
    const names = Object.keys(NAMES);
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    keep(chosen);
    show();
  });
  show();
}

function kept() {
  try {
    const name = localStorage.getItem(KEY);
    return name in NAMES ? name : "auto";
  } catch {
    return "auto"; // the browser keeps nothing for this page
  }
}

function keep(name) {
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // It holds until the page is closed.
  }
}
