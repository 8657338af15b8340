import './workers';
import 'graphiql/style.css';
import './graphiql.css';
import { HISTORY_PLUGIN, GraphiQL } from 'graphiql';
import { type GraphiQLPlugin, type TabsState, useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import { type Fetcher, type Storage, createGraphiQLFetcher } from '@graphiql/toolkit';
import { type DocumentNode, type GraphQLSchema, Kind, buildSchema, parse } from 'graphql';
import { createElement as h } from 'react';
import { createRoot } from 'react-dom/client';
import { type Example, examples, filled, remember } from './examples';
import { endpoint, onChange, signIn, signOut, signedFetch, socketClient, useToken } from './session';
import { filtered } from './storage';

function at<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found as T;
}

/** The worked examples, as a plugin beside the documentation and the history. */
const EXAMPLES: GraphiQLPlugin = {
  title: 'Examples',
  icon: () =>
    h(
      'svg',
      { viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', strokeWidth: 1.5, 'aria-hidden': true },
      h('path', { d: 'M9 3h6M10 3v6l-5 9a2 2 0 0 0 2 3h10a2 2 0 0 0 2-3l-5-9V3M7.5 15h9' }),
    ),
  content: Examples,
};

function Examples() {
  const { addTab } = useGraphiQLActions();
  const queryEditor = useGraphiQL((state) => state.queryEditor);
  const variableEditor = useGraphiQL((state) => state.variableEditor);
  const open = (example: Example) => {
    if (queryEditor?.getValue().trim()) addTab();
    queryEditor?.setValue(example.query);
    variableEditor?.setValue(filled(example));
    queryEditor?.focus();
  };
  return h(
    'section',
    { 'aria-label': 'Examples', className: 'examples' },
    h('h2', null, 'Examples'),
    h('p', null, 'Each opens in a tab. Examples about a task or a delegation are about the one that was answered last.'),
    h(
      'ul',
      null,
      examples.map((example) =>
        h(
          'li',
          { key: example.name },
          h('button', { type: 'button', onClick: () => open(example) }, example.name),
          h('p', null, example.about),
        ),
      ),
    ),
  );
}

/** The schema as the service writes it down. To ask for it by introspection would cost more than a query may. */
async function loadSchema(): Promise<GraphQLSchema> {
  const response = await fetch(new URL('./graphql/schema.graphql', document.baseURI));
  if (!response.ok) throw new Error(`The schema is answered with ${response.status}.`);
  return buildSchema(await response.text(), { assumeValidSDL: true });
}

/** The document, or nothing where it has faults: those are for the service to name. */
function parsed(query: string): DocumentNode | undefined {
  try {
    return parse(query);
  } catch {
    return undefined;
  }
}

const inner = createGraphiQLFetcher({ url: endpoint, fetch: signedFetch, wsClient: socketClient, enableIncrementalDelivery: false });
const fetcher: Fetcher = async (parameters, options) => {
  // GraphiQL works out what an operation is, and its name, a moment after the text has changed. Who runs it before that, as by a
  // click on an example and a click on the arrow, would send the new text with what is known of the old.
  const document = parsed(parameters.query);
  const names = document?.definitions.flatMap((part) => (part.kind === Kind.OPERATION_DEFINITION ? [part.name?.value] : []));
  const stale = names && parameters.operationName && !names.includes(parameters.operationName);
  const answer = await inner(
    stale ? { ...parameters, operationName: names[0] ?? null } : parameters,
    document ? { ...options, documentAST: document } : options,
  );
  if (answer && typeof answer === 'object' && 'data' in answer) remember(answer.data);
  return answer;
};

/** Signing in, by a password or by a token. */
function listen(): void {
  const dialog = at<HTMLDialogElement>('signing-in');
  const problem = at('problem');
  const attempt = async (form: HTMLFormElement, work: (field: (name: string) => string) => Promise<void>) => {
    const data = new FormData(form);
    problem.textContent = '';
    try {
      await work((name) => String(data.get(name) ?? '').trim());
      dialog.close();
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  const submits = (id: string, work: (field: (name: string) => string) => Promise<void>) => {
    const form = at<HTMLFormElement>(id);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void attempt(form, work);
    });
    dialog.addEventListener('close', () => form.reset());
  };
  submits('by-password', (field) => signIn(field('email'), field('password')));
  submits('by-token', (field) => useToken(field('token').replace(/^bearer\s+/i, '')));
  at('open').addEventListener('click', () => dialog.showModal());
  at('cancel').addEventListener('click', () => dialog.close());
  at('sign-out').addEventListener('click', signOut);
  onChange((name) => {
    at('who').textContent = name ? `Signed in as ${name}` : 'Not signed in';
    at('open').hidden = name !== '';
    at('sign-out').hidden = name === '';
  });
}

/** What the editors begin with: the operation of a link, as the console has them, the tab that was open last, or an example. */
function beginning(storage: Storage): { initialQuery: string; initialVariables: string } {
  const linked = new URLSearchParams(location.hash.slice(1));
  const stored = JSON.parse(storage.getItem('graphiql:tabState') ?? '{}') as Partial<TabsState>;
  const tabs = stored.tabs ?? [];
  const last = tabs[Math.min(stored.activeTabIndex ?? 0, tabs.length - 1)];
  const [query, variables] = linked.has('query')
    ? [linked.get('query'), linked.get('variables')]
    : last
      ? [last.query, last.variables]
      : [examples[0]?.query, examples[0]?.variables];
  return { initialQuery: query ?? '', initialVariables: variables ?? '' };
}

listen();
const storage = filtered(EXAMPLES.title);
const schema = await loadSchema().catch((error: unknown) => {
  at('who').textContent = error instanceof Error ? error.message : String(error);
  return undefined;
});
createRoot(at('graphiql')).render(
  h(GraphiQL, {
    fetcher,
    ...(schema && { schema }),
    dangerouslyAssumeSchemaIsValid: true,
    plugins: [EXAMPLES, HISTORY_PLUGIN],
    storage,
    shouldPersistHeaders: false,
    defaultEditorToolsVisibility: 'variables',
    ...beginning(storage),
  }),
);
