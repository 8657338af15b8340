// Documents whose results and variables are typed by the schema. At run time a document is its text.

import type { initGraphQLTada, ResultOf, TadaDocumentNode, VariablesOf } from 'gql.tada';
import type { introspection } from './generated/schema';

type Scalars = {
  BigInt: string; Credits: string; DateTime: string; Duration: string; EventCursor: string; JSON: unknown; Percentage: string;
  Points: string; SignedCredits: string;
};

type Typed = initGraphQLTada<{ introspection: introspection; scalars: Scalars; disableMasking: true }>;

const join = (text: string, fragments: readonly string[] = []): string => [text.trim(), ...fragments].join('\n');

export const graphql = join as unknown as Typed;

export type Document<R = any, V = any> = TadaDocumentNode<R, V>;
export type Result<D> = ResultOf<D>;
export type Variables<D> = VariablesOf<D>;

/** The text of a document, without the indentation of the source around it. */
export function text(document: Document): string {
  const lines = (document as unknown as string).split('\n');
  const margin = Math.min(...lines.slice(1).filter((line) => line.trim()).map((line) => line.length - line.trimStart().length));
  return lines.map((line, at) => (at > 0 && Number.isFinite(margin) ? line.slice(Math.min(margin, line.length - line.trimStart().length)) : line)).join('\n');
}
