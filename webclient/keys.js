// @ts-check
/**
 * Keys that act wherever the focus is, except where it takes them itself.
 *
 * @typedef {[string[], string, () => unknown]} Key names, words for the help, what it does
 */

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

/** @param {Key[]} keys @param {() => boolean} isBlocked for now */
export function bindKeys(keys, isBlocked) {
  document.addEventListener('keydown', (event) => {
    const { key, target, repeat, defaultPrevented, ctrlKey, metaKey, altKey } = event;
    const isTaken = defaultPrevented || repeat || ctrlKey || metaKey || altKey || isBlocked();
    if (isTaken || !(target instanceof Element)) return;
    if (target.matches('select, input:not([type="radio"], [type="range"])')) return;
    if (key.startsWith('Arrow') && target.matches('input')) return;
    const name = key.length === 1 ? key.toLowerCase() : key;
    const act = keys.find(([names]) => names.includes(name))?.[2];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
