// The page as a whole: polls Envoy every two seconds and shows the results.

const STEP_MS = 2000;
const STATS = '/stats?format=json&filter=' + encodeURIComponent(
  '^wasmcustom\\.pixell_|^http\\.agents\\.downstream_rq_(total|active)$|^server\\.uptime$|^wasm\\.pixell\\..*\\.vm_reload_(success|failure)$|' +
  '^overload\\.envoy\\.resource_monitors\\.\\w+\\.pressure$|' +
  '^cluster\\.agents_\\w+\\.upstream_cx_connect_fail$|' +
  // Without agents_websocket: every WebSocket that its agent closes ends with its connection.
  '^cluster\\.agents_http[12]\\.upstream_(cx_destroy_remote_with_active_rq|rq_rx_reset)$|' +
  '^tokens\\.unauthenticated_total\\.|^http\\.agents\\.jwt_authn\\.jwks_fetch_failed$|^clients\\.http_local_rate_limit\\.rate_limited$|' +
  '^sds\\.pixell_(peer_)?tls(_client_ca|_ca)?\\.key_rotation_failed$|^server\\.days_until_first_cert_expiring$|' +
  '^launcher\\.dropped_log_lines_total');

const charts = { requests: new Chart('requests'), rejections: new Chart('rejections'), failures: new Chart('failures') };
const seen = {
  ...charts, writes: new Tally(), fleetWrites: new Tally(), dropped: new Tally(), displaced: new Tally(), authentication: new Tally(),
};
const api = { token: null, open: true, etag: null, epoch: null };
let serverInfo = null;

const noteAll = (stats, now) => {
  const total = (values) => values.reduce((all, value) => all + value, 0);
  const sum = (...ends) => [...stats].reduce((all, [name, value]) =>
    all + (name.startsWith('cluster.agents_') && ends.some((end) => name.endsWith(end)) ? value : 0), 0);
  const below = (prefix) => new Map([...stats].filter(([name]) => name.startsWith(prefix)).map(([name, value]) => [name.slice(prefix.length), value]));
  seen.requests.note(new Map([['requests', stats.get('http.agents.downstream_rq_total') || 0]]), now);
  const envoys = ENVOY_REJECTIONS.map(([reason, prefix]) => [reason, [...below(prefix).values()]]).filter(([, counts]) => counts.length)
    .map(([reason, counts]) => [reason, total(counts)]);
  seen.rejections.note(new Map([...below(REJECTIONS), ...envoys]), now);
  seen.authentication.note(new Map(Object.entries(AUTHENTICATION).map(([key, { counter }]) => [key, stats.get(counter) || 0])), now);
  seen.writes.note(below(REFUSED_WRITES), now);
  seen.fleetWrites.note(below(REFUSED_FLEET_WRITES), now);
  seen.dropped.note(new Map([['log lines', total([...below(DROPPED_LINES).values()])]]), now);
  seen.displaced.note(new Map([['displaced routes', stats.get(DISPLACED) || 0]]), now);
  seen.failures.note(new Map([
    [NOT_CONNECTED, sum('.upstream_cx_connect_fail')],
    [BROKEN_OFF, sum('.upstream_cx_destroy_remote_with_active_rq', '.upstream_rq_rx_reset')],
  ]), now);
  for (const chart of Object.values(charts)) chart.draw();
};

const health = (level, words) => {
  text('health', words);
  $('health').dataset.level = level;
  document.title = (level === 'good' ? '' : `(${words}) `) + 'pixell-envoy';
};

