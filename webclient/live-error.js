// @ts-check
/** Why a session cannot open or go on, in a sentence. Final: trying again is of no use. */
export class LiveError extends Error {
  isFinal = false;
  retryAfter_s = /** @type {number | undefined} */ (undefined);
  status = /** @type {number | undefined} */ (undefined);
  /** Where a full server gives places in line. */
  waiting = /** @type {string | undefined} */ (undefined);

  /** @param {string} sentence @param {Partial<LiveError>} [facts] */
  constructor(sentence, facts) {
    super(sentence);
    Object.assign(this, facts);
  }
}

/** Turn a refusal (RFC 9457 problem+json) into an error; 503 asks for patience. */
export async function toError(/** @type {Response} */ response) {
  const { status, headers } = response;
  const isJson = headers.get('Content-Type')?.includes('json');
  const { detail, waiting } = isJson ? await response.json() : {};
  return new LiveError(detail ?? `The server refuses the session (HTTP ${status}).`, {
    isFinal: status < 500 && status !== 429,
    retryAfter_s: Number(headers.get('Retry-After')) || (status === 503 ? 1 : undefined),
    status,
    waiting,
  });
}
