// What is wrong, by the counters, and what to do about it. docs/operations.md says more about each problem.

const RECENT_S = 60;
const NEARLY_FULL = 80;
const REJECTIONS = 'wasmcustom.pixell_rejections_total.reason.';
const REFUSED_WRITES = 'wasmcustom.pixell_route_map_refused_writes_total.reason.';
const REFUSED_FLEET_WRITES = 'wasmcustom.pixell_fleet_map_refused_writes_total.reason.';
const PRESSURE = 'overload.envoy.resource_monitors.';
const DROPPED_LINES = 'launcher.dropped_log_lines_total';

const REJECTION_ADVICE = {
  missing_deployment_id: 'Requests name no agent by header, path or host. The access log names their clients (caller, user_agent): fix these clients.',
  invalid_deployment_id: 'Clients send a value that is not an id, or several different ids. The access log shows the value and the client.',
  unknown_deployment: 'Clients ask for ids that are not in the map below. Was the agent deployed, and did PAR push it? Look for the id in the access log and in PAR’s log.',
  unknown_endpoint: 'Clients ask for an endpoint that the agent does not have. The map below lists each route’s endpoints; the access log names the path.',
  deployment_draining: 'Clients still call deployments that are being stopped. The map below shows which are idle. If this lasts, PAR left them draining.',
  deployment_moved: 'An agent died and came back on another port while requests waited for it. Clients have to retry. If it continues, PAR’s log says why the agent dies.',
  route_map_not_loaded: 'PAR has not pushed a map since Envoy started. Look at PAR’s log for its pushes to ENVOY_ADMIN_URL.',
  agent_unreachable: 'An agent accepts no connection. The access log names deployment_id and upstream: is that agent running, and on that port?',
  peer_unreachable: 'No task that serves the id accepts a connection. The access log names the task (upstream): does it run, and does its port 50050 let this one in?',
  overloaded: 'All connections of an agent are busy, and requests waited five seconds for one. The map below shows what each agent has in flight: does that agent respond, and which clients hold its connections?',
  not_allowed: 'Clients call deployments that their tokens do not allow. The access log names them (subject, caller) and the id. Does the issuer put the right claim into the tokens?',
  internal: 'The filter could not hand the address to Envoy. This is an error in its configuration or its code: Envoy’s log says which.',
};
// The reasons for which Envoy's own filters reject clients, and how the names of their counters begin.
const ENVOY_REJECTIONS = [['unauthenticated', 'tokens.unauthenticated_total.reason.'], ['rate_limited', 'clients.http_local_rate_limit.rate_limited']];
const ENVOY_REJECTION_ADVICE = {
  unauthenticated: 'Clients have no valid token. The access log names them (caller, user_agent) and the reason (code_details).',
  rate_limited: 'Clients call a deployment more often than PIXELL_RATE_LIMIT allows. The access log names them (subject, caller) and the id.',
};
const AUTHENTICATION = {
  keys: {
    counter: 'http.agents.jwt_authn.jwks_fetch_failed', title: 'fetch of the keys of tokens failed',
    advice: 'The last keys stay in use; without any keys, all clients are rejected. Is the file of PIXELL_JWKS_FILE a key set, or does the server of PIXELL_JWKS_URL respond? Envoy’s log has the URL.',
  },
  certificate: {
    counter: 'sds.pixell_tls.key_rotation_failed', title: 'new certificate not used',
    advice: 'The previous one stays in use. Envoy’s log says why (Failed to reload certificates). This is no error if certificate and key have just been replaced one after the other.',
  },
  clientCa: {
    counter: 'sds.pixell_tls_client_ca.key_rotation_failed', title: 'new CA of clients not used',
    advice: 'The previous one stays in use. Does the file of PIXELL_TLS_CLIENT_CA_FILE hold certificates in PEM? Envoy’s log says what is wrong.',
  },
  peerCertificate: {
    counter: 'sds.pixell_peer_tls.key_rotation_failed', title: 'new certificate between tasks not used',
    advice: 'The previous one stays in use; once it expires, no other task can be reached. Envoy’s log says why (Failed to reload certificates). This is no error if certificate and key have just been replaced one after the other.',
  },
  peerCa: {
    counter: 'sds.pixell_peer_tls_ca.key_rotation_failed', title: 'new CA of tasks not used',
    advice: 'The previous one stays in use. Does the file of PIXELL_PEER_CA_FILE hold certificates in PEM? Envoy’s log says what is wrong.',
  },
};
const EXPIRY = 'server.days_until_first_cert_expiring', EXPIRY_DAYS = 14;
const EXPIRY_ADVICE = 'Replace the files of PIXELL_TLS_CERT_FILE and PIXELL_TLS_KEY_FILE, or between tasks those of PIXELL_PEER_CERT_FILE and PIXELL_PEER_KEY_FILE; Envoy reads them again without a restart.';
const WRITE_ADVICE = {
  unauthorized: 'PAR’s token and PIXELL_ADMIN_TOKEN differ.',
  fleet_disabled: 'PAR runs a fleet, but Envoy was started without PIXELL_FLEET_CIDRS.',
  precondition_failed: null, // This keeps two writers apart, and is not a failure.
};

