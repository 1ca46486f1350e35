// The state of the page, in the fragment of its address: #compare?prompt=...&arm=baseline. The server never sees it.

/** Return the tab's name and the parameters that the address has. */
export function readFragment() {
  const text = location.hash.slice(1);
  const cut = text.indexOf("?");
  const name = cut < 0 ? text : text.slice(0, cut);
  return { name, parameters: new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1)) };
}

/** Return the fragment for a tab and its parameters. */
export function fragmentOf(name, parameters) {
  const text = parameters ? parameters.toString() : "";
  return `#${name}${text ? `?${text}` : ""}`;
}

/** Keep the state of a tab in the address, without a new entry of the history. */
export function writeFragment(name, parameters) {
  history.replaceState(null, "", fragmentOf(name, parameters));
}
