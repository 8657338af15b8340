// Operations that show what the market can do. A test holds each against the schema and runs it.

/** An operation with its variables, as they stand in an editor. */
export interface Example {
  name: string;
  about: string;
  query: string;
  variables: string;
}

const queries = import.meta.glob<string>('./examples/*.graphql', { query: '?raw', import: 'default', eager: true });
const variables = import.meta.glob<string>('./examples/*.json', { query: '?raw', import: 'default', eager: true });

/** What the latest answers named: an example about a task is about the task that was posted last. */
const latest = new Map<string, string>();

/** Remembers the ids in an answer. */
export function remember(answer: unknown): void {
  if (typeof answer !== 'object' || answer === null) return;
  for (const [name, value] of Object.entries(answer)) {
    const id = (value as { id?: unknown } | null)?.id;
    if (typeof id === 'string') latest.set(name, id);
    remember(value);
  }
}

/** The variables of an example, with fresh keys and the latest ids. */
export function filled(example: Example): string {
  return example.variables.replace(/\{\{(\w+)\}\}/g, (_, name: string) =>
    name === 'key' ? crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` : latest.get(name) ?? '',
  );
}

// The files are named `<place in the list>-<name>`.
export const examples: Example[] = Object.keys(queries).sort().map((path) => {
  const query = queries[path] ?? '';
  const name = path.replace(/^.*\/\d+-(.*)\.graphql$/, '$1').replaceAll('-', ' ');
  const comment = query.split('\n').filter((line) => line.startsWith('#'));
  return {
    name: name.charAt(0).toUpperCase() + name.slice(1),
    about: comment.map((line) => line.slice(1).trim()).join(' ').replaceAll('`', ''),
    query,
    variables: variables[path.replace(/graphql$/, 'json')] ?? '',
  };
});