const OTHER_WRITE_ADVICE = 'The map may not be what PAR wants it to be. The response that PAR got names every error: look at PAR’s log.';

const DISPLACED = 'wasmcustom.pixell_displaced_routes_total';
const DISPLACED_ADVICE = 'A write gave an agent’s port to another id, and the route that had it is gone. Either two agents claim the port, or one ended and PAR did not deregister it: PAR’s log names both ids and the port.';

const NOT_CONNECTED = 'connection failed', BROKEN_OFF = 'broken off';
const FAILURES = {
  [NOT_CONNECTED]: {
    title: 'connection to an agent failed',
    advice: 'The route is there, but no process accepts connections at its port. One request makes about ten attempts. The access log names deployment_id and upstream: is that agent running, and on that port?',
  },
  [BROKEN_OFF]: {
    title: 'request broken off by its agent',
    advice: 'The agent ended the connection or the stream before its response was complete. The access log names deployment_id and upstream; look at that agent’s log in PAR.',
  },
};

const ROUTES_FAIL = {
  unreachable: {
    level: 'bad', title: 'No connection to',
    advice: 'The latest attempts failed, and no request has succeeded since. Is that agent running, and on that port? If PAR restarted it on another one, its push is missing.',
  },
  failing: {
    level: 'warn', title: 'Errors from',
    advice: 'The latest requests ended with a status of 500 or above or were broken off, and none has succeeded since. Look at that agent’s log.',
  },
};

const DROPPED_ADVICE = 'Envoy’s output is not read fast enough, so the container’s entry point drops lines. Requests are still served. Is the log driver stalled? Look at the engine’s log and at what collects the logs.';

const NO_RESPONSE = {
  kind: 'Envoy does not respond', level: 'bad', title: 'Envoy does not respond',
  advice: 'The page below shows the last state that it received. Is the container running? Its log ends with the reason, and the orchestrator restarts it; PAR then pushes the map again. This page keeps trying.',
};

const HAS_FLEET = document.documentElement.dataset.fleet === 'on';

