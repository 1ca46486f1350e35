// A small data set to begin with: calls with one to four open parentheses, which the model closes or not.

const NUMBERS = [123, 907, 4567, 8210, 31415, 27182, 141421, 662607];

/** Return the example as a file in JSON Lines. */
export function exampleFile() {
  const lines = NUMBERS.flatMap((number) => [1, 2, 3, 4].map((depth) => JSON.stringify({
    prompt: `#print the string ${number}\nprint(${"str(".repeat(depth - 1)}${number}`, expected: ")".repeat(depth), tags: [`${depth} open`], max_tokens: 1,
  })));
  return { name: "parentheses.jsonl", bytes: new TextEncoder().encode(`${lines.join("\n")}\n`) };
}
