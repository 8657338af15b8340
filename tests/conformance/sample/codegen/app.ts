// A program that is typed by what GraphQL Code Generator makes of the schema. It is compiled and not run.
import { graphql } from './gql';
import type { ResultOf, TypedDocumentNode } from '@graphql-typed-document-node/core';

const tasks = graphql(`
  query Tasks($first: Int!, $status: [TaskStatus!]) {
    tasks(first: $first, filter: { status: $status }) {
      nodes {
        id
        title
        status
        budget
      }
      pageInfo {
        endCursor
        hasNextPage
      }
    }
  }
`);

const rename = graphql(`
  mutation Rename($input: UpdateProfileInput!) {
    updateProfile(input: $input) {
      user {
        id
      }
      userErrors {
        message
        field
      }
    }
  }
`);

const settlements = graphql(`
  subscription Settlements($after: EventCursor) {
    settlementEvents(after: $after) {
      __typename
      cursor
    }
  }
`);

declare function execute<Result, Variables>(document: TypedDocumentNode<Result, Variables>, variables: Variables): Result;

export const titles: string[] | undefined = execute(tasks, { first: 10 }).tasks?.nodes.map((task) => task.title);
export const renamed: string | undefined = execute(rename, { input: { displayName: 'x' } }).updateProfile?.user?.id;
export const cursor = (event: ResultOf<typeof settlements>): string => event.settlementEvents.cursor;

// @ts-expect-error A name has to be a text.
execute(rename, { input: { displayName: 1 } });