// `ready`: Envoy's own state; `stats`: name -> value; `seen`: the tallies of rejections, failures, rejected writes, dropped lines and displaced routes;
// `failingRoutes`: the names of the routes that fail in one way.
const problemsOf = (ready, stats, seen, failingRoutes) => {
  const problems = [];
  const add = (level, kind, title, advice) => problems.push({ level, kind, title, advice });
  if (ready !== 'LIVE') {
    add('bad', 'not ready', `Envoy says ${ready}`, 'It is starting, or draining before it ends; either takes less than a minute. If it takes longer, read Envoy’s log.');
  }
  if (stats.get('wasmcustom.pixell_route_map_generation') === 0) {
    add('bad', 'no route map', 'No route map has been pushed', 'Every request is rejected until PAR pushes one. Look at PAR’s log for its pushes to ENVOY_ADMIN_URL. An Envoy that was restarted alone waits for PAR’s next push.');
  }
  if (HAS_FLEET && stats.get('wasmcustom.pixell_fleet_map_generation') === 0) {
    add('bad', 'no fleet map', 'No fleet map has been pushed', 'Until PAR pushes one, /ready/traffic is 503, so the load balancer sends nothing here, and agents of other tasks are not found. PAR’s log says why its Fleet does not push: usually it cannot read the directory.');
  }
  // Envoy also has a counter `vm_reload`, and never counts anything in it.
  if ([...stats].some(([name, value]) => name.includes('.vm_reload_') && value > 0)) {
    add('bad', 'the filter has crashed', 'The filter has crashed and was restarted', 'Streams of that worker were cut. Envoy’s log has the message; please report it.');
  }
  for (const [what, name] of [['memory', 'fixed_heap'], ['connections', 'global_downstream_max_connections']]) {
    const percent = stats.get(`${PRESSURE}${name}.pressure`);
    if (percent >= NEARLY_FULL) {
      add('bad', `${what} run out`, `${percent} % of the limit of ${what} is used`, 'Near the limit Envoy ends streams and rejects requests. Look in the access log for clients and agents that do not read: long duration_us, large bytes_sent.');
    }
  }
  const days = stats.get(EXPIRY);
  if (days < EXPIRY_DAYS) add(days < 2 ? 'bad' : 'warn', 'the certificate expires', `The certificate expires in ${counted(days, 'day', 'days')}`, EXPIRY_ADVICE);
  for (const [health, { level, title, advice }] of Object.entries(ROUTES_FAIL)) {
    const routes = failingRoutes(health);
    if (routes) add(level, `routes ${health}`, `${title} ${routes}`, advice);
  }
  const recent = (tally, level, kind, titleOf, adviceOf) => {
    for (const key of seen[tally].keys()) {
      const count = seen[tally].sum(key, RECENT_S), advice = adviceOf(key);
      if (count && advice) add(level(key), kind(key), `${titleOf(key, count.toLocaleString('en'))} in the last minute`, advice);
    }
  };
  recent('failures', () => 'bad', (key) => `agents: ${key}`, (key, count) => `${count} × ${FAILURES[key].title}`, (key) => FAILURES[key].advice);
  const writes = (tally, map, kind) => recent(tally, () => 'bad', (reason) => `${kind} rejected: ${reason}`,
    (reason, count) => `${count} × write to the ${map} map rejected, ${reason},`,
    (reason) => (WRITE_ADVICE[reason] === undefined ? OTHER_WRITE_ADVICE : WRITE_ADVICE[reason]));
  writes('writes', 'route', 'writes');
  writes('fleetWrites', 'fleet', 'fleet writes');
  recent('dropped', () => 'bad', (kind) => `${kind} dropped`, (kind, count) => `${count} × line of the log dropped`, () => DROPPED_ADVICE);
  recent('displaced', () => 'warn', (key) => key, (key, count) => `${count} × route displaced by another id`, () => DISPLACED_ADVICE);
  recent('rejections', (reason) => (reason === 'internal' ? 'bad' : 'warn'), (reason) => reason, (reason, count) => `${count} × ${reason}`,
    (reason) => REJECTION_ADVICE[reason] || ENVOY_REJECTION_ADVICE[reason] || 'See docs/operations.md.');
  recent('authentication', () => 'bad', (key) => AUTHENTICATION[key].title, (key, count) => `${count} × ${AUTHENTICATION[key].title}`, (key) => AUTHENTICATION[key].advice);
  return problems;
};

// The announcement names the problems but not their counts, so that it is not read out every two seconds.
const showProblems = (problems) => {
  const key = JSON.stringify(problems), list = $('problem-list');
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  $('problems').hidden = !problems.length;
  list.replaceChildren(...problems.map(({ level, title, advice }) => {
    const item = element('li', 'problem');
    item.dataset.level = level;
    item.append(element('strong', '', title), element('span', '', advice));
    return item;
  }));
  text('announcement', problems.length ? 'Problems: ' + problems.map(({ kind }) => kind).join('; ') : '');
};
