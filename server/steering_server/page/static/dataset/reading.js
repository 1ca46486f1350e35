// A data set from a file, by the rules of `steer ab` (steering_ab/datasets): lines that cannot be used are named, and the rest goes on.

import { headerOf, rowsOf } from "./csv.js";

const MOST_BYTES = 20 * 2 ** 20;
const MOST_NAME = 200;
const MOST_TOKENS = 1_000_000;
const ROLES = ["system", "developer", "user", "assistant"];
const QUESTIONS = ["prompt", "messages"];

/** What makes a file or one of its lines unusable. */
export class Unusable extends Error {}

/**
 * Return the data set in `bytes` of a file called `name`: {name, items, faults}, where a fault is {line, reason}. An item is
 * {id, line, prompt, messages, expected, choices, tags, max_tokens, grader}; prompt or messages is null. Raises Unusable.
 */
export function readDataset(name, bytes) {
  if (bytes.length > MOST_BYTES) throw new Unusable(`${name} has ${Math.round(bytes.length / 2 ** 20)} MiB; the page takes 20 MiB, steer ab takes more.`);
  if (startsWith(bytes, [0xff, 0xfe]) || startsWith(bytes, [0xfe, 0xff])) throw new Unusable(`${name} is encoded in UTF-16; save it as UTF-8.`);
  const content = startsWith(bytes, [0xef, 0xbb, 0xbf]) ? bytes.subarray(3) : bytes;
  if (content.subarray(0, 4096).includes(0)) throw new Unusable(`${name} is not text; allowed: JSON Lines or CSV in UTF-8.`);
  const start = new TextDecoder().decode(content.subarray(0, 4096)).trimStart();
  if (!start) throw new Unusable(`${name} is empty; a data set has an item on each line.`);
  const isTable = /\.(csv|tsv)$/i.test(name);
  if (!isTable && start.startsWith("[")) throw new Unusable(`${name} is one JSON array; write each of its objects on a line of its own (JSON Lines).`);
  const isJson = /\.(jsonl|ndjson|json)$/i.test(name) || (!isTable && start.startsWith("{"));
  return collected(name, isJson ? jsonLines(content) : csvLines(content, name));
}

function collected(name, lines) {
  const items = new Map();
  const faults = [];
  for (const { line, fields, fault } of lines) {
    let reason = fault;
    if (fields) {
      try {
        const item = itemOf(fields, line);
        if (items.has(item.id)) reason = `id: '${item.id}' is that of line ${items.get(item.id).line} already`;
        else items.set(item.id, item);
      } catch (error) {
        if (!(error instanceof Unusable)) throw error;
        reason = error.message;
      }
    }
    if (reason) faults.push({ line, reason });
  }
  return { name, items: [...items.values()], faults };
}

function* jsonLines(content) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 0;
  for (let start = 0; start <= content.length;) {
    const found = content.indexOf(10, start);
    const end = found < 0 ? content.length : found;
    line += 1;
    const part = content.subarray(start, end);
    start = end + 1;
    let text;
    try {
      text = decoder.decode(part).trim();
    } catch {
      yield { line, fault: "has bytes that are not UTF-8; save the file as UTF-8" };
      continue;
    }
    if (!text) continue;
    try {
      const value = JSON.parse(text, (_, one, context) => (typeof one === "number" ? new Numeral(one, context?.source ?? "") : one));
      if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Numeral) {
        yield { line, fault: `is ${text.slice(0, 40)}; allowed: an object such as {"prompt": "...", "expected": "..."}` };
      } else yield { line, fields: Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null)) };
    } catch (error) {
      yield { line, fault: `is not JSON: ${error.message}` };
    }
  }
}

function* csvLines(content, name) {
  const text = new TextDecoder().decode(content);
  const whole = text.includes("\n") ? text : text.replaceAll("\r", "\n"); // as very old spreadsheets end lines
  const blank = /^(\s*\n)*/.exec(whole)[0];
  const [header] = whole.slice(blank.length).split("\n", 1);
  const found = headerOf(header.replace(/\r$/, ""), QUESTIONS);
  if (!found) throw new Unusable(`${name}: the first line is '${header.trim().slice(0, 80)}'; in CSV it names the columns, among them prompt or messages.`);
  const { delimiter, columns } = found;
  const twice = columns.find((column, at) => column && columns.indexOf(column) < at);
  if (twice) throw new Unusable(`${name}: column '${twice}' is named twice.`);
  const first = blank.split("\n").length + 1;
  for (const row of rowsOf(whole.slice(blank.length + header.length + 1), delimiter, first)) {
    if (row.fault) yield row;
    else if (row.cells.some((cell) => cell.trim())) yield { line: row.line, ...fieldsOf(row.cells, columns) };
  }
}

function fieldsOf(cells, columns) {
  while (cells.length > columns.length && !cells.at(-1).trim()) cells.pop(); // as spreadsheets write a column that was emptied
  if (cells.length !== columns.length) return { fault: `has ${cells.length} cells; the first line names ${columns.length} columns` };
  if (cells.some((cell) => cell.includes("\ufffd"))) return { fault: "has bytes that are not UTF-8; save the file as UTF-8" };
  try {
    return { fields: Object.fromEntries(columns.map((column, at) => [column, cells[at]]).filter(([column, cell]) => column && cell.trim()).map(([column, cell]) => [column, valueOf(column, cell)])) };
  } catch (error) {
    return { fault: error.message };
  }
}

