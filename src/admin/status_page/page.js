'use strict';
(() => {
  const STEP_MS = 2000, POINTS = 150, TIMEOUT_MS = 5000, PAGE_ROWS = 100, RECENT_POINTS = 30;
  const STATS = '/stats?format=json&filter=' + encodeURIComponent(
    '^wasmcustom\\.pixell_|^http\\.agents\\.downstream_rq_(total|active)$|^server\\.uptime$|^wasm\\.pixell\\..*\\.vm_reload$|' +
    '^cluster\\.agents_http[12]\\.upstream_(cx_connect_fail|cx_destroy_remote_with_active_rq|rq_rx_reset)$');
  const REJECTIONS = 'wasmcustom.pixell_rejections_total.reason.';
  const ADVICE = {
    missing_deployment_id: 'Callers send no x-deployment-id header. The access log names them (caller, user_agent); the fault is theirs.',
    invalid_deployment_id: 'Callers send an id that is none, or several. The access log shows the value and who sent it.',
    unknown_deployment: 'Callers ask for ids that are not in the map below. Was the agent deployed, and did PAR push it? Look for the id in the access log and in PAR\u2019s log.',
    deployment_draining: 'Callers still use deployments that are being stopped. It passes when they are gone; if not, PAR left them draining.',
    route_map_not_loaded: 'PAR has not pushed a map since Envoy started. Look at PAR\u2019s log for its pushes to ENVOY_ADMIN_URL.',
    internal: 'The filter could not hand the address to Envoy. This is a fault of its configuration or its code: Envoy\u2019s log says which.',
  };
  const $ = (id) => document.getElementById(id);
  const state = {
    token: null, apiOpen: true, etag: null, epoch: null, routes: [], sort: 'id', down: false, page: 0, last: null, lastTime: 0,
    serverInfo: null,
  };

  // Everything that others may have written goes through textContent, which knows no markup.
  const text = (id, value) => { const node = $(id), next = String(value); if (node.textContent !== next) node.textContent = next; };
  const element = (name, className, content) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (content !== undefined) node.textContent = content;
    return node;
  };
  const span = (seconds) => {
    const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
    const at = units.findIndex(([, size]) => seconds >= size);
    if (at < 0) return '0 s';
    const [unit, size] = units[at], whole = Math.floor(seconds / size), below = units[at + 1];
    const rest = below ? Math.floor((seconds % size) / below[1]) : 0;
    return `${whole} ${unit}` + (rest ? ` ${rest} ${below[0]}` : '');
  };
  const get = (path, headers = {}) => fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });

  class Chart {
    constructor(name) { this.name = name; this.series = new Map(); this.points = []; }

    // `deltas`: series -> how many more since the last look, `seconds` ago.
    add(deltas, seconds) {
      for (const key of deltas.keys()) if (!this.series.has(key)) this.series.set(key, 's' + this.series.size % 6);
      this.points.push({ deltas, seconds });
      if (this.points.length > POINTS) this.points.shift();
    }

    sum(key, points = POINTS) {
      return this.points.slice(-points).reduce((sum, { deltas }) => sum + (deltas.get(key) || 0), 0);
    }

    draw() {
      const totals = this.points.map(({ deltas, seconds }) => [...deltas.values()].reduce((a, b) => a + b, 0) / seconds);
      const top = Math.max(...totals, 0);
      const svg = $(this.name + '-chart'), bars = [];
      this.points.forEach(({ deltas, seconds }, at) => {
        let y = 40;
        for (const [key, count] of deltas) {
          if (!count) continue;
          const height = 40 * count / seconds / top, bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
          y -= height;
          const attributes = { class: this.series.get(key), x: POINTS - this.points.length + at, y, width: 0.9, height };
          for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, value);
          bars.push(bar);
        }
      });
      svg.replaceChildren(...bars);
      const now = totals.at(-1) || 0, shown = (rate) => (rate >= 10 ? Math.round(rate) : Math.round(rate * 10) / 10) + ' /s';
      text(this.name + '-rate', shown(now));
      text(this.name + '-scale', 'peak ' + shown(top));
      const legend = [...this.series].map(([key, colour]) => [key, colour, this.sum(key)]);
      svg.setAttribute('aria-label', `${this.name}: ${shown(now)} now, at most ${shown(top)}; in the last minutes ` +
        (legend.map(([key, , sum]) => `${sum} ${key}`).join(', ') || 'none'));
      const counted = legend.filter(([, , sum]) => sum > 0);
      $(this.name + '-legend').replaceChildren(...(counted.length ? counted : [['none so far', 's5', 0]]).map(([key, colour, sum]) => {
        const item = element('li', colour);
        item.append(element('span', '', key), element('span', 'count', sum));
        return item;
      }));
    }
  }
  const charts = { requests: new Chart('requests'), rejections: new Chart('rejections'), failures: new Chart('failures') };

  const countersOf = (stats) => {
    const sum = (...ends) => [...stats].reduce((all, [name, value]) =>
      all + (name.startsWith('cluster.agents_') && ends.some((end) => name.endsWith(end)) ? value : 0), 0);
    const reasons = [...stats].filter(([name]) => name.startsWith(REJECTIONS));
    return {
      requests: new Map([['requests', stats.get('http.agents.downstream_rq_total') || 0]]),
      rejections: new Map(reasons.map(([name, value]) => [name.slice(REJECTIONS.length), value])),
      failures: new Map([
        ['connection not made', sum('.upstream_cx_connect_fail')],
        ['connection or stream broken', sum('.upstream_cx_destroy_remote_with_active_rq', '.upstream_rq_rx_reset')],
      ]),
    };
  };

  const chartAll = (stats) => {
    const now = performance.now(), counters = countersOf(stats), seconds = (now - state.lastTime) / 1000;
    if (state.last) {
      for (const [name, chart] of Object.entries(charts)) {
        // A counter that went back belongs to an Envoy that was started anew.
        const delta = ([key, value]) => { const was = state.last[name].get(key) || 0; return [key, value < was ? value : value - was]; };
        chart.add(new Map([...counters[name]].map(delta)), seconds);
        chart.draw();
      }
    }
    state.last = counters;
    state.lastTime = now;
  };

  const problemsOf = (stats, ready) => {
    const problems = [];
    if (ready !== 'LIVE') {
      problems.push([`Envoy says ${ready}`, 'It is starting, or it is draining before its end; either takes less than a minute. If it stays so, read Envoy\u2019s log.']);
    }
    if (stats.get('wasmcustom.pixell_route_map_generation') === 0) {
      problems.push(['No route map has been pushed', 'Every request is refused until PAR pushes one. Look at PAR\u2019s log for its pushes to ENVOY_ADMIN_URL; an Envoy that was restarted alone waits for PAR\u2019s next push.']);
    }
    const crashes = [...stats].filter(([name, value]) => name.endsWith('.vm_reload') && value > 0);
    if (crashes.length) {
      problems.push(['The filter has crashed and was started anew', 'Streams of that worker were cut. Envoy\u2019s log has the message; please report it.']);
    }
    for (const reason of charts.rejections.series.keys()) {
      const count = charts.rejections.sum(reason, RECENT_POINTS);
      if (count) problems.push([`${count} × ${reason} in the last minute`, ADVICE[reason] || 'See docs/operations.md.']);
    }
    const failed = [...charts.failures.series.keys()].reduce((sum, key) => sum + charts.failures.sum(key, RECENT_POINTS), 0);
    if (failed) {
      problems.push([`${failed} × an agent could not be reached or broke off in the last minute`, 'The route is there, but the process behind its port is not answering. The access log names deployment_id and upstream; look at that agent\u2019s log in PAR.']);
    }
    return problems;
  };

  // The list is announced when it changes, so it is left alone while it says the same.
  const showProblems = (problems) => {
    const key = JSON.stringify(problems);
    if ($('problem-list').dataset.key === key) return;
    $('problem-list').dataset.key = key;
    $('problems').hidden = !problems.length;
    $('problem-list').replaceChildren(...problems.map(([title, advice]) => {
      const item = element('li', 'problem');
      item.append(element('strong', '', title), element('span', '', advice));
      return item;
    }));
  };

  const health = (level, words) => {
    text('health', words);
    $('health').dataset.level = level;
    document.title = (level === 'good' ? '' : `(${words}) `) + 'pixell-envoy';
    document.body.classList.toggle('stale', level === 'bad');
  };

  const showFacts = (stats, ready, serverTime) => {
    const gauge = (name) => stats.get('wasmcustom.pixell_' + name), pushed = gauge('route_map_last_push_timestamp_seconds');
    text('ready', ready);
    text('route-count', gauge('routes') ?? '–');
    text('generation', gauge('route_map_generation') ?? '–');
    text('last-push', pushed ? span(Math.max(0, serverTime - pushed)) + ' ago' : 'never');
    text('active', stats.get('http.agents.downstream_rq_active') ?? '–');
    text('uptime', span(stats.get('server.uptime') || 0));
    const version = [...stats.keys()].find((name) => name.startsWith('wasmcustom.pixell_build_info.version.'));
    text('version', version ? version.split('.version.')[1] : '–');
    text('epoch', state.epoch ?? (state.apiOpen ? '–' : 'needs the route API'));
  };

  const rowOf = ({ id, port, state: routeState }) => {
    const row = element('tr');
    row.append(element('td', '', id), element('td', '', port), element('td', routeState === 'draining' ? 'draining' : 'active', routeState));
    return row;
  };
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const showRoutes = () => {
    const wanted = $('search').value.trim().toLowerCase();
    const found = state.routes.filter(({ id, port, state: routeState }) =>
      id.toLowerCase().includes(wanted) || String(port).includes(wanted) || routeState.startsWith(wanted));
    const { sort } = state;
    found.sort((a, b) => (order(a[sort], b[sort]) || order(a.id, b.id)) * (state.down ? -1 : 1));
    const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
    state.page = Math.min(state.page, pages - 1);
    $('rows').replaceChildren(...found.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS).map(rowOf));
    text('found', wanted ? `${found.length} of ${state.routes.length} routes` : `${found.length} routes`);
    text('page', `Page ${state.page + 1} of ${pages}`);
    $('previous').disabled = state.page === 0;
    $('next').disabled = state.page === pages - 1;
    $('pager').hidden = pages === 1;
  };

  const closeMap = (note, askToken) => {
    Object.assign(state, { apiOpen: false, etag: null, epoch: null, routes: [] });
    $('rows').replaceChildren();
    $('map-view').hidden = true;
    $('token-form').hidden = !askToken;
    $('map-note').hidden = false;
    text('map-note', note);
  };

  const readMap = async () => {
    if (!state.apiOpen) return;
    const headers = {};
    if (state.token) headers.authorization = 'Bearer ' + state.token;
    if (state.etag) headers['if-none-match'] = state.etag;
    const answer = await get('/v1/routes', headers);
    if (answer.status === 304) return;
    if (answer.status === 401) {
      return closeMap(state.token ? 'This token is not the right one.' : 'The route API asks for its token. It stays in this page and is gone when the page is closed.', true);
    }
    if (answer.status === 403) return closeMap('The route map is shown to callers at 127.0.0.1 alone: open this page from inside the task, or through a tunnel to it.', false);
    if (answer.status !== 200) { text('map-note', `The route API answered ${answer.status}.`); $('map-note').hidden = false; return; }
    const { epoch, routes } = await answer.json();
    state.etag = answer.headers.get('etag');
    state.epoch = epoch === '0' ? 'none yet' : epoch;
    state.routes = Object.entries(routes).map(([id, route]) => ({ id, ...route }));
    $('map-view').hidden = false;
    $('token-form').hidden = true;
    $('map-note').hidden = true;
    showRoutes();
  };

  const readServer = async () => {
    if (state.serverInfo) return;
    state.serverInfo = await (await get('/server_info')).json();
    text('envoy', (state.serverInfo.version || '').split('/')[1] || '–');
  };

  const look = async () => {
    try {
      const [ready, answer] = await Promise.all([get('/ready'), get(STATS), readServer()]);
      const said = (await ready.text()).trim();
      const stats = new Map((await answer.json()).stats.filter(({ name }) => name).map(({ name, value }) => [name, value]));
      await readMap();
      chartAll(stats);
      showFacts(stats, said, Date.parse(answer.headers.get('date') || new Date()) / 1000);
      const problems = problemsOf(stats, said);
      showProblems(problems);
      health(said !== 'LIVE' ? 'bad' : problems.length ? 'warn' : 'good', said !== 'LIVE' ? said : problems.length ? 'Live, with problems' : 'Live');
    } catch (error) {
      state.serverInfo = null;
      text('ready', 'no answer');
      health('bad', 'Envoy does not answer');
      showProblems([['Envoy does not answer',
        'What is shown below is how it was before. Is the container running? Its log ends with the reason, and the orchestrator restarts it; PAR then pushes the map again. This page goes on trying.']]);
    }
  };

  const run = async () => {
    if (!document.hidden) await look();
    setTimeout(run, STEP_MS);
  };

  $('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    Object.assign(state, { token: $('token').value, apiOpen: true });
    $('token').value = '';
    readMap().then(() => { if (state.apiOpen) $('search').focus(); }).catch(() => {});
  });
  $('search').addEventListener('input', () => { state.page = 0; showRoutes(); });
  $('previous').addEventListener('click', () => { state.page -= 1; showRoutes(); });
  $('next').addEventListener('click', () => { state.page += 1; showRoutes(); });
  for (const button of document.querySelectorAll('[data-sort]')) {
    button.addEventListener('click', () => {
      const { sort } = button.dataset;
      Object.assign(state, { down: state.sort === sort && !state.down, sort, page: 0 });
      for (const other of document.querySelectorAll('[data-sort]')) {
        const direction = other !== button ? 'none' : state.down ? 'descending' : 'ascending';
        other.parentElement.setAttribute('aria-sort', direction);
      }
      showRoutes();
    });
  }
  run();
})();
