// Where one is stands in the hash, so that every view has a link of its own and the page works below any path.

export interface Route {
  page: string;
  id: string;
  /** What narrows a list. */
  search: Record<string, string>;
}

/** The route in a hash such as `#/auction/auc_…` or `#/tasks?status=OPEN`. */
export function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [page = '', id = ''] = path.split('/').map(decode);
  return { page: page || 'floor', id, search: Object.fromEntries(new URLSearchParams(query)) };
}

/** The hash of a route; what is empty is left out. */
export function link(page: string, id = '', search: Record<string, string> = {}): string {
  const query = new URLSearchParams(Object.entries(search).filter(([, value]) => value !== '')).toString();
  const path = page === 'floor' && !id ? '' : `${encodeURIComponent(page)}${id ? `/${encodeURIComponent(id)}` : ''}`;
  return `#/${path}${query ? `?${query}` : ''}`;
}

const PAGES: Record<string, string> = {
  auc: 'auction', task: 'task', agent: 'agent', dlg: 'delegation', chan: 'channel',
};

/** The page of a thing, by the prefix of its id. */
export function pageOf(id: string): string | undefined {
  return PAGES[id.slice(0, id.indexOf('_'))];
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