function valueOf(column, cell) {
  const parts = (separator) => cell.split(separator).map((part) => (column === "tags" ? part.trim() : part)).filter(Boolean);
  switch (column) {
    case "messages":
      try {
        return JSON.parse(cell);
      } catch (error) {
        throw new Unusable(`messages: is not JSON: ${error.message}`);
      }
    case "expected": return stringsOf(cell) ?? cell;
    case "choices": return stringsOf(cell) ?? parts("|");
    case "tags": return stringsOf(cell) ?? parts(/[,;]/);
    case "max_tokens": return /^\s*\d{1,9}(\.0*)?\s*$/.test(cell) ? Math.trunc(Number(cell)) : cell;
    case "id": case "grader": return cell.trim();
    default: return cell;
  }
}

function stringsOf(cell) {
  if (!cell.trimStart().startsWith("[")) return null;
  try {
    const value = JSON.parse(cell);
    return Array.isArray(value) && value.length && value.every((part) => typeof part === "string") ? value : null;
  } catch {
    return null;
  }
}

// A number of JSON with how it is written: as the text of an answer, 4.0 is not 4.
class Numeral {
  constructor(value, source) {
    this.value = value;
    this.text = Number.isInteger(value) && /[.eE]/.test(source) && Math.abs(value) < 1e16 ? `${value}.0` : String(value);
  }
}

function itemOf(fields, line) {
  const id = fields.id === undefined ? `line-${line}` : nameOf("id", fields.id);
  const prompt = fields.prompt === undefined ? null : textOf("prompt", fields.prompt, 1);
  const messages = fields.messages === undefined ? null : messagesOf(fields.messages);
  if ((prompt === null) === (messages === null)) throw new Unusable(prompt === null ? "has no prompt and no messages" : "has prompt and messages; give one of them");
  const choices = fields.choices === undefined ? [] : listOf("choices", fields.choices, 2).map((one) => textOf("choices", one, 1));
  if (new Set(choices).size < choices.length) throw new Unusable("choices: the same choice is given twice");
  return {
    id, line, prompt, messages, choices,
    expected: fields.expected === undefined ? [] : listOf("expected", fields.expected, 1).map((one) => textOf("expected", one, 0)),
    tags: fields.tags === undefined ? [] : [...new Set(listOf("tags", fields.tags, 0).map((one) => nameOf("tags", one)))],
    max_tokens: fields.max_tokens === undefined ? null : countOf("max_tokens", fields.max_tokens),
    grader: fields.grader === undefined ? null : nameOf("grader", fields.grader),
  };
}

function listOf(field, value, least) {
  const list = Array.isArray(value) ? value : field !== "choices" && (typeof value === "string" || value instanceof Numeral) ? [value] : null;
  if (list === null) throw new Unusable(`${field}: is ${shown(value)}; allowed: ${field === "choices" ? "a list of texts" : "a text, a number, or a list of them"}`);
  if (list.length < least) throw new Unusable(`${field}: has ${list.length} entries; allowed: at least ${least}`);
  return list;
}

function textOf(field, value, least) {
  const text = value instanceof Numeral && field !== "prompt" ? value.text : value;
  if (typeof text !== "string") throw new Unusable(`${field}: is ${shown(value)}; allowed: a text`);
  if (!text.isWellFormed()) throw new Unusable(`${field}: has half of a surrogate pair, which is no text`);
  if (text.length < least) throw new Unusable(`${field}: is empty`);
  return text;
}

function nameOf(field, value) {
  const name = textOf(field, value, 0).trim();
  if (!name || name.length > MOST_NAME) throw new Unusable(`${field}: has ${name.length} characters; allowed: 1 to ${MOST_NAME}`);
  return name;
}

function countOf(field, value) {
  const count = value instanceof Numeral ? value.value : value;
  if (!Number.isInteger(count) || count < 1 || count > MOST_TOKENS) throw new Unusable(`${field}: is ${shown(value)}; allowed: a whole number from 1 to ${MOST_TOKENS.toLocaleString("en")}`);
  return count;
}

function messagesOf(value) {
  if (!Array.isArray(value) || !value.length) throw new Unusable("messages: allowed: a list of messages, at least one");
  return value.map((message, at) => {
    const { role, content, ...other } = message ?? {};
    if (!ROLES.includes(role)) throw new Unusable(`messages.${at}.role: is ${shown(role)}; allowed: ${ROLES.join(", ")}`);
    if (Object.keys(other).length) throw new Unusable(`messages.${at}.${Object.keys(other)[0]}: is not allowed; a message has role and content`);
    return { role, content: textOf(`messages.${at}.content`, content, 0) };
  });
}

function shown(value) {
  const text = value instanceof Numeral ? value.text : JSON.stringify(value) ?? "missing";
  return text.length <= 60 ? text : `${text.slice(0, 59)}…`;
}

function startsWith(bytes, mark) {
  return mark.every((byte, at) => bytes[at] === byte);
}
