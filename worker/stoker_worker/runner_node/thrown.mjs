// What an app throws. It may be anything, also a value that throws again when it is looked at: no answer may hang on that.

import { inspect } from "node:util";

/** The daemon keeps less; a message with more would be no frame. */
const MAX_CHARS = 65_536;
const UNREADABLE = "The app threw a value that cannot be read";
const SHOWN = { breakLength: Infinity, depth: 2, maxArrayLength: 20, maxStringLength: 1_000 };

/** What process.exit() throws in an app. */
export class AppExit extends Error {}

/** Whether it is of one of these classes. A Proxy may throw when it is asked. */
export function isA(thrown, ...classes) {
  return attempt(() => classes.some((each) => thrown instanceof each)) === true;
}

/** The app's own words; they are written for its users. */
export function messageOf(thrown) {
  const words = attempt(() => wordsOf(thrown)) ?? attempt(() => `The app threw ${inspect(thrown, SHOWN)}`) ?? UNREADABLE;
  return bounded(words);
}

/** A text as the daemon can read it: half of a surrogate pair is none. */
export function bounded(text) {
  return text.slice(0, MAX_CHARS).toWellFormed();
}

/** To the log, with the stack. */
export function printError(thrown) {
  if (isA(thrown, AppExit)) return;
  try {
    console.error((thrown instanceof Error && thrown.stack) || thrown);
  } catch {
    attempt(() => console.error(messageOf(thrown))); // the app may have replaced the console
  }
}

function wordsOf(thrown) {
  const words = typeof thrown === "string" ? thrown : thrown?.message;
  if (typeof words === "string" && words) return words;
  return thrown instanceof Error && typeof thrown.name === "string" && thrown.name ? thrown.name : undefined;
}

function attempt(look) {
  try {
    return look();
  } catch {
    return undefined;
  }
}
