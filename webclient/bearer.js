// @ts-check
/**
 * Add a token to a request (RFC 6750, section 2.1).
 *
 * @param {string} token empty: the server asks for none
 * @param {RequestInit} [init]
 * @returns {RequestInit}
 */
export function withToken(token, init = {}) {
  if (!token) return init;
  return { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } };
}
