// Files that the page makes.

import { element } from "./dom.js";

/** Let the browser save a Blob as a file. */
export function saved(name, blob) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser has begun to read it by then
}
