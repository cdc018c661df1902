// The fleet map: the peers, and which of them serve an id.

const FLEET_ROWS = 100;
// Reading a larger map, and counting its routes, takes long, so the page looks for a change of it less often.
const LARGE_FLEET = 10000, LARGE_FLEET_MS = 30000;

// `3 min`, `2 h`: the largest unit alone.
const age = (seconds) => span(Math.max(0, seconds)).split(' ', 2).join(' ');

const fleet = {
  etag: null, due: 0, routes: [], peersEtag: null, ages: [],

  close() {
    Object.assign(this, { etag: null, due: 0, routes: [], peersEtag: null, ages: [] });
    $('fleet').hidden = true;
  },

  showPeers(peers) {
    const row = ([name, { host, state, routes, since }]) => {
      const row = element('tr'), cell = element('td');
      cell.title = since;
      this.ages.push({ cell, since: Date.parse(since) / 1000 });
      row.append(element('td', '', name), element('td', '', host), element('td', state, state), element('td', '', routes.toLocaleString('en')), cell);
      return row;
    };
    this.ages = [];
    $('peer-rows').replaceChildren(...Object.entries(peers).map(row));
  },

  showAges(now) {
    for (const { cell, since } of this.ages) {
      const next = age(now - since);
      if (cell.textContent !== next) cell.textContent = next;
    }
  },

  show({ routes }) {
    this.routes = Object.entries(routes).map(([id, names]) => ({ id, names, lower: [id, ...names].join(' ').toLowerCase() }));
    this.draw();
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

  get(path, etag) {
    return get(path, etag ? { ...credentials(), 'if-none-match': etag } : credentials());
  },

  // `generation`: 0 if no fleet map has been pushed, or there is none. `now`: seconds by Envoy's clock.
  async read(generation, now) {
    if (!api.open || !generation) return this.close();
    this.showAges(now);
    if (performance.now() < this.due) return;
    const peers = await this.get('/v1/fleet/peers', this.peersEtag);
    if (peers.status === 200) {
      this.showPeers(await peers.json());
      this.peersEtag = peers.headers.get('etag');
    } else if (peers.status !== 304) return this.close();
    this.showAges(now);
    const map = await this.get('/v1/fleet', this.etag);
    if (map.status === 200) {
      this.show(await map.json());
      this.etag = map.headers.get('etag');
      if (this.routes.length > LARGE_FLEET) this.due = performance.now() + LARGE_FLEET_MS;
    } else if (map.status !== 304) return this.close();
    $('fleet').hidden = false;
  },
};
