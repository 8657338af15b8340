// Documents whose results and variables are typed by the schema. At run time a document is its text.

import type { initGraphQLTada, ResultOf, TadaDocumentNode, VariablesOf } from 'gql.tada';
import type { introspection } from './generated/schema';

type Scalars = {
  BigInt: string; Credits: string; DateTime: string; Duration: string; EventCursor: string; JSON: unknown; Percentage: string;
  Points: string; SignedCredits: string;
};

type Typed = initGraphQLTada<{ introspection: introspection; scalars: Scalars; disableMasking: true }>;

/** Without the indentation of the source around it. */
function dedent(source: string): string {
  const lines = source.split('\n').filter((line) => line.trim());
  const margin = Math.min(...lines.map((line) => line.length - line.trimStart().length));
  return lines.map((line) => line.slice(margin)).join('\n');
}

const join = (source: string, fragments: readonly string[] = []): string => [dedent(source), ...fragments].join('\n\n');

export const graphql = join as unknown as Typed;

export type Document<R = any, V = any> = TadaDocumentNode<R, V>;
export type Result<D> = ResultOf<D>;
export type Variables<D> = VariablesOf<D>;

/** The text of a document. */
export const text = (document: Document): string => document as unknown as string;
