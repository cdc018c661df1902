// What Envoy counts for each agent's port. It knows a port for one to two minutes after its last connection.

const CLUSTERS = '/clusters?format=json&filter=' + encodeURIComponent('^agents_');
const COUNTS = {
  inFlight: ['rq_active', 'rq_pending_active'], open: ['cx_active'], notConnected: ['cx_connect_fail'], errors: ['rq_error'], well: ['rq_success'],
};
const NOTHING = { inFlight: 0, open: 0, notConnected: 0, errors: 0, well: 0 };
// Counts of a longer time do not tell what happened last.
const SHORT_MS = 10000;

const combined = (a, b, sign) => Object.fromEntries(Object.keys(NOTHING).map((key) => [key, a[key] + sign * b[key]]));

// port -> counts, over all clusters of agents.
const countsByPort = ({ cluster_statuses: clusters = [] }) => {
  const ports = new Map();
  for (const { name, host_statuses: hosts = [] } of clusters) {
    if (!name.startsWith('agents_')) continue;
    for (const { address, stats } of hosts) {
      // A value of 0 is left out, and numbers are text.
      const value = new Map(stats.map((stat) => [stat.name, Number(stat.value || 0)]));
      const counts = Object.fromEntries(Object.entries(COUNTS).map(([key, names]) => [key, names.reduce((sum, each) => sum + (value.get(each) || 0), 0)]));
      const port = address.socket_address.port_value;
      ports.set(port, combined(counts, ports.get(port) || NOTHING, 1));
    }
  }
  return ports;
};

// By the latest result: a request that succeeded, else one that did not. If `isLong` says that the counts are of minutes, the latest result is
// unknown. Then failed connections win unless one is open now: an agent that died must not look healthy.
const healthOf = (grown, open, isLong, before) =>
  grown.well && !(isLong && grown.notConnected && !open) ? '' : grown.notConnected ? 'unreachable' : grown.errors ? 'failing' : before;

const traffic = {
  ports: new Map(),
  noted: -Infinity,

  // `clusters`: Envoy's /clusters; `owners`: port -> id. Returns id -> its counts, and its failing ports with how they fail.
  note(clusters, owners) {
    const ports = new Map(), routes = new Map(), now = performance.now(), isLong = now - this.noted > SHORT_MS;
    for (const [port, total] of countsByPort(clusters)) {
      const id = owners.get(port);
      let before = this.ports.get(port);
      // Envoy has forgotten the port meanwhile, and counts from 0.
      if (!before || total.well < before.total.well || total.errors < before.total.errors) before = { id, total: NOTHING, base: NOTHING, health: '' };
      // The counts of an earlier owner of the port are not those of this owner.
      if (before.id !== id) before = { id, total: before.total, base: before.total, health: '' };
      const grown = combined(total, before.total, -1);
      const health = healthOf(grown, total.open, isLong, before.health);
      ports.set(port, { id, total, base: before.base, health });
      if (id === undefined) continue;
      const route = routes.get(id) || { ...NOTHING, failing: [] };
      const counts = { ...combined(total, before.base, -1), inFlight: total.inFlight };
      routes.set(id, { ...combined(route, counts, 1), failing: health ? [...route.failing, { port, health }] : route.failing });
    }
    Object.assign(this, { ports, noted: now });
    return routes;
  },
};
