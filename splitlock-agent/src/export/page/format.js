// Numbers and times for people. A figure is `{text, exact}`: what is shown, and its title.

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count. */
function count(value) {
  return { text: value < 1e6 ? GROUPED.format(value) : COMPACT.format(value), exact: String(value) };
}

/** A rate per second; nothing is known before two answers. */
function rate(value) {
  if (value === null || value === undefined) return { text: "–", exact: "not known yet" };
  if (value === 0) return { text: "0", exact: "0 per second" };
  const text = value < 0.01 ? "<0.01" : value < 1e4 ? DIGITS.format(value) : COMPACT.format(value);
  return { text, exact: `${value} per second` };
}

/** A duration, given in nanoseconds. */
function duration(ns) {
  const exact = `${ns} ns`;
  if (ns === 0) return { text: "0", exact };
  for (const [unit, size] of [["d", 864e11], ["h", 36e11], ["min", 6e10], ["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) return { text: `${DIGITS.format(ns / size)} ${unit}`, exact };
  }
  return { text: `${ns} ns`, exact };
}

/** A time of day in this place, to the millisecond. */
function clock(seconds) {
  const date = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return { text: `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`, exact: date.toISOString() };
}

/** Bytes. */
function bytes(value) {
  const exact = `${value} bytes`;
  for (const [unit, size] of [["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return { text: `${DIGITS.format(value / size)} ${unit}`, exact };
  }
  return { text: `${value} B`, exact };
}

/** A name of the API in words: `split_lock` becomes `split lock`. */
function words(name) {
  return name.replaceAll("_", " ").replace(/\bac\b/u, "#AC");
}

/** How many of a thing: `plural(1, "event")` is `1 event`. */
function plural(number, noun) {
  return `${count(number).text} ${noun}${number === 1 ? "" : "s"}`;
}

/** The sum of an object's values. */
function sum(counts) {
  let total = 0;
  for (const key in counts) total += counts[key];
  return total;
}
