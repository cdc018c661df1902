// The counts of the last minutes, and their charts.

// Looks are kept for five minutes. The charts show as many minutes as there are looks, so that a page just opened shows something.
const WINDOW_S = 300;
const MINUTE_S = 60;

// How much counters have grown, look by look. Times are in seconds, by the page's own clock.
class Tally {
  constructor() { this.looks = []; this.last = null; this.began = null; }

  // `counters`: series -> its value. One that went back belongs to an Envoy that was restarted.
  note(counters, now) {
    if (this.last) {
      const delta = ([key, value]) => [key, value - (value < (this.last.get(key) || 0) ? 0 : this.last.get(key) || 0)];
      this.looks.push({ from: this.lastTime, to: now, deltas: new Map([...counters].map(delta)) });
    }
    this.began ??= now;
    this.last = counters;
    this.lastTime = now;
    this.looks = this.looks.filter(({ to }) => to > now - WINDOW_S);
  }

  keys() { return this.last ? [...this.last.keys()] : []; }

  // A look that began before the window counts only in part: a page in the background looks rarely.
  sum(key, seconds = WINDOW_S) {
    const start = this.lastTime - seconds;
    return Math.ceil(this.looks.reduce((sum, { from, to, deltas }) =>
      sum + (to > start ? (deltas.get(key) || 0) * (to - Math.max(from, start)) / (to - from) : 0), 0));
  }
}

class Chart extends Tally {
  constructor(name) { super(); this.name = name; }

  draw() {
    const now = this.lastTime, height = 40, bars = [];
    const minutes = Math.min(WINDOW_S / MINUTE_S, Math.floor((now - this.began) / MINUTE_S) + 1), shown = minutes * MINUTE_S;
    const rates = this.looks.map(({ from, to, deltas }) => [...deltas.values()].reduce((a, b) => a + b, 0) / (to - from));
    const top = Math.max(...rates, 0);
    const bar = (className, from, to, y, high) => {
      const rect = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
      const x = Math.max(0, shown - (now - from)) / shown, end = Math.max(0, shown - (now - to)) / shown;
      for (const [name, value] of Object.entries({ class: className, x, y, width: end - x, height: high })) {
        rect.setAttribute(name, value);
      }
      bars.push(rect);
    };
    if (now - this.began < shown) bar('unseen', now - shown, this.began, 0, height);
    for (const { from, to, deltas } of this.looks) {
      let y = height;
      [...deltas].forEach(([, count], series) => {
        if (!count) return;
        // One rejection beside a thousand stays visible.
        const high = Math.max(1.5, height * count / (to - from) / top);
        y -= high;
        bar('bar s' + series % 6, from, to, Math.max(0, y), high);
      });
    }
    $(this.name + '-chart').replaceChildren(...bars);
    text(this.name + '-start', `${minutes} min ago`);
    this.describe(rates.at(-1) || 0, top);
  }

  describe(now, top) {
    const shown = (rate) => (rate >= 10 ? Math.round(rate).toLocaleString('en') : Math.round(rate * 10) / 10) + ' /s';
    text(this.name + '-rate', `${shown(now)}, peak ${shown(top)}`);
    const sums = this.keys().map((key, series) => [key, series, this.sum(key)]).filter(([, , sum]) => sum > 0);
    $(this.name + '-chart').setAttribute('aria-label', `${this.name}: ${shown(now)} now, at most ${shown(top)}; in the last minutes ` +
      (sums.map(([key, , sum]) => `${sum} ${key}`).join(', ') || 'none'));
    const items = sums.map(([key, series, sum]) => {
      const item = element('li', 's' + series % 6);
      item.append(element('span', '', key), element('span', 'count', sum.toLocaleString('en')));
      return item;
    });
    $(this.name + '-legend').replaceChildren(...(items.length ? items : [element('li', 'none', 'none so far')]));
  }
}
