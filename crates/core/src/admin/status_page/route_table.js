// The route map as a table: searched, sorted, and a hundred rows at a time.

const PAGE_ROWS = 100;
const NAMED = 3;
const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// Where agents are reached, without a path; empty if nothing here leads to them.
const agents = document.documentElement.dataset.agents.replace('{host}', location.hostname);

const link = (words, id, path) => {
  // A browser would take these out of the path.
  if (!agents || id === '.' || id === '..') return words;
  const anchor = element('a', '', words);
  Object.assign(anchor, { href: `${agents}/agents/${id}/${path}`, target: '_blank', rel: 'noreferrer' });
  return anchor;
};

const table = {
  // `live`: id -> what Envoy counts for its ports, of routes that had traffic lately; null if that cannot be read.
  routes: [], owners: new Map(), live: null, shown: [], sort: 'id', down: false, page: 0,

  show(routes) {
    this.routes = Object.entries(routes).map(([id, route]) => ({ id, lower: id.toLowerCase(), ...route }));
    this.owners = new Map(this.routes.flatMap(({ id, port, endpoints = {} }) => [port, ...Object.values(endpoints)].map((each) => [each, id])));
    this.arrange();
  },

  // `clusters`: Envoy's /clusters, or null.
  note(clusters) {
    this.live = clusters && traffic.note(clusters, this.owners);
    if (['id', 'port'].includes(this.sort) && !$('search').value) this.shown.forEach((shown) => this.fill(shown));
    else this.arrange();
  },

  health({ id }) {
    const failing = this.live?.get(id)?.failing || [];
    return failing.some(({ health }) => health === 'unreachable') ? 'unreachable' : failing.length ? 'failing' : '';
  },

  stateOf(route) {
    const health = this.health(route), inFlight = this.live?.get(route.id)?.inFlight;
    const left = route.state !== 'draining' || !this.live ? '' : inFlight ? `${inFlight.toLocaleString('en')} in flight` : 'idle';
    return [route.state, health, left].filter(Boolean).join(', ');
  },

  key(route) {
    const { sort } = this;
    return sort === 'state' ? this.stateOf(route) : sort in NOTHING ? this.live?.get(route.id)?.[sort] ?? -1 : route[sort];
  },

  // Sorting ten thousand routes takes longer than everything else here, so it is done once and not at each key of a search.
  arrange() {
    const { down } = this, keys = new Map(this.routes.map((route) => [route, this.key(route)]));
    this.routes.sort((a, b) => (order(keys.get(a), keys.get(b)) || order(a.id, b.id)) * (down ? -1 : 1));
    this.draw();
  },

  draw() {
    const wanted = $('search').value.trim().toLowerCase();
    const found = wanted ? this.routes.filter((route) => route.lower.includes(wanted) ||
      [route.port, ...Object.values(route.endpoints || {})].some((of) => String(of).includes(wanted)) ||
      route.state.startsWith(wanted) || this.health(route).startsWith(wanted)) : this.routes;
    const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
    this.page = Math.min(this.page, pages - 1);
    this.pages = pages;
    this.shown = found.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS).map((route) => this.row(route));
    $('rows').replaceChildren(...this.shown.map(({ row }) => row));
    const all = counted(this.routes.length, 'route', 'routes');
    const draining = this.routes.reduce((sum, { state }) => sum + (state === 'draining'), 0);
    text('found', wanted ? `${found.length.toLocaleString('en')} of ${all}` : all + (draining ? `, ${draining.toLocaleString('en')} draining` : ''));
    text('page', `Page ${this.page + 1} of ${pages}`);
    // Not `disabled`: a disabled button loses the keyboard focus, and the last page is reached with it.
    $('previous').setAttribute('aria-disabled', this.page === 0);
    $('next').setAttribute('aria-disabled', this.page === pages - 1);
    $('pager').hidden = pages === 1;
  },

  // `/agents/{id}/` leads to `rest`, and to `a2a` of a route without it: that has a page only as `ui`.
  row(route) {
    const { id, port, endpoints = {} } = route;
    const row = element('tr'), name = element('td'), ports = element('td', '', port), cells = Array.from({ length: 4 }, () => element('td'));
    name.append(endpoints.rest ? link(id, id, '') : endpoints.ui ? link(id, id, 'ui/') : id);
    for (const [endpoint, of] of Object.entries(endpoints)) {
      const line = element('div', 'endpoint');
      line.append(endpoint === 'ui' ? link('ui', id, 'ui/') : endpoint, ` ${of}`);
      ports.append(line);
    }
    row.append(name, ports, ...cells);
    const shown = { row, route, cells };
    this.fill(shown);
    return shown;
  },

  // Writes what changes from look to look.
  fill({ route, cells: [state, ...counts] }) {
    const write = (cell, value) => { if (cell.textContent !== value) cell.textContent = value; };
    const live = this.live?.get(route.id);
    write(state, this.stateOf(route));
    state.className = this.health(route) || (route.state === 'draining' ? 'draining' : 'active');
    ['inFlight', 'notConnected', 'errors'].forEach((key, at) => write(counts[at], live ? live[key].toLocaleString('en') : '–'));
  },

  // The routes that fail in this way, in words; nothing if there are none.
  failing(health) {
    const ports = [...this.live || []].flatMap(([id, { failing }]) => failing.filter((each) => each.health === health).map(({ port }) => `${id} (port ${port})`));
    const more = ports.length - NAMED;
    return ports.slice(0, NAMED).join(', ') + (more > 0 ? ` and ${more.toLocaleString('en')} more` : '');
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
