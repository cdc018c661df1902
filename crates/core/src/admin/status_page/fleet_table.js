// The fleet map: the peers, and which of them serve an id.

const FLEET_ROWS = 100;
// A map above this is large to read, so it is not read at every look that finds a change.
const LARGE_FLEET = 10000, LARGE_FLEET_MS = 30000;

const fleet = {
  etag: null, due: 0, routes: [],

  close() {
    Object.assign(this, { etag: null, due: 0, routes: [] });
    $('fleet').hidden = true;
  },

  show({ peers, routes }) {
    this.routes = Object.entries(routes).map(([id, names]) => ({ id, names, lower: [id, ...names].join(' ').toLowerCase() }));
    const counts = new Map();
    for (const { names } of this.routes) for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
    const row = ([name, { host, state }]) => {
      const row = element('tr');
      row.append(element('td', '', name), element('td', '', host), element('td', state, state), element('td', '', (counts.get(name) || 0).toLocaleString('en')));
      return row;
    };
    $('peer-rows').replaceChildren(...Object.entries(peers).map(row));
    this.draw();
    $('fleet').hidden = false;
  },

  draw() {
    const wanted = $('fleet-search').value.trim().toLowerCase();
    const found = wanted ? this.routes.filter(({ lower }) => lower.includes(wanted)) : this.routes;
    $('fleet-rows').replaceChildren(...found.slice(0, FLEET_ROWS).map(({ id, names }) => {
      const row = element('tr');
      row.append(element('td', '', id), element('td', '', names.join(', ')));
      return row;
    }));
    const all = counted(this.routes.length, 'route', 'routes');
    text('fleet-found', (wanted ? `${found.length.toLocaleString('en')} of ${all}` : all) + (found.length > FLEET_ROWS ? `, the first ${FLEET_ROWS} are shown` : ''));
  },

  // `generation`: 0 if no fleet map has been pushed, or there is none.
  async read(generation) {
    if (!api.open || !generation) return this.close();
    if (performance.now() < this.due) return;
    const headers = credentials();
    if (this.etag) headers['if-none-match'] = this.etag;
    const answer = await get('/v1/fleet', headers);
    if (answer.status === 304) return;
    if (answer.status !== 200) return this.close();
    this.etag = answer.headers.get('etag');
    this.show(await answer.json());
    if (this.routes.length > LARGE_FLEET) this.due = performance.now() + LARGE_FLEET_MS;
  },
};