const showFacts = (stats, ready, serverTime) => {
  const gauge = (name) => stats.get('wasmcustom.pixell_' + name), pushed = gauge('route_map_last_push_timestamp_seconds');
  const number = (value) => (value === undefined ? '–' : value.toLocaleString('en'));
  const memory = stats.get(PRESSURE + 'fixed_heap.pressure');
  const version = [...stats.keys()].find((name) => name.startsWith('wasmcustom.pixell_build_info.version.'));
  text('ready', ready);
  text('uptime', span(stats.get('server.uptime') || 0));
  text('route-count', number(gauge('routes')));
  text('generation', number(gauge('route_map_generation')));
  text('last-push', pushed ? span(Math.max(0, serverTime - pushed)) + ' ago' : 'never');
  text('active', number(stats.get('http.agents.downstream_rq_active')));
  text('memory', memory === undefined ? '–' : `${memory} % of its limit`);
  text('version', version ? version.split('.version.')[1] : '–');
  text('envoy', (serverInfo.version || '').split('/')[1] || '–');
  text('epoch', api.epoch ?? (api.open ? '–' : 'needs the route API'));
  text('as-of', 'as of ' + new Date(serverTime * 1000).toISOString().slice(11, 19) + ' UTC');
};

const note = (words) => { text('map-note', words); $('map-note').hidden = !words; };

const closeMap = (words, askToken) => {
  Object.assign(api, { open: false, etag: null, epoch: null });
  table.live = null;
  fleet.close();
  table.show({});
  $('map-view').hidden = true;
  $('token-form').hidden = !askToken;
  note(words);
};

const credentials = () => (api.token ? { authorization: 'Bearer ' + api.token } : {});

const readMap = async () => {
  if (!api.open) return;
  const headers = credentials();
  if (api.etag) headers['if-none-match'] = api.etag;
  const response = await get('/v1/routes', headers);
  if (response.status === 401) {
    return closeMap(api.token ? 'This token is wrong.' : 'The route API requires its token. This page keeps it until it is closed.', true);
  }
  if (response.status === 403) return closeMap('The route map is shown at 127.0.0.1 alone: open this page from inside the task, or through a tunnel to it.', false);
  if (response.status !== 200 && response.status !== 304) return note(`The route API responded with ${response.status}: what is shown may be old.`);
  note('');
  if (response.status === 304) return;
  const { epoch, routes } = await response.json();
  api.etag = response.headers.get('etag');
  api.epoch = epoch === '0' ? 'none yet' : epoch;
  $('map-view').hidden = false;
  $('token-form').hidden = true;
  table.show(routes);
};

// Only a client that may read the map may read this.
const readTraffic = async () => {
  if (!api.open || !api.etag) return;
  const response = await get(CLUSTERS, credentials());
  table.note(response.status === 200 ? await response.json() : null);
};

const look = async () => {
  try {
    const [ready, response] = await Promise.all([get('/ready'), get(STATS)]);
    serverInfo ??= await (await get('/server_info')).json();
    const said = (await ready.text()).trim();
    const stats = new Map((await response.json()).stats.filter(({ name }) => name).map(({ name, value }) => [name, value]));
    const now = performance.now() / 1000, serverTime = Date.parse(response.headers.get('date') || new Date()) / 1000;
    // A route API that hangs does not make Envoy look dead.
    await readMap().catch(() => note('The route API does not respond: what is shown may be old.'));
    await readTraffic().catch(() => table.note(null));
    // The fleet stays as shown until the route API responds.
    await fleet.read(stats.get('wasmcustom.pixell_fleet_map_generation'), serverTime).catch(() => {});
    noteAll(stats, now);
    showFacts(stats, said, serverTime);
    const problems = problemsOf(said, stats, seen, (health) => table.failing(health));
    showProblems(problems);
    const level = problems.some((problem) => problem.level === 'bad') ? 'bad' : problems.length ? 'warn' : 'good';
    health(level, said !== 'LIVE' ? said : problems.length ? 'Live, with problems' : 'Live');
  } catch {
    // The next response may be from another Envoy.
    serverInfo = null;
    text('ready', 'no response');
    health('bad', NO_RESPONSE.title);
    showProblems([NO_RESPONSE]);
  }
};

const run = async () => {
  await look();
  setTimeout(run, STEP_MS);
};

$('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  Object.assign(api, { token: $('token').value, open: true });
  $('token').value = '';
  readMap().then(() => { if (api.open) $('search').focus(); }).catch(() => {});
});
table.listen();
$('fleet-search').addEventListener('input', () => fleet.draw());
run();
