// @ts-check
/**
 * A page that was live goes on after a reload, so that nothing that shows it stays empty; a page
 * that is opened waits for Start, for it opens a camera.
 */

const STORAGE_KEY = 'sdxs-live-source'; // of this tab alone

/** Keep what is live now. @param {string} source its name; empty: nothing, or nobody wants it back */
export function keepSource(source) {
  try {
    sessionStorage.setItem(STORAGE_KEY, source);
  } catch {
    // Storage is forbidden here: a reload ends at the welcome.
  }
}

/** Whether this page is a reload of one that was live with a source that opens unasked. */
export function isResumed(source = '') {
  const [visit] = performance.getEntriesByType('navigation');
  const isReload = /** @type {PerformanceNavigationTiming} */ (visit)?.type === 'reload';
  try {
    const isSame = sessionStorage.getItem(STORAGE_KEY) === source;
    return isReload && isSame && (source === 'test' || source.startsWith('camera'));
  } catch {
    return false;
  }
}
