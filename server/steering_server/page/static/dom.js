// Elements of the page. Text is only ever set as text: nothing that a model, a profile or a data set holds becomes HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an HTML element: element("button", {class: "quiet", onclick: run}, "Run", icon).
 * Attributes that begin with "on" are listeners; true sets an attribute, false, null and undefined leave it out.
 */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Make an SVG element, with the same arguments as element(). */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Put other children in the place of those that a node has. */
export function refill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

// Strings become text nodes in append() and replaceChildren().
function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : String(child));
}
