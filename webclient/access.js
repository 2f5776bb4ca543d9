// @ts-check
/**
 * This page's token, for a server that asks for one.
 *
 * It comes after a # in the address, which no server and no log gets to see; from there it is
 * taken away, since the address may be on air or copied, and kept in this browser.
 */

import { withToken } from './bearer.js';

const STORAGE_KEY = 'sdxs-live-token';
const TOKEN = /^[\w.~+/-]+=*$/; // settings after a # have values, a token has none

/** Event: `refused` when a request lacked the right token. */
class Access extends EventTarget {
  #token = '';

  constructor() {
    super();
    const given = location.hash.slice(1);
    if (TOKEN.test(given)) {
      this.token = given;
      history.replaceState(history.state, '', location.pathname + location.search);
    } else {
      this.#token = readStorage();
    }
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    try {
      localStorage.setItem(STORAGE_KEY, token);
    } catch {
      // Storage is forbidden: the token is good for this visit.
    }
  }

  /** Ask this page's own server. @param {string} url @param {RequestInit} [init] */
  async ask(url, init) {
    const response = await fetch(url, withToken(this.#token, init));
    if (response.status === 401) this.dispatchEvent(new Event('refused'));
    return response;
  }
}

function readStorage() {
  try {
    return localStorage.getItem(STORAGE_KEY) ?? '';
  } catch {
    return '';
  }
}

export const access = new Access();
