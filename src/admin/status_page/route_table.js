// The route map as a table: searched, sorted, and a hundred rows at a time.

const PAGE_ROWS = 100;
const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

const table = {
  routes: [], sort: 'id', down: false, page: 0,

  show(routes) {
    this.routes = Object.entries(routes).map(([id, route]) => ({ id, lower: id.toLowerCase(), ...route }));
    this.arrange();
  },

  // Sorting ten thousand takes longer than all else here, so it is done once and not at each key of a search.
  arrange() {
    const { sort, down } = this;
    this.routes.sort((a, b) => (order(a[sort], b[sort]) || order(a.id, b.id)) * (down ? -1 : 1));
    this.draw();
  },

  draw() {
    const wanted = $('search').value.trim().toLowerCase();
    const found = wanted ? this.routes.filter(({ lower, port, state }) =>
      lower.includes(wanted) || String(port).includes(wanted) || state.startsWith(wanted)) : this.routes;
    const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
    this.page = Math.min(this.page, pages - 1);
    this.pages = pages;
    $('rows').replaceChildren(...found.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS).map(this.row));
    const all = counted(this.routes.length, 'route', 'routes');
    const draining = this.routes.reduce((sum, { state }) => sum + (state === 'draining'), 0);
    text('found', wanted ? `${found.length.toLocaleString('en')} of ${all}` : all + (draining ? `, ${draining.toLocaleString('en')} draining` : ''));
    text('page', `Page ${this.page + 1} of ${pages}`);
    // Not `disabled`: that would take the focus from whoever has come to the last page by keyboard.
    $('previous').setAttribute('aria-disabled', this.page === 0);
    $('next').setAttribute('aria-disabled', this.page === pages - 1);
    $('pager').hidden = pages === 1;
  },

  row({ id, port, state }) {
    const row = element('tr');
    row.append(element('td', '', id), element('td', '', port), element('td', state === 'draining' ? 'draining' : 'active', state));
    return row;
  },

  turn(by) {
    this.page = Math.min(Math.max(0, this.page + by), this.pages - 1);
    this.draw();
  },

  listen() {
    $('search').addEventListener('input', () => { this.page = 0; this.draw(); });
    $('previous').addEventListener('click', () => this.turn(-1));
    $('next').addEventListener('click', () => this.turn(1));
    const buttons = [...document.querySelectorAll('[data-sort]')];
    for (const button of buttons) {
      button.addEventListener('click', () => {
        const { sort } = button.dataset;
        Object.assign(this, { down: this.sort === sort && !this.down, sort, page: 0 });
        for (const other of buttons) {
          other.parentElement.setAttribute('aria-sort', other !== button ? 'none' : this.down ? 'descending' : 'ascending');
        }
        this.arrange();
      });
    }
  },
};
