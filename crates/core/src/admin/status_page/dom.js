'use strict';
// The building blocks of the page. Text from others goes through textContent, which interprets no markup.

const $ = (id) => document.getElementById(id);

// Writes only what has changed, because each write to a live region is announced.
const text = (id, value) => {
  const node = $(id), next = String(value);
  if (node.textContent !== next) node.textContent = next;
};

const element = (name, className, content) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
};

const counted = (number, one, many) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;

const span = (seconds) => {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return '0 s';
  const [unit, size] = units[at], whole = Math.floor(seconds / size), below = units[at + 1];
  const rest = below ? Math.floor((seconds % size) / below[1]) : 0;
  return `${whole} ${unit}` + (rest ? ` ${rest} ${below[0]}` : '');
};

const TIMEOUT_MS = 5000;
const get = (path, headers = {}) => fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
