// Requests to the server that the page came from. Every failure is a Failure, in words that a person can act on.

import { events } from "./events.js";
import { apiKey, askForKey } from "./key.js";

/** What went wrong: a title, details, and whether trying again can help. */
export class Failure extends Error {
  constructor(title, { detail = "", code = null, status = 0, param = null, retryAfter = null } = {}) {
    super(detail ? `${title} ${detail}` : title);
    Object.assign(this, { title, detail, code, status, param, retryAfter });
  }
}

const LOST = "The connection to the server was lost.";

/** Return the URL of a route, such as "v1/models", also where a proxy has put the server below a path. */
export function urlOf(route) {
  return new URL(route, document.baseURI.replace(/[?#].*$/, "")).href;
}

/** Return the JSON of a GET request. */
export async function getJson(route, options = {}) {
  return readJson(await ask(route, { method: "GET", ...options }));
}

/** Send a JSON object; return the JSON of the answer. */
export async function sendJson(route, body, { method = "POST", ...options } = {}) {
  return readJson(await ask(route, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" }, ...options }));
}

/**
 * Send a body that asks for a stream; yield the JSON object of every event.
 * Raises Failure when the stream ends before [DONE], or has an event with an error.
 */
export async function* streamJson(route, body, { signal } = {}) {
  const response = await ask(route, {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal,
  });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw failureOf(response.status, event.error, response.headers);
      yield event;
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
  }
  throw new Failure(LOST, { detail: "What had arrived by then is shown.", code: "connection_lost" });
}

/** Send a request with the key, asking for one if the server wants it; return the Response. Raises Failure unless it is 2xx. */
export async function ask(route, options = {}) {
  for (;;) {
    const response = await attempt(route, options);
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw failureOf(response.status, error, response.headers);
    document.dispatchEvent(new CustomEvent("key-wanted"));
    const why = apiKey() === null ? "This server answers only with an API key." : `The server does not take this key: ${error.message}.`;
    if (!(await askForKey(why))) throw failureOf(401, error, response.headers);
  }
}

async function attempt(route, { headers = {}, ...options }) {
  const key = apiKey();
  try {
    return await fetch(urlOf(route), {
      ...options, cache: "no-store", credentials: "omit", headers: key === null ? headers : { ...headers, authorization: `Bearer ${key}` },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(LOST, { detail: "Check that it is running, and try again.", code: "connection_lost" });
  }
}

async function readJson(response) {
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(LOST, { detail: "Its answer was not complete.", code: "connection_lost" });
  }
}

async function errorOf(response) {
  try {
    const { error } = await response.json();
    return error ?? {};
  } catch {
    return {}; // a proxy's answer, for instance
  }
}

const TITLES = {
  401: "The server asks for an API key.",
  403: "Your API key does not allow this.",
  404: "The server does not have that.",
  408: "The request took too long.",
  409: "That does not fit the state of the server.",
  412: "Somebody else has changed it in the meantime.",
  413: "The request is too large.",
  429: "The server is busy.",
  503: "The server takes no requests at the moment.",
};
const TITLES_BY_CODE = {
  profile_not_found: "There is no such profile.",
  model_not_found: "There is no such model or profile.",
  profile_disabled: "That profile is disabled.",
  profile_mismatch: "That profile was made for another model.",
  profile_not_allowed: "Your API key may not use that profile.",
  rate_limit_exceeded: "A limit of your API key is used up.",
  loading: "The model is still being loaded.",
  draining: "The server is stopping.",
  shutdown: "The server stopped before the answer was complete.",
};

function failureOf(status, error, headers) {
  const { message = "", code = null, param = null } = error;
  const fallback = status >= 500 ? "The server failed." : "The server does not accept this.";
  const retryAfter = Number(headers.get("retry-after")) || null;
  const again = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  return new Failure(TITLES_BY_CODE[code] ?? TITLES[status] ?? fallback, { detail: sentence(message) + again, code, status, param, retryAfter });
}

function sentence(message) {
  if (!message) return "";
  return message.endsWith(".") ? message : `${message}.`;
}
