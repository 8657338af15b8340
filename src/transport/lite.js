// The small page: signs in, asks, and follows a subscription as an event stream. The token is kept in this variable alone, so it
// is gone when the page is.
let token = '';
let stopping = null;

const at = (id) => document.getElementById(id);
const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
/** Between two attempts to follow on, and how many answers of a stream are shown. */
const PAUSE = 1_000;
const SHOWN = 100;

const EXAMPLES = [
  ['The market', '{\n  marketStats { openAuctions activeAgents bids volume averagePrice }\n  leaderboard(first: 5) { rank score agent { id name } }\n}', ''],
  ['Open auctions', 'query Auctions($first: Int) {\n  auctions(first: $first, filter: { status: [OPEN] }) {\n    nodes { id budget bidCount closesAt capabilities }\n  }\n}', '{ "first": 10 }'],
  ['Follow the market', 'subscription Market {\n  marketEvents { kind occurredAt cursor }\n}', ''],
  ['My wallet', '{\n  me { displayName wallet { available inEscrow } }\n}', ''],
  ['Post a task', 'mutation Post($input: ExecuteTaskInput!) {\n  executeTask(input: $input) {\n    task { id status }\n    userErrors { code message field }\n  }\n}',
    '{ "input": { "title": "Hello", "capabilities": ["text.stats"], "input": "Hello, world.", "budget": "2.5", "idempotencyKey": "hello-1" } }'],
  ['Follow a task', 'subscription Follow($taskId: ID!) {\n  taskEvents(taskId: $taskId) { kind occurredAt cursor }\n}', '{ "taskId": "" }'],
];

function fill(query, variables) {
  at('query').value = query;
  at('variables').value = variables;
}

/** The request for an operation; an event stream answers one that follows. */
function send(body, { follow = false, after = '', signal } = {}) {
  const headers = { 'content-type': 'application/json' };
  headers.accept = follow ? 'text/event-stream' : 'application/graphql-response+json, application/json;q=0.9';
  if (token) headers.authorization = `Bearer ${token}`;
  if (after) headers['last-event-id'] = after;
  return fetch('./graphql', { method: 'POST', headers, body: JSON.stringify(body), ...(signal && { signal }) });
}

/** The events of a stream, as they come. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = {};
      for (const line of text.slice(0, end).split('\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
      text = text.slice(end + 2);
      if (event.event) yield event;
    }
  }
}

/** Follows to the end of the stream; one that breaks off is taken up again behind the last event that came. */
async function follow(body, signal) {
  let after = '';
  let many = 0;
  const shown = [];
  while (!signal.aborted) {
    try {
      const response = await send(body, { follow: true, after, signal });
      if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
        at('answer').textContent = JSON.stringify(await response.json(), null, 2);
        if (response.status < 500) return 'Refused.';
      } else {
        at('state').textContent = `Following; ${many} so far.`;
        for await (const event of events(response.body)) {
          if (event.event === 'complete') return `Ended after ${many}.`;
          after = event.id ?? after;
          many += 1;
          shown.unshift(event.data);
          at('answer').textContent = shown.slice(0, SHOWN).join('\n');
          at('state').textContent = `Following; ${many} so far.`;
        }
      }
    } catch (error) {
      if (signal.aborted) break;
      at('state').textContent = `${error.message}; trying again.`;
    }
    await wait(PAUSE);
  }
  return `Stopped after ${many}.`;
}

async function run() {
  stopping?.abort();
  const stop = new AbortController();
  stopping = stop;
  at('stop').disabled = false;
  at('answer').textContent = '';
  at('state').textContent = 'Running …';
  let said;
  try {
    const query = at('query').value;
    const body = { query, variables: at('variables').value.trim() ? JSON.parse(at('variables').value) : {} };
    if (/^\s*subscription\b/m.test(query.replace(/#.*/g, ''))) {
      said = await follow(body, stop.signal);
    } else {
      const response = await send(body, { signal: stop.signal });
      at('answer').textContent = JSON.stringify(await response.json(), null, 2);
      said = `Answered with ${response.status}.`;
    }
  } catch (error) {
    said = stop.signal.aborted ? 'Stopped.' : `Not answered: ${error.message}`;
  }
  if (stopping !== stop) return;
  at('stop').disabled = true;
  at('state').textContent = said;
}

async function signIn(form) {
  const { email, password } = Object.fromEntries(new FormData(form));
  const query = 'mutation($input: LoginInput!) { login(input: $input) { tokens { accessToken user { displayName } } userErrors { message } } }';
  try {
    const answer = await (await send({ query, variables: { input: { email, password } } })).json();
    const { tokens, userErrors } = answer.data?.login ?? {};
    if (!tokens) throw new Error(userErrors?.[0]?.message ?? answer.errors?.[0]?.message ?? 'there is no answer');
    token = tokens.accessToken;
    form.reset();
    at('who').textContent = `Signed in as ${tokens.user.displayName}, until this page is left.`;
  } catch (error) {
    at('who').textContent = `Not signed in: ${error.message}`;
  }
}

at('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn(event.target);
});
at('token').addEventListener('submit', (event) => {
  event.preventDefault();
  token = new FormData(event.target).get('token').trim();
  event.target.reset();
  at('who').textContent = 'The token is used until this page is left.';
});
at('sign-out').addEventListener('click', () => {
  token = '';
  at('who').textContent = 'Nobody is signed in.';
});
at('operation').addEventListener('submit', (event) => {
  event.preventDefault();
  run();
});
at('operation').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});
at('stop').addEventListener('click', () => stopping?.abort());
at('examples').append(...EXAMPLES.map(([name]) => new Option(name)));
at('examples').addEventListener('change', (event) => {
  const [, query, variables] = EXAMPLES[event.target.selectedIndex];
  fill(query, variables);
});

// Links of the console carry an operation.
const linked = new URLSearchParams(location.hash.slice(1));
fill(linked.get('query') ?? EXAMPLES[0][1], linked.get('variables') ?? '');
