// Rows of CSV, as Python's csv module reads them.

const DELIMITERS = [",", ";", "\t"];

/** Yield {line, cells} for every row of `text`, whose first line has the number `first`; {line, fault} for one that cannot be read. */
export function* rowsOf(text, delimiter, first = 1) {
  let [line, start, at] = [first, first, 0];
  let cells = [];
  let [cell, quoted, closed] = ["", false, false];
  let fault = null;
  const row = () => {
    const made = fault === null ? { line: start, cells: [...cells, cell] } : { line: start, fault };
    [cells, cell, quoted, closed, fault] = [[], "", false, false, null];
    return made;
  };
  for (; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\n") line += 1;
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else [quoted, closed] = [false, true];
    } else if (character === delimiter) {
      cells.push(cell);
      [cell, closed] = ["", false];
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") continue;
      yield row();
      start = line;
    } else if (character === '"' && cell === "" && !closed) quoted = true;
    else if (closed) fault ??= `is not CSV: '${delimiter}' expected after '"'`;
    else cell += character;
  }
  if (quoted) yield { line: start, fault: "begins a quoted cell that is not closed, so that the rest of the file belongs to it" };
  else if (cell !== "" || cells.length || fault !== null) yield row();
}

/** Return the delimiter of a header, by which it has one of `wanted` among its columns, and the columns; null if there is none. */
export function headerOf(header, wanted) {
  for (const delimiter of DELIMITERS) {
    const [row] = rowsOf(header, delimiter);
    const columns = row?.cells?.map((cell) => cell.trim()) ?? [];
    if (columns.some((column) => wanted.includes(column))) return { delimiter, columns };
  }
  return null;
}

/** Return rows of cells as CSV. */
export function csvOf(rows) {
  return rows.map((cells) => cells.map((cell) => {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",")).join("\n") + "\n";
}
