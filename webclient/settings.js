// @ts-check
/**
 * What a person has set: kept in the browser, carried by the address, which wins.
 *
 * @typedef {import('./sdxs-live.js').Controls} Controls
 * @typedef {{prompt: string, strength?: number, stability?: number, transition_s?: number,
 *   seed?: number, region?: Controls['region'], view: string, wipe: number, mirror?: boolean, source: string,
 *   autostart: boolean, seen: boolean, name?: string}} Values
 * @typedef {keyof Values} Name
 */

const STORAGE_KEY = 'sdxs-live';
const ADDRESS_PAUSE_MS = 400; // Safari allows 100 changes of the address in 30 s
const VISIT = { source: 'camera', autostart: false, seen: false };
const DEFAULTS = { ...VISIT, prompt: '', view: 'wipe', wipe: 30 };
/** @type {Record<Name, (text: string) => unknown>} each reads a value or throws a sentence */
export const READERS = {
  prompt: (text) => text,
  strength: toNumber(0, 1),
  stability: toNumber(0, 1),
  transition_s: toNumber(0, 10),
  seed: toNumber(0, 2 ** 31 - 1, 'a whole number'),
  region: toChoice('both', 'person', 'background'),
  view: toChoice('wipe', 'beside', 'hidden'),
  wipe: toNumber(0, 100),
  mirror: toFlag,
  source: (text) => text,
  autostart: toFlag,
  seen: toFlag,
  name: (text) => text, // the server says what is wrong with it
};
const NAMES = /** @type {Name[]} */ (Object.keys(READERS));
export const NUMBERS = /** @type {const} */ (['strength', 'stability', 'transition_s', 'seed']);

/** Only what was set is kept; the rest is the server's choice. Event: `change`. */
export class Settings extends EventTarget {
  /** @type {[Name, string][]} what the address says wrongly, each with a sentence; shown once */
  problems = [];
  /** @type {Values} */
  #values = { ...DEFAULTS };
  #addressTimer = 0;

  constructor() {
    super();
    this.#read(readStorage());
    this.#read(readAddress(), (...problem) => this.problems.push(problem));
    if (this.#values.source === 'file') this.#values.source = 'camera'; // a file cannot be kept
  }

  /** @returns {Readonly<Values>} */
  get values() {
    return this.#values;
  }

  /** What the server is asked for. @returns {Partial<Controls>} */
  get controls() {
    const names = [...NUMBERS, 'region'];
    return pick(this.#values, this.#values.prompt ? ['prompt', ...names] : names);
  }

  /** The address that carries everything but what is this device's own. */
  get link() {
    return this.linkTo({});
  }

  /** The same with a look, whatever was set. @param {Partial<Controls>} look */
  linkTo(look) {
    const { wipe, seen, name, source, ...rest } = { ...this.#values, ...look };
    const texts = toTexts({ ...rest, source: source.replace(/^camera:.*/s, 'camera') });
    const search = new URLSearchParams(texts).toString();
    return location.origin + location.pathname + (search && `?${search}`);
  }

  /** Take changes, keep them and tell. @param {Partial<Values>} changes */
  set(changes) {
    const isNew = (/** @type {Name} */ name) =>
      changes[name] !== undefined && changes[name] !== this.#values[name];
    const names = NAMES.filter(isNew);
    if (names.length === 0) return;
    Object.assign(this.#values, pick(changes, names));
    const { autostart, ...kept } = this.#values; // a link's wish, for this visit
    writeStorage(toTexts(kept));
    this.#writeAddress();
    this.dispatchEvent(new Event('change'));
  }

  /** Keep what somebody else has set: a stream deck, a playlist. @param {Controls} controls */
  follow(controls) {
    this.set(pick(controls, ['prompt', ...NUMBERS, 'region']));
  }

  #writeAddress() {
    if (this.#addressTimer || location.href === this.link) return;
    history.replaceState(null, '', this.link);
    this.#addressTimer = setTimeout(() => {
      this.#addressTimer = 0;
      this.#writeAddress();
    }, ADDRESS_PAUSE_MS);
  }

  /** @param {Record<string, string>} texts @param {(...problem: [Name, string]) => void} [complain] */
  #read(texts, complain) {
    for (const name of NAMES.filter((known) => known in texts)) {
      try {
        Object.assign(this.#values, { [name]: READERS[name](texts[name]) });
      } catch (error) {
        complain?.(name, `The address is wrong: ${name} ${/** @type {Error} */ (error).message}.`);
      }
    }
  }
}

/** @param {number} low @param {number} high @param {string} [kind] */
function toNumber(low, high, kind = 'a number') {
  return (/** @type {string} */ text) => {
    const value = Number(text);
    const isKind = text.trim() !== '' && (kind === 'a number' || Number.isInteger(value));
    if (isKind && value >= low && value <= high) return value;
    throw new RangeError(`must be ${kind} from ${low} to ${high} (got "${text}")`);
  };
}

/** @param {string[]} choices */
function toChoice(...choices) {
  return (/** @type {string} */ text) => {
    if (choices.includes(text)) return text;
    throw new RangeError(`must be one of ${choices.join(', ')} (got "${text}")`);
  };
}

function toFlag(text = '') {
  return toChoice('0', '1')(text) === '1';
}

/** Write what is not the default, as READERS read it. @param {object} values */
function toTexts(values) {
  const isSet = (/** @type {[string, unknown]} */ [name, value]) =>
    value !== undefined && value !== Reflect.get(DEFAULTS, name);
  const toText = (/** @type {unknown} */ value) => String(value === !!value ? +value : value);
  const entries = Object.entries(values).filter(isSet);
  return Object.fromEntries(entries.map(([name, value]) => [name, toText(value)]));
}

/** @param {Record<string, any>} values @param {string[]} names */
function pick(values, names) {
  const isSet = (/** @type {string} */ name) => values[name] !== undefined;
  return Object.fromEntries(names.filter(isSet).map((name) => [name, values[name]]));
}

function readAddress() {
  const hash = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries([...new URLSearchParams(location.search), ...hash]);
}

/** @returns {Record<string, string>} */
function readStorage() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY) ?? '{}');
  } catch {
    return {}; // storage is forbidden here, or holds something else's text
  }
}

function writeStorage(/** @type {object} */ texts) {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(texts));
  } catch {
    // Storage is forbidden or full; the address carries the settings all the same.
  }
}
