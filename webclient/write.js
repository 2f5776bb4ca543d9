// @ts-check

/**
 * Write a sentence where it is read out when it changes; without one there is nothing to see.
 *
 * @param {HTMLElement} element @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text; // else it is read out again
  element.hidden = !text;
}
