// Line breaks and tabs in fields of one line, which cannot hold them: written as \n and \t.

/** Return a text as such a field shows it. */
export function escaped(text) {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
}

/** Return the text that such a field means. */
export function unescaped(text) {
  return text.replace(/\\([\\nt])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);
}
