// @ts-check

/**
 * Wait for a while.
 *
 * @param {number} pause_ms @param {AbortSignal} [signal] ends it early; nothing is thrown
 * @returns {Promise<void>}
 */
export function pause(pause_ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, pause_ms);
    signal?.addEventListener('abort', end);
    if (signal?.aborted) end();
  });
}
