// @ts-check

const READ_MS = 10_000; // Safari reads the address of a download late

/** Put a file among the person's downloads. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement('a');
  link.download = name;
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), READ_MS);
}
