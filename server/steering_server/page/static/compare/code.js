// The same request as code: curl, this project's Python client, and OpenAI's.

import { urlOf } from "../api.js";
import { apiKey } from "../key.js";
import { plainRequest } from "./request.js";

export const LANGUAGES = { curl: "curl", client: "Python client", openai: "openai client" };

const KEY_VARIABLE = "STEER_API_KEY";
// Fields that OpenAI's methods have as arguments; others go into extra_body.
const OPENAI_FIELDS = new Set(["prompt", "messages", "max_tokens", "temperature", "top_p", "seed", "stop"]);

/** Return the code that sends the request of `state`, in one of LANGUAGES. A key is read from a variable, never written out. */
export function codeOf(language, state, model) {
  const { route, body } = plainRequest(state);
  return { curl, client, openai }[language](route, body, model);
}

function curl(route, body) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = apiKey() === null ? "" : ` \\\n  -H "Authorization: Bearer $${KEY_VARIABLE}"`;
  return `curl -s ${urlOf(route)} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'\n`;
}

function client(route, body) {
  const { prompt, messages, ...options } = body;
  const [method, asked] = route === "v1/completions" ? ["complete", prompt] : ["chat", messages];
  const key = apiKey() === null ? "" : `, api_key=os.environ["${KEY_VARIABLE}"]`;
  return [
    ...(key ? ["import os", ""] : []),
    "from steering_client import SteeringClient",
    "",
    `with SteeringClient(${python(urlOf("").replace(/\/$/, ""))}${key}) as client:`,
    `    answer = client.${method}(`,
    `        ${python(asked, 2)},`,
    ...Object.entries(options).map(([name, value]) => `        ${name}=${python(value, 2)},`),
    "    )",
    ...printing(route),
  ].join("\n");
}

function openai(route, body, model) {
  const fields = Object.entries(body).filter(([name]) => OPENAI_FIELDS.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !OPENAI_FIELDS.has(name)));
  const method = route === "v1/completions" ? "completions" : "chat.completions";
  const key = apiKey() === null ? '"none"' : `os.environ["${KEY_VARIABLE}"]`;
  return [
    ...(key === '"none"' ? [] : ["import os", ""]),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(urlOf("v1"))}, api_key=${key})`,
    `answer = client.${method}.create(`,
    `    model=${python(model)},`,
    ...fields.map(([name, value]) => `    ${name}=${python(value, 1)},`),
    `    extra_body=${python(extra, 1)},`,
    ")",
    ...printing(route),
  ].join("\n");
}

function printing(route) {
  return ["for choice in answer.choices:", `    print(choice.arm, repr(choice.${route === "v1/completions" ? "text" : "message.content"}))`, ""];
}

// A JSON value as Python. Strings of JSON are strings of Python too, except that DEL and lone surrogates are printed as they are.
function python(value, depth = 0) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value) && value.some((each) => typeof each === "object")) {
    const indent = "    ".repeat(depth + 1);
    return `[\n${value.map((each) => `${indent}${python(each, depth + 1)},\n`).join("")}${"    ".repeat(depth)}]`;
  }
  if (Array.isArray(value)) return `[${value.map((each) => python(each, depth)).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${python(name)}: ${python(each, depth)}`).join(", ")}}`;
  return JSON.stringify(value);
}
