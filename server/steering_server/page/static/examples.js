// Prompts on which the shipped profiles do best and worst. A test measures that they do.

/**
 * Each example: the profile, whether it shows that at its best or at its worst, the prompt, the number of tokens, what the right
 * answer begins with, and what there is to see.
 */
export const EXAMPLES = [
  {
    profile: "parentheses", kind: "best", prompt: "#print the string 123\nprint(str(str(str(123", max_tokens: 8, right: "))))",
    says: "Four parentheses are open. The model closes three of them; with the profile it closes all four.",
  },
  {
    profile: "parentheses", kind: "worst", prompt: "return max(min(int(round(x", max_tokens: 8, right: "))",
    says: "Four parentheses are open, but max and min still want a second argument. The model closes two, which is right; with the profile it closes more.",
  },
  {
    profile: "factual-recall", kind: "best", prompt: "The official language of Sweden is", max_tokens: 3, right: " Swedish",
    says: "The right answer is Swedish. The model only repeats the question; with the profile it answers.",
  },
  {
    profile: "factual-recall", kind: "worst", prompt: "The capital of Pakistan is", max_tokens: 3, right: " Islamabad",
    says: "The right answer is Islamabad, and the model knows it. With the profile it names a larger city.",
  },
];
