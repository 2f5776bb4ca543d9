// @ts-check
/**
 * Keys that act wherever the focus is, except where it takes them itself.
 *
 * @typedef {[string[], string, () => unknown]} Key names, words for the help, what it does
 */

const NOT_TYPED_INTO = '[type="radio"], [type="range"], [type="checkbox"], [type="file"]';
const TYPED_INTO = `textarea, [contenteditable], input:not(${NOT_TYPED_INTO})`;

/** @param {HTMLElement} list @param {Key[]} keys are put there with their words */
export function listKeys(list, keys) {
  for (const [names, words] of keys) {
    const term = document.createElement('dt');
    for (const name of names) {
      const cap = name.replace('ArrowRight', '→').replace('ArrowLeft', '←').toUpperCase();
      term.append(Object.assign(document.createElement('kbd'), { textContent: cap }));
    }
    list.append(term, Object.assign(document.createElement('dd'), { textContent: words }));
  }
}

/**
 * A key that acts whatever has the focus and whatever is open, short of typing.
 *
 * @param {string} name @param {() => unknown} act
 */
export function bindPanic(name, act) {
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const { key, target, ctrlKey, metaKey, altKey, isComposing } = event;
    if (key !== name || ctrlKey || metaKey || altKey || isComposing) return;
    if (target instanceof Element && target.matches(TYPED_INTO)) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // nobody else takes it for a choice in a menu
    act();
  };
  window.addEventListener('keydown', onKey, { capture: true });
}

/** @param {Key[]} keys @param {() => boolean} isBlocked for now */
export function bindKeys(keys, isBlocked) {
  document.addEventListener('keydown', (event) => {
    const { key, target, repeat, defaultPrevented, ctrlKey, metaKey, altKey } = event;
    const isTaken = defaultPrevented || repeat || ctrlKey || metaKey || altKey || isBlocked();
    if (isTaken || !(target instanceof Element)) return;
    if (target.matches(`select, ${TYPED_INTO}`)) return;
    if (key.startsWith('Arrow') && target.matches('input')) return;
    const name = key.length === 1 ? key.toLowerCase() : key;
    const act = keys.find(([names]) => names.includes(name))?.[2];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
