// Starts the page: theme, key, what the server is, and then the tabs.

import { refill } from "./dom.js";
import { failureNotice, waitingNotice } from "./notice.js";
import { askForKey, showKeyButton } from "./key.js";
import { openTabs } from "./tabs.js";
import { openTheme } from "./theme.js";
import { Server } from "./server.js";

const find = (selector) => document.querySelector(selector);
const main = find("main");
const server = new Server();

function announce(text) {
  find("#announcer").textContent = text;
}

function describe() {
  refill(find("#model"), server.model);
}

async function start() {
  try {
    await server.open(() => refill(main, waitingNotice("The model is being loaded. This page goes on by itself.")));
  } catch (error) {
    refill(main, failureNotice(error, start));
    return;
  }
  await openTabs(find(".tabs"), main, { server, announce });
  performance.mark("ready");
  document.documentElement.dataset.ready = "";
}

openTheme(find("#theme"));
document.addEventListener("key-wanted", () => showKeyButton(find("#key")));
find("#key").addEventListener("click", async () => {
  if (await askForKey("Requests of this page are sent with this key.")) await start();
  showKeyButton(find("#key"));
});
server.addEventListener("change", describe);
// "Skip to the content" moves the focus and leaves the address, which holds the state, as it is.
find(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
start();
