// What is wrong, told from the counters, and what to do about it. docs/operations.md says more of each.

const RECENT_S = 60;
const NEARLY_FULL = 80;
const REJECTIONS = 'wasmcustom.pixell_rejections_total.reason.';
const REFUSED_WRITES = 'wasmcustom.pixell_route_map_refused_writes_total.reason.';
const PRESSURE = 'overload.envoy.resource_monitors.';

const REJECTION_ADVICE = {
  missing_deployment_id: 'Callers send no x-deployment-id header. The access log names them (caller, user_agent); the fault is theirs.',
  invalid_deployment_id: 'Callers send an id that is none, or several. The access log shows the value and who sent it.',
  unknown_deployment: 'Callers ask for ids that are not in the map below. Was the agent deployed, and did PAR push it? Look for the id in the access log and in PAR’s log.',
  deployment_draining: 'Callers still use deployments that are being stopped. It passes when they are gone; if not, PAR left them draining.',
  deployment_moved: 'An agent died and came back on another port while requests waited for it. Their callers have to call again; if it goes on, look in PAR’s log why it dies.',
  route_map_not_loaded: 'PAR has not pushed a map since Envoy started. Look at PAR’s log for its pushes to ENVOY_ADMIN_URL.',
  internal: 'The filter could not hand the address to Envoy. This is a fault of its configuration or its code: Envoy’s log says which.',
};
const WRITE_ADVICE = {
  unauthorized: 'PAR’s token and PIXELL_ADMIN_TOKEN differ.',
  precondition_failed: null, // This is how two writers are kept apart, and no fault.
};

const OTHER_WRITE_ADVICE = 'The map may lag behind what PAR means it to be. The answer that PAR got names every fault: look at PAR’s log.';

const NOT_CONNECTED = 'connection failed', BROKEN_OFF = 'broken off';
const FAILURES = {
  [NOT_CONNECTED]: {
    title: 'connection to an agent failed',
    advice: 'The route is there, but no process takes connections at its port; one request is up to nine tries. The access log names deployment_id and upstream: is that agent running, and on that port?',
  },
  [BROKEN_OFF]: {
    title: 'request broken off by its agent',
    advice: 'The agent ended the connection or the stream before its answer was whole. The access log names deployment_id and upstream; look at that agent’s log in PAR.',
  },
};

const NO_ANSWER = {
  kind: 'Envoy does not answer', level: 'bad', title: 'Envoy does not answer',
  advice: 'What is shown below is how it was before. Is the container running? Its log ends with the reason, and the orchestrator restarts it; PAR then pushes the map again. This page goes on trying.',
};

// `ready`: what Envoy says of itself; `stats`: name -> value; `seen`: the tallies of rejections, failures and refused writes.
const problemsOf = (ready, stats, seen) => {
  const problems = [];
  const add = (level, kind, title, advice) => problems.push({ level, kind, title, advice });
  if (ready !== 'LIVE') {
    add('bad', 'not ready', `Envoy says ${ready}`, 'It is starting, or it is draining before its end; either takes less than a minute. If it stays so, read Envoy’s log.');
  }
  if (stats.get('wasmcustom.pixell_route_map_generation') === 0) {
    add('bad', 'no route map', 'No route map has been pushed', 'Every request is refused until PAR pushes one. Look at PAR’s log for its pushes to ENVOY_ADMIN_URL; an Envoy that was restarted alone waits for PAR’s next push.');
  }
  // Envoy also has a counter `vm_reload`, and never counts anything in it.
  if ([...stats].some(([name, value]) => name.includes('.vm_reload_') && value > 0)) {
    add('bad', 'the filter has crashed', 'The filter has crashed and was started anew', 'Streams of that worker were cut. Envoy’s log has the message; please report it.');
  }
  for (const [what, name] of [['memory', 'fixed_heap'], ['connections', 'global_downstream_max_connections']]) {
    const percent = stats.get(`${PRESSURE}${name}.pressure`);
    if (percent >= NEARLY_FULL) {
      add('bad', `${what} run out`, `${percent} % of the limit of ${what} is used`, 'Near the limit Envoy ends streams and refuses requests. Look in the access log for whoever does not read: long duration_us, large bytes_sent.');
    }
  }
  const recent = (tally, level, kind, titleOf, adviceOf) => {
    for (const key of seen[tally].keys()) {
      const count = seen[tally].sum(key, RECENT_S), advice = adviceOf(key);
      if (count && advice) add(level(key), kind(key), `${titleOf(key, count.toLocaleString('en'))} in the last minute`, advice);
    }
  };
  recent('failures', () => 'bad', (key) => `agents: ${key}`, (key, count) => `${count} × ${FAILURES[key].title}`, (key) => FAILURES[key].advice);
  recent('writes', () => 'bad', (reason) => `writes refused: ${reason}`, (reason, count) => `${count} × write to the route map refused, ${reason},`,
    (reason) => (WRITE_ADVICE[reason] === undefined ? OTHER_WRITE_ADVICE : WRITE_ADVICE[reason]));
  recent('rejections', (reason) => (reason === 'internal' ? 'bad' : 'warn'), (reason) => reason, (reason, count) => `${count} × ${reason}`,
    (reason) => REJECTION_ADVICE[reason] || 'See docs/operations.md.');
  return problems;
};

// The announcement says which problems there are and not how many times, so that it is not read out every two seconds.
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
